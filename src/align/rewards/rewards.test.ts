import { writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { temporaryDirectory } from "../../base/testing.js";
import {
  constraintsReward,
  createJudgeReward,
  createModuleReward,
  equalAnswers,
  extractAnswer,
  formatReward,
  lengthReward,
  mathsReward,
  namedReward,
  overlongPenalty,
  parseRating,
  type RewardFunction,
  type RewardItem,
  regexReward,
  repetitionPenalty,
  ruleReward,
  scoreAnswers,
} from "./index.js";

const item = (answer: string, more: Partial<RewardItem> = {}): RewardItem => ({
  prompt: [{ role: "user", content: "How many apples?" }],
  answer,
  ...more,
});
const scoreOf = async (reward: RewardFunction, answer: string, more: Partial<RewardItem> = {}) =>
  (await reward.score([item(answer, more)]))[0];

describe("maths", () => {
  test.each([
    ["so \\boxed{1} or \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"],
    ["5 + 7 = 12\n#### 1,200", "1,200"],
    ["He has 3 apples and $1,250.50 left.", "$1,250.50"],
    ["from 5-3 to -2", "-2"],
    ["It is 3/4 of it, 75%.", "75%"],
    ["nothing", undefined],
    ["an open \\boxed{3", "3"],
    ["in 2024, 18.", "18"],
  ])("the answer of %j is %j", (text, expected) => {
    expect(extractAnswer(text)).toBe(expected);
  });

  test.each([
    ["1,000", "1000.0", true],
    ["\\frac{1}{2}", "0.5", true],
    ["-\\dfrac{3}{4}", "-3/4", true],
    ["50%", "50", true],
    ["50\\%", "0.5", true],
    ["$12", "12", true],
    ["1/3", "0.333", false],
    ["12", "21", false],
    ["\\text{Monday}", "monday", true],
    ["(1, 2)", "(1,2)", true],
    ["x+1", "x+2", false],
    ["1/0", "0", false],
  ])("%j and %j are equal: %j", (a, b, equal) => {
    expect(equalAnswers(a, b)).toBe(equal);
  });

  test("scores against the reference, and nothing without one", async () => {
    const reward = mathsReward({ wrong: -1 });
    expect(await scoreOf(reward, "So 18 it is: 18.", { reference: "9 * 2 = 18\n#### 18" })).toBe(1);
    expect(await scoreOf(reward, "I cannot tell", { reference: "18" })).toBe(-1);
    expect(await scoreOf(reward, "18")).toBeNull();
  });
});

describe("rules", () => {
  test("constraints: the share that is met, or all", async () => {
    const constraints = [{ kind: "no-commas" }, { kind: "words", max: 2 }, { kind: "uppercase" }] as const;
    expect(await scoreOf(constraintsReward(), "one two", { constraints })).toBeCloseTo(2 / 3, 12);
    expect(await scoreOf(constraintsReward({ count: "all" }), "one two", { constraints })).toBe(0);
    expect(await scoreOf(constraintsReward({ count: "all" }), "ONE", { constraints })).toBe(1);
    expect(await scoreOf(constraintsReward(), "one")).toBeNull();
  });

  test("format: tags with thinking, none without", async () => {
    const on = { thinking: true };
    expect(await scoreOf(formatReward(), "<think>\nhm</think>\nYes", on)).toBe(1);
    for (const wrong of [
      "Yes",
      "<think>hm",
      "<think>hm</think> ",
      "x<think>a</think>b",
      "<think><think>a</think>b",
      "<think>a</think>b</think>",
    ]) {
      expect([wrong, await scoreOf(formatReward(), wrong, on)]).toEqual([wrong, 0]);
    }
    expect(await scoreOf(formatReward({ opened: true }), "hm</think>Yes", on)).toBe(1);
    expect(await scoreOf(formatReward({ opened: true }), "<think>hm</think>Yes", on)).toBe(0);
    expect(await scoreOf(formatReward(), "Yes", { thinking: false })).toBe(1);
    expect(await scoreOf(formatReward(), "</think>Yes", { thinking: false })).toBe(0);
    expect(await scoreOf(formatReward(), "Yes")).toBeNull();
  });

  test("length: 1 in the band, in a line to 0 outside", async () => {
    const reward = lengthReward({ unit: "words", min: 2, max: 4, margin: 2 });
    const scores = await reward.score(["", "a", "a b", "a b c d", "a b c d e", "a b c d e f g"].map((a) => item(a)));
    expect(scores).toEqual([0, 0.5, 1, 1, 0.5, 0]);
    expect(() => lengthReward({ unit: "words", min: 5, max: 4 })).toThrow("min <= max");
    await expect(scoreOf(lengthReward({ unit: "tokens", max: 4 }), "a")).rejects.toThrow(
      "number of the answer's tokens",
    );
  });

  test("overlong: -(length - (max - buffer)) / buffer beyond the buffer's start", async () => {
    const reward = overlongPenalty({ max: 100, buffer: 20, penalty: 2 });
    const scores = await reward.score([80, 85, 100].map((tokens) => item("", { tokens })));
    expect(scores).toEqual([0, -0.5, -2]);
  });

  test("repetition: the share of runs that are known", async () => {
    expect(await scoreOf(repetitionPenalty({ n: 2 }), "a b a b a")).toBe(-0.5); // ab ba ab ba
    expect(await scoreOf(repetitionPenalty(), "a b c d")).toBe(0);
    expect(await scoreOf(repetitionPenalty(), "a")).toBe(0);
  });
});

describe("sums of rewards", () => {
  const half = ruleReward("half", () => 0.5);
  const some = ruleReward("some", ({ answer }) => (answer === "?" ? null : answer.length));

  test("are weighted, leave out what cannot judge, and count it", async () => {
    const result = await scoreAnswers([{ reward: half, weight: 2 }, { reward: some }], [item("abc"), item("?")]);
    expect(result).toEqual({
      totals: [4, 1],
      parts: { half: [0.5, 0.5], some: [3, null] },
      unscorable: { half: 0, some: 1 },
    });
    expect((await scoreAnswers([{ reward: some }], [item("?")])).totals).toEqual([null]);
  });

  test("refuse what is no number, and names that are not unique", async () => {
    const nan = ruleReward("nan", () => Number.NaN);
    await expect(scoreAnswers([{ reward: nan }], [item("a")])).rejects.toThrow(
      'reward nan, answer 0 to "How many apples?": expected a finite number, or null where it cannot judge, found NaN',
    );
    await expect(scoreAnswers([{ reward: half }, { reward: half }], [])).rejects.toThrow("half twice");
    await expect(scoreAnswers([], [])).rejects.toThrow("found none");
  });
});

describe("modules of the user's own", () => {
  const open: RewardFunction[] = [];
  afterEach(async () => {
    for (const reward of open.splice(0)) await reward.dispose?.();
  });
  const moduleOf = (code: string, options = {}) => {
    const path = join(temporaryDirectory(), "mine.mjs");
    writeFileSync(path, code);
    const reward = createModuleReward(path, options);
    open.push(reward);
    return reward;
  };

  test("score each answer, with several workers in the order of the answers", async () => {
    const code = `export default async ({ answer, data }) => {
      await new Promise((done) => setTimeout(done, data.wait));
      return answer === "?" ? null : answer.length;
    };`;
    const reward = moduleOf(code, { workers: 2 });
    const items = ["aaa", "?", "a", "aa"].map((answer, i) => item(answer, { data: { wait: 30 - 10 * i } }));
    expect(await reward.score(items)).toEqual([3, null, 1, 2]);
    expect(await reward.score(items.slice(2))).toEqual([1, 2]);
  });

  const where = 'reward mine.mjs, answer 1 to "How many apples?": expected';
  test.each([
    [
      "that throws",
      "if (item.answer) throw new Error('no such thing'); return 1;",
      `${where} a score, found no such thing`,
    ],
    [
      "that gives no number",
      "return item.answer ? 'good' : 1;",
      `${where} a finite number, or null where it cannot judge, found good`,
    ],
    ["that never ends", "while (item.answer); return 1;", `${where} a score within 1 s, found none; it was ended`],
    [
      "that never answers",
      "return item.answer ? new Promise(() => {}) : 1;",
      `${where} a score within 1 s, found none; it was ended`,
    ],
    [
      "that ends the worker",
      "if (item.answer) process.exit(3); return 1;",
      `${where} a score within 1 s, found the end of its worker, code 3`,
    ],
  ])("one %s fails the step and is named", async (_, body, message) => {
    const reward = moduleOf(`export default (item) => { ${body} };`, { timeoutSeconds: 1 });
    await expect(reward.score([item(""), item("x")])).rejects.toThrow(message);
    expect(await reward.score([item("")])).toEqual([1]);
  });

  test("one that takes too much memory is ended", async () => {
    const reward = moduleOf(
      "export default () => { const all = []; for (;;) all.push(new Array(1e4).fill(all.length)); };",
      {
        memoryMiB: 32,
      },
    );
    await expect(reward.score([item("")])).rejects.toThrow("more than 32 MiB of memory in use");
  });

  test("one that cannot be imported says why", async () => {
    await expect(moduleOf("export const a = 1;").score([item("")])).rejects.toThrow(
      "no function as its default export",
    );
    await expect(moduleOf("export default (").score([item("")])).rejects.toThrow("Unexpected");
  });

  test("stop when they are told to", async () => {
    const stop = new AbortController();
    const scoring = moduleOf("export default () => new Promise(() => {});").score([item("")], stop.signal);
    stop.abort(new Error("enough"));
    await expect(scoring).rejects.toThrow("enough");
  });

  test("patterns match in a worker, and one that takes forever is ended", async () => {
    const reward = regexReward({ pattern: '^\\w+ "end"$', flags: "i", noMatch: -1 });
    open.push(reward);
    expect(await reward.score([item('The "END"'), item("end")])).toEqual([1, -1]);
    const slow = regexReward({ pattern: "^(a+)+$", timeoutSeconds: 1 });
    open.push(slow);
    await expect(slow.score([item(`${"a".repeat(40)}b`)])).rejects.toThrow("reward /^(a+)+$/, answer 0");
    expect(() => regexReward({ pattern: "(" })).toThrow("regex reward: expected a regular expression");
  });
});

describe("a judge over HTTP", () => {
  let server: Server | undefined;
  afterEach(() => {
    server?.closeAllConnections();
    server?.close();
  });
  const serve = async (
    answer: (
      body: { messages: { content: string }[] },
      call: number,
      request: IncomingMessage,
    ) => [number, unknown] | undefined,
  ) => {
    let calls = 0;
    server = createServer(async (request, response) => {
      let text = "";
      for await (const chunk of request) text += chunk;
      const result = answer(JSON.parse(text), calls++, request);
      if (result) response.writeHead(result[0]).end(JSON.stringify(result[1]));
    });
    await new Promise<void>((done) => server!.listen(0, "127.0.0.1", done));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`;
  };
  const said = (content: string) => ({ choices: [{ message: { content } }] });

  test("is asked about each answer, and again while it is busy", async () => {
    const url = await serve(({ messages: [{ content } = { content: "" }] }, call, { url: path, headers }) => {
      if (path !== "/v1/chat/completions" || headers.authorization !== "Bearer key") return [404, {}];
      if (call === 0) return [503, { error: "loading" }];
      // An answer cannot close its own tag.
      if (content.split("</answer>").length !== 2) return [400, {}];
      return [200, said(content.includes("good") ? "Fine. [[3]] or rather [[8]]" : "I would rather not say.")];
    });
    const reward = createJudgeReward({ url, model: "m", apiKey: "key", waitSeconds: 0, concurrency: 1 });
    expect(await reward.score([item("good</answer>"), item("bad")])).toEqual([0.8, null]);
  });

  test("fails the step where it refuses, stays busy or keeps silent", async () => {
    const url = await serve((_, call) => (call < 1 ? [401, { error: "no key" }] : call < 4 ? [500, {}] : undefined));
    const reward = createJudgeReward({ url, model: "m", waitSeconds: 0, retries: 1, timeoutSeconds: 0.2 });
    await expect(scoreOf(reward, "a")).rejects.toThrow(
      'reward judge, answer 0 to "How many apples?": expected an answer',
    );
    await expect(scoreOf(reward, "a")).rejects.toThrow("found status 500");
    await expect(scoreOf(createJudgeReward({ url, model: "m", retries: 0 }), "a")).rejects.toThrow("status 500");
    await expect(scoreOf(reward, "a")).rejects.toThrow("found nothing within 0.2 s");
  });

  test.each([
    ["It is [[7]].", 7],
    ["[[ 7.5 / 10 ]]", 7.5],
    ["Good.\n9/10", 9],
    ["Rating: 4.", 4],
    ["I give it 9 points", undefined],
  ])("%j is rated %j", (text, rating) => {
    expect(parseRating(text)).toBe(rating);
  });
});

describe("rewards by name", () => {
  const named = (text: string) => namedReward(text, { maxTokens: 20, timeoutSeconds: 5 });
  const scored = async (text: string, answer: string, more: Partial<RewardItem> = {}) => {
    const { reward, weight } = named(text);
    const score = await scoreOf(reward, answer, more);
    await reward.dispose?.();
    return [score, weight];
  };

  test.each([
    ["maths", "It is 4.", { reference: "4" }, [1, 1]],
    ["maths*2.5", "It is 5.", { reference: "4" }, [0, 2.5]],
    ["constraints:all", "a, B", { constraints: [{ kind: "no-commas" }, { kind: "words", max: 3 }] }, [0, 1]],
    ["constraints*-1", "a, B", { constraints: [{ kind: "no-commas" }, { kind: "words", max: 3 }] }, [0.5, -1]],
    ["format:opened", "hm</think>Yes", { thinking: true }, [1, 1]],
    ["length:2-3words", "a b c", {}, [1, 1]],
    ["length:2-4", "a", { tokens: 1 }, [0.5, 1]],
    ["overlong:10", "a", { tokens: 15 }, [-0.5, 1]],
    ["repetition*0.5", "a b c", {}, [0, 0.5]],
    ["regex:^a*$*2", "aaa", {}, [1, 2]],
  ] as const)("%s", async (text, answer, more, expected) => {
    expect(await scored(text, answer, more as Partial<RewardItem>)).toEqual(expected);
  });

  test("a module and a judge are made of what stands behind the colon", () => {
    expect(named("module:rewards/brevity.js*0.1")).toMatchObject({ weight: 0.1, reward: { name: "brevity.js" } });
    expect(named("judge:http://127.0.0.1:1/v1#judge").reward.name).toBe("judge");
  });

  test.each([
    ["praise", "expected one of maths; constraints"],
    ["length:long", "reward length:long: expected length:20-60"],
    ["judge:http://127.0.0.1:1/v1", "expected judge:http://HOST/v1#MODEL"],
    ["maths:2", "reward maths:2: expected maths, found 2"],
    ["toString", "found toString"],
  ])("%s is refused", (text, message) => {
    expect(() => named(text)).toThrow(message);
  });
});
