import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import type { Event } from "../base/index.js";
import { sharedPath, temporaryDirectory } from "../base/testing.js";
import {
  parseConversation,
  parsePreferencePair,
  parsePromptTask,
  parseWorkedAnswer,
  readConversations,
  readLabelledAnswers,
  readPreferencePairs,
  readPromptTasks,
  readWorkedQuestions,
  reasoningPair,
  streamRows,
} from "./index.js";

const user = (content: string) => ({ role: "user", content });
const assistant = (content: string) => ({ role: "assistant", content });

function writeLines(rows: readonly unknown[], name = "a.jsonl"): string {
  const path = join(temporaryDirectory(), name);
  const text = rows.map((row) => (typeof row === "string" ? row : JSON.stringify(row))).join("\n");
  writeFileSync(path, name.endsWith(".gz") ? gzipSync(text) : text);
  return path;
}

describe("conversations", () => {
  const ab = [user("a"), assistant("b")];
  test.each([
    [{ messages: ab, id: 7 }, { messages: ab }],
    [
      { messages: [user("a"), { role: "assistant", content: [{ type: "text", text: "b" }], weight: 0 }] },
      { messages: [user("a"), { ...assistant("b"), learn: false }] },
    ],
    [
      {
        conversations: [
          { from: "human", value: "a" },
          { from: "gpt", value: "b" },
        ],
        system: "s",
      },
      { messages: [{ role: "system", content: "s" }, ...ab] },
    ],
    [{ conversations: ab }, { messages: ab }],
    [{ prompt: "a", response: "b" }, { messages: ab }],
    [
      { prompt: [user("a")], completion: "b", tools: [{ name: "t" }] },
      { messages: ab, tools: [{ name: "t" }] },
    ],
    [{ instruction: "a", input: "", output: "b" }, { messages: ab }],
    [{ instruction: "Add.", input: "1, 2", output: "3" }, { messages: [user("Add.\n\n1, 2"), assistant("3")] }],
    [{ question: "a", answer: "b" }, { messages: ab }],
  ])("form %#", (row, expected) => {
    expect(parseConversation(row, "f:1")).toEqual({ ...expected, where: "f:1" });
  });

  test("arguments of tool calls are parsed, and a turn of calls needs no text", () => {
    const call = { id: "c", type: "function", function: { name: "add", arguments: '{"a":1}' } };
    const row = {
      messages: [
        user("a"),
        { role: "assistant", content: null, tool_calls: [call] },
        { role: "tool", tool_call_id: "c", content: "1" },
      ],
    };
    expect(parseConversation(row, "f:1").messages.slice(1)).toEqual([
      { role: "assistant", content: "", tool_calls: [{ ...call, function: { name: "add", arguments: { a: 1 } } }] },
      { role: "tool", tool_call_id: "c", content: "1" },
    ]);
  });

  test.each([
    [
      { text: "a" },
      /f:1: expected a conversation, one of \{"messages".* or \{"conversations".* or .*"question".*, found the fields text/,
    ],
    [[1], /found object/],
    [{ messages: [{ content: "a" }] }, /messages\.0\.role/],
    [{ messages: [user("a"), assistant(" ")] }, /messages\.1\.content`, found an empty turn of assistant/],
    [{ messages: [] }, /messages/],
    [{ conversations: [{ from: "alien", value: "a" }] }, /one of human, user.*conversations\.0\.from`, found "alien"/],
    [{ prompt: "a", response: "" }, /text in `response`, found an empty text/],
    [{ instruction: "a", output: 3 }, /text in `output`, found number/],
  ])("refused %#", (row, message) => {
    expect(() => parseConversation(row, "f:1")).toThrow(message);
  });
});

describe("lines", () => {
  const rows = [{ question: "a", answer: "b" }, "{", { question: "c" }, "", { question: "d", answer: "e" }];

  test.each(["a.jsonl", "a.jsonl.gz"])("all bad lines of %s are told at once, by number", async (name) => {
    const path = writeLines(rows, name);
    const error = await readConversations(path).catch((cause) => cause);
    expect(error.message).toMatch(
      /: 2 bad lines\n {2}.*:2: expected a line of JSON.*\n {2}.*:3: expected a conversation/,
    );
    expect(error.exitCode).toBe(2);
  });

  test("dropped lines are counted; the others stay", async () => {
    const events: Event[] = [];
    const read = await readConversations(writeLines(rows), { bad: "drop", onEvent: (event) => events.push(event) });
    expect(read.map(({ where }) => where.split(":").at(-1))).toEqual(["1", "5"]);
    expect(events).toEqual([
      { event: "notice", level: "warning", message: expect.stringMatching(/2 of 4 lines dropped; the first: .*:2:/) },
    ]);
  });

  test("no more than twenty are listed, and reading stops there", async () => {
    const path = writeLines(Array.from({ length: 1000 }, () => "x"));
    const message = await readConversations(path).then(String, String);
    expect(message).toMatch(/20 bad lines/);
    expect(message.split("\n")).toHaveLength(22);
    expect(message).toMatch(/and more$/);
  });

  test("one bad line is that line's error; none at all is one too", async () => {
    await expect(readConversations(writeLines(["{}"]))).rejects.toThrow(/a\.jsonl:1: expected a conversation/);
    await expect(readConversations(writeLines([" "]))).rejects.toThrow(/a row a line, found no lines/);
    await expect(readConversations("/nowhere/a.jsonl")).rejects.toThrow(/nothing of that name/);
  });

  test("rows stream, characters that fall on a chunk's seam included; damage is told", async () => {
    const text = "é".repeat(100_001);
    const path = writeLines(
      Array.from({ length: 5 }, (_, i) => ({ question: `${i}${text}`, answer: "b" })),
      "a.jsonl.gz",
    );
    const lengths: number[] = [];
    for await (const { messages } of streamRows(path, parseConversation)) lengths.push(messages[0]!.content.length);
    expect(lengths).toEqual([100_002, 100_002, 100_002, 100_002, 100_002]);
    const cut = join(temporaryDirectory(), "cut.jsonl.gz");
    writeFileSync(cut, gzipSync("x".repeat(5000)).subarray(0, 20));
    await expect(readConversations(cut)).rejects.toThrow(/a whole gzip file/);
    const wrong = join(temporaryDirectory(), "wrong.jsonl");
    writeFileSync(wrong, Buffer.from([0x22, 0xff, 0x22]));
    await expect(readConversations(wrong)).rejects.toThrow(/UTF-8/);
  });
});

describe("preference pairs", () => {
  const pair = { prompt: [user("a")], chosen: "b", rejected: "c", where: "f:1" };
  test.each([
    [{ prompt: "a", chosen: "b", rejected: "c" }, {}],
    [{ prompt: [user("a")], chosen: [assistant("b")], rejected: [assistant("c")], margin: 2 }, { strength: 2 }],
    [
      {
        prompt: "a",
        chosen: [user("a"), assistant("b")],
        rejected: [user("a"), assistant("c")],
        score_chosen: 3,
        score_rejected: 1.5,
      },
      { scores: { chosen: 3, rejected: 1.5 } },
    ],
    [
      {
        chosen: [user("a"), assistant("b")],
        rejected: [user("a"), assistant("c")],
        chosen_reward: 0,
        rejected_reward: -1,
      },
      { scores: { chosen: 0, rejected: -1 } },
    ],
    [{ chosen: "\n\nHuman: a\n\nAssistant: b", rejected: "\n\nHuman: a\n\nAssistant: c" }, {}],
    [{ prompt: "a", response_1: "b", response_2: "c", preference_strength: -3 }, { strength: 3 }],
    [{ prompt: "a", response_1: "c", response_2: "b", preference_strength: 1 }, { strength: 1 }],
  ])("form %#", (row, more) => {
    expect(parsePreferencePair(row, "f:1")).toEqual({ ...pair, ...more });
  });

  test("several shared turns are the prompt", () => {
    const said = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:";
    const { prompt, chosen } = parsePreferencePair({ chosen: `${said} d\n\ne`, rejected: `${said} f` }, "f:1");
    expect(prompt).toEqual([user("a"), assistant("b"), user("c")]);
    expect(chosen).toBe("d\n\ne");
  });

  test.each([
    [{ prompt: "a", chosen: "b", rejected: "b " }, /two answers that differ, found `chosen` equal to `rejected`/],
    [{ chosen: "\n\nHuman: a\n\nAssistant: b", rejected: "\n\nHuman: a\n\nAssistant: b" }, /two answers that differ/],
    [{ prompt: "a", chosen: "", rejected: "b" }, /text in `chosen`, found an empty text/],
    [{ prompt: " ", chosen: "a", rejected: "b" }, /text in `prompt`, found white space only/],
    [{ prompt: "a", chosen: "b" }, /a preference pair, one of/],
    [{ chosen: "\n\nHuman: a\n\nAssistant:", rejected: "\n\nHuman: a\n\nAssistant: b" }, /an empty turn of assistant/],
    [
      { chosen: "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", rejected: "\n\nHuman: a\n\nAssistant: e" },
      /one assistant turn in `chosen` after the turns that both share, found assistant, user, assistant/,
    ],
    [{ chosen: "b", rejected: "c" }, /transcript/],
    [{ chosen: [assistant("b")], rejected: [assistant("c")] }, /a prompt before the answers/],
    [
      { prompt: "a", chosen: "b", rejected: "c", chosen_reward: 1 },
      /rewards of both answers, or of neither, found that of `chosen` alone/,
    ],
    [{ prompt: "a", chosen: "b", rejected: "c", margin: -1 }, /a strength of at least 0/],
    [{ prompt: "a", chosen: "b", rejected: "c", margin: "1" }, /a number in `margin`, found "1"/],
    [{ prompt: "a", response_1: "b", response_2: "c", preference_strength: 0 }, /found 0, a tie/],
    [{ prompt: "a", response_1: "b", response_2: "c", preference_strength: -100 }, /-3, -2, -1, 1, 2 or 3/],
  ])("refused %#", (row, message) => {
    expect(() => parsePreferencePair(row, "f:1")).toThrow(message);
  });

  const hh = sharedPath("data/hh_rlhf/harmless-base_test.jsonl.gz");
  test.skipIf(!hh)("HH-RLHF: 2,303 of 2,312 are pairs; nine are told", async () => {
    const events: Event[] = [];
    const pairs = await readPreferencePairs(hh!, { bad: "drop", onEvent: (event) => events.push(event) });
    expect(pairs).toHaveLength(2303);
    expect(events[0]).toMatchObject({ message: expect.stringMatching(/9 of 2312 lines dropped/) });
    expect(pairs.every(({ prompt }) => prompt.at(-1)!.role === "user")).toBe(true);
    await expect(readPreferencePairs(hh!)).rejects.toThrow(/9 bad lines/);
  });
});

describe("marked answers", () => {
  test("hold a mark for each attribute; absent ones are masked", async () => {
    const row = { prompt: "a", response: "b", helpfulness: 4, correctness: null, coherence: -100, verbosity: 0 };
    const [answer] = await readLabelledAnswers(writeLines([row]));
    expect(answer).toMatchObject({
      prompt: [user("a")],
      response: "b",
      labels: [4, undefined, undefined, undefined, 0],
    });
    const [own] = await readLabelledAnswers(writeLines([{ prompt: "a", response: "b", wit: 9 }]), {
      attributes: ["wit"],
      range: [1, 10],
    });
    expect(own!.labels).toEqual([9]);
  });

  test.each([
    [{ helpfulness: 5 }, /a mark from 0 to 4 .*`helpfulness`, found 5/],
    [{ helpfulness: "4" }, /a number in `helpfulness`, found "4"/],
    [{}, /at least one mark of helpfulness, correctness/],
  ])("refused %#", async (marks, message) => {
    await expect(readLabelledAnswers(writeLines([{ prompt: "a", response: "b", ...marks }]))).rejects.toThrow(message);
  });
});

describe("prompts with something to judge by", () => {
  test.each([
    [
      { prompt: "a", answer: 42, level: 3 },
      { prompt: [user("a")], answer: "42", fields: { answer: 42, level: 3 } },
    ],
    [
      { question: "a", answer: "2 + 2 = <<2+2=4>>4\n#### 4" },
      { prompt: [user("a")], answer: "4", fields: { answer: "2 + 2 = <<2+2=4>>4\n#### 4" } },
    ],
    [{ messages: [user("a")] }, { prompt: [user("a")], fields: {} }],
    [
      { prompt: "a", constraints: ["no_commas", { id: "words", least: 3, most: null }] },
      {
        prompt: [user("a")],
        constraints: [
          { id: "no_commas", parameters: {} },
          { id: "words", parameters: { least: 3 } },
        ],
      },
    ],
    [
      { prompt: "a", instruction_id_list: ["en:words"], kwargs: [{ num_words: 5, relation: null }] },
      { constraints: [{ id: "en:words", parameters: { num_words: 5 } }] },
    ],
  ])("form %#", (row, expected) => {
    expect(parsePromptTask(row, "f:1")).toMatchObject({ ...expected, where: "f:1" });
  });

  test.each([
    [{ messages: [user("a"), assistant("b")] }, /an assistant's turn at its end/],
    [{ prompt: "a", answer: "" }, /text in `answer`/],
    [{ prompt: "a", answer: [1] }, /text or a number in `answer`/],
    [{ prompt: "a", constraints: [{}] }, /the id of a constraint/],
    [{ prompt: "a", instruction_id_list: ["x"], kwargs: [] }, /as many `kwargs` as instructions, 1, found 0/],
    [{ text: "a" }, /a prompt, one of/],
  ])("refused %#", (row, message) => {
    expect(() => parsePromptTask(row, "f:1")).toThrow(message);
  });

  const ifeval = sharedPath("data/ifeval/input_data.jsonl");
  test.skipIf(!ifeval)("IFEval has 541, all with constraints", async () => {
    const tasks = await readPromptTasks(ifeval!);
    expect([tasks.length, tasks.every(({ constraints }) => constraints!.length > 0)]).toEqual([541, true]);
  });
});

describe("reasoning pairs", () => {
  test("working and result are told apart, notes for the calculator are left out", () => {
    expect(parseWorkedAnswer("48/2 = <<48/2=24>>24 clips.\n48+24 = $<<48+24=72>>72.\n#### 1,072")).toEqual({
      working: "48/2 = 24 clips.\n48+24 = $72.",
      answer: "1,072",
    });
    expect(parseWorkedAnswer("72")).toBeUndefined();
  });

  test("on holds the thought, off the answer alone, under the exact switch", () => {
    const { on, off } = reasoningPair({ question: "q", working: "w\n", answer: "4", where: "f:1" });
    expect(on).toEqual({
      where: "f:1",
      messages: [
        { role: "system", content: "detailed thinking on" },
        user("q"),
        assistant("<think>\nw\n</think>\n\n4"),
      ],
    });
    expect(off.messages).toEqual([{ role: "system", content: "detailed thinking off" }, user("q"), assistant("4")]);
    expect(() => reasoningPair({ question: "q", working: "a </think> b", answer: "4", where: "f:1" })).toThrow(
      /f:1: .*<\/think> in it/,
    );
    expect(() => reasoningPair({ question: "q", working: "", answer: "4" })).toThrow(/working: .*found nothing/);
  });

  test("rows without a result are refused", async () => {
    await expect(readWorkedQuestions(writeLines([{ question: "a", answer: "b" }]))).rejects.toThrow(
      /:1: .*found no ####/,
    );
    await expect(readWorkedQuestions(writeLines([{ question: "a", answer: "#### 4" }]))).rejects.toThrow(
      /found no working/,
    );
  });

  const gsm8k = sharedPath("data/gsm8k/test.jsonl");
  test.skipIf(!gsm8k)("GSM8K: 1,319 pairs", async () => {
    const questions = await readWorkedQuestions(gsm8k!);
    expect(questions).toHaveLength(1319);
    expect(questions[0]).toMatchObject({ answer: "18", working: expect.stringMatching(/16 - 3 - 4 = 9 duck eggs/) });
    expect(
      questions.filter(({ working, answer }) => /<<|####/.test(working + answer) || !/^-?[\d,.]+$/.test(answer)),
    ).toEqual([]);
    for (const question of questions) reasoningPair(question);
  });
});
