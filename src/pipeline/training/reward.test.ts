import { writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../../base/testing.js";
import { type BranchedSample, readPreferencePairs } from "../../data/index.js";
import { setAsideEvenly } from "./common.js";
import { pairsOf } from "./rank.js";
import { checkTrainingRecipe } from "./recipe.js";
import { correlation, markMeasures } from "./reward-marks.js";
import { pairLosses, pairMeasures, type RewardPair, rightAnswers } from "./reward-pairs.js";
import { runTraining } from "./run.js";

const directory = temporaryDirectory();

const branch = (length: number) => ({ ids: new Int32Array(length), learn: new Uint8Array(length).fill(1) });
const pairOf = (chosen: number, rejected: number): RewardPair => {
  const sample: BranchedSample = { prompt: new Int32Array(1), branches: [branch(chosen), branch(rejected)] };
  return { sample, strength: undefined };
};

describe("samples set aside evenly", () => {
  const samples = Array.from({ length: 40 }, (_, i) => (7 * i) % 40);
  const { train, held } = setAsideEvenly(samples, 10, 3, (x) => x);

  test("are one of each stretch of the quantity", () => {
    expect(held.toSorted((a, b) => a - b).map((x) => Math.floor(x / 4))).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect([...train, ...held].toSorted((a, b) => a - b)).toEqual(samples.toSorted((a, b) => a - b));
  });

  test("are the same for the same seed, and all may stay to learn from", () => {
    expect(setAsideEvenly(samples, 10, 3, (x) => x).held).toEqual(held);
    expect(setAsideEvenly(samples, 10, 4, (x) => x).held).not.toEqual(held);
    expect(setAsideEvenly(samples, 0, 3, (x) => x)).toEqual({ train: samples, held: [] });
    expect(() => setAsideEvenly(samples, 40, 3, (x) => x)).toThrow(/fewer than the 40 samples/);
  });
});

describe("what is measured on pairs", () => {
  const scores = [
    [
      [2, 0],
      [1, 9],
    ],
    [
      [1, 0],
      [1, 0],
    ],
    [
      [0, 0],
      [3, 0],
    ],
    [
      [4, 0],
      [1, 0],
    ],
  ];

  test("rewards are weighted sums of attributes; equal ones are half right", () => {
    expect(rightAnswers(scores, [1, 0])).toEqual([1, 0.5, 0, 1]);
    expect(rightAnswers(scores, [1, 1])).toEqual([0, 0.5, 0, 1]);
    const losses = pairLosses(scores, [1, 0]);
    [1, 0, -3, 3].forEach((gap, i) => {
      expect(losses[i]).toBeCloseTo(Math.log(1 + Math.exp(-gap)), 12);
    });
  });

  test("accuracy stands beside the better rule about length, which other pairs may choose", () => {
    const pairs = [pairOf(3, 5), pairOf(2, 4), pairOf(2, 2), pairOf(6, 1)];
    const { measures, notes } = pairMeasures(pairs, [1, 0.5, 0, 1]);
    expect(measures.map(({ name }) => name)).toEqual([
      "preference accuracy",
      "preference accuracy, less that of the shorter answer",
    ]);
    expect(measures[0]!.after).toMatchObject({ mean: 0.625, n: 4 });
    expect(measures[1]!.after.mean).toBeCloseTo(0, 12); // 0.625 of both
    expect(notes[0]).toMatch(/longer answer is right for 37.5 % of 4 pairs, always the shorter for 62.5 %/);
    expect(notes[0]).toMatch(/the model, 62.5 %, is not told apart from the shorter one/);
    const chosen = pairMeasures(pairs, [1, 1, 1, 1], { ruleFrom: [pairOf(9, 1)], before: [0, 0, 1, 1] });
    expect(chosen.measures[0]!.difference!.mean).toBe(0.5);
    expect(chosen.measures[1]!.name).toBe("preference accuracy, less that of the longer answer");
  });
});

describe("what is measured on marks", () => {
  test("correlation is Pearson's, with Fisher's interval", () => {
    const points = [
      [0, 1],
      [1, 3],
      [2, 2],
      [3, 5],
      [4, 4],
    ] as const;
    const { mean, low, high, n } = correlation(points)!;
    expect([mean, n]).toEqual([0.8, 5]);
    expect(low).toBeCloseTo(Math.tanh(Math.atanh(0.8) - 1.959964 / Math.sqrt(2)), 6);
    expect(high).toBeCloseTo(Math.tanh(Math.atanh(0.8) + 1.959964 / Math.sqrt(2)), 6);
    expect([correlation(points.slice(0, 3)), correlation(points.map(([x]) => [x, 1]))]).toEqual([undefined, undefined]);
  });

  test("errors are means over the marks that there are, beside those of the mean mark", () => {
    const sample = pairOf(2, 2).sample;
    const held = [
      { sample, marks: [4, undefined] },
      { sample, marks: [0, 2] },
    ];
    const train = [
      { sample, marks: [1, 2] },
      { sample, marks: [3, undefined] },
    ];
    const [errors, gain] = markMeasures(["a", "b"], train, held, [
      [3, 100],
      [2, 2],
    ]);
    expect(errors!.after.mean).toBe((1 + (4 + 0) / 2) / 2);
    expect(gain!.after.mean).toBe((1 + 2) / 2 - (4 + (4 + 0) / 2) / 2);
  });
});

describe("ranked answers", () => {
  const prompt = [{ role: "user", content: "?" }];
  const answer = (text: string, score: number | null) => ({ text, score, parts: {} });
  const ranked = [
    { prompt, answers: [answer("a", 3), answer("b", 2), answer("c", 2), answer("d", null)] },
    { prompt, answers: [answer("a", 1), answer("b", 1)] },
    { prompt, answers: [answer("a", 1), answer("b", null)] },
  ];

  test("best against worst, with both scores; ties are counted, what nobody judged is no answer", () => {
    const { pairs, ties } = pairsOf(ranked, { pairing: "best-worst", minGap: 0 });
    expect(pairs).toEqual([{ prompt, chosen: "a", rejected: "c", chosen_reward: 3, rejected_reward: 2 }]);
    expect(ties).toBe(1);
  });

  test("every two that differ by more than the least gap", () => {
    const all = pairsOf(ranked, { pairing: "all", minGap: 0 });
    expect(all.pairs.map(({ chosen, rejected }) => chosen + rejected)).toEqual(["ab", "ac"]);
    expect(all.ties).toBe(2);
    expect(pairsOf(ranked, { pairing: "all", minGap: 1 })).toEqual({ pairs: [], ties: 4 });
  });
});

test("answers are sampled where a row has none, judged, and paired as training reads them", async () => {
  const no = { id: "punctuation:no_comma" };
  const prompts = fileOf("prompts.jsonl", [
    { prompt: "Who is Tom?", constraints: [no], answers: ["Tom, a dog.", "A dog."] },
    { prompt: "Who is Lily?", constraints: [no] },
  ]);
  const stage = { method: "rank", data: prompts, reward: ["constraints"], samples: 6, maxTokens: 160 };
  const recipe = { ...stageOf({}), out: join(directory, "ranked"), stages: [stage] };
  const { result } = await runTraining(checkTrainingRecipe(recipe, "recipe"), { store: join(directory, "store") });
  const pairs = await readPreferencePairs(join(directory, "ranked/data.jsonl"));
  expect(pairs[0]).toMatchObject({ chosen: "A dog.", rejected: "Tom, a dog.", scores: { chosen: 1, rejected: 0 } });
  for (const { scores } of pairs) expect(scores!.chosen).toBeGreaterThan(scores!.rejected);
  const lines = (await readFile(join(directory, "ranked/answers.jsonl"), "utf8")).trim().split("\n");
  const answers = lines.map((line) => (JSON.parse(line) as { answers: { text: string; score: number }[] }).answers);
  for (const { text, score } of answers.flat()) expect(score).toBe(text.includes(",") ? 0 : 1);
  const [, judged, unended] = /answers: (\d+) judged; (\d+) left out that did not end/.exec(
    result.stages[0]!.notes[1]!,
  )!;
  expect(Number(judged) + Number(unended)).toBe(8);
  expect(answers[0]!.length + answers[1]!.length).toBe(Number(judged));
});

const stageOf = (stage: Record<string, unknown>) => ({
  kind: "train",
  model: repositoryPath("models/stories260K"),
  out: join(directory, "out"),
  chatTemplate: "plain",
  stages: [{ method: "reward", heldOut: 0, steps: 1, length: 64, ...stage }],
});

function fileOf(name: string, rows: readonly unknown[]): string {
  const path = join(directory, name);
  writeFileSync(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  return path;
}

describe("bad input", () => {
  const pair = { prompt: "Who?", chosen: "Tom.", rejected: "Sue." };
  const marked = { prompt: "Who?", response: "Tom." };
  const regression = { objective: "regression", attributes: ["joy"] };
  test.each([
    ["no strengths", { objective: "scaled" }, [pair], /bad.jsonl:1: expected how much better the chosen answer is/],
    ["a one-sided pair", {}, [{ prompt: "Who?", chosen: "Tom." }], /bad.jsonl:1: expected a preference pair/],
    ["an empty answer", {}, [{ ...pair, rejected: " " }], /bad.jsonl:1: expected text in `rejected`/],
    ["equal answers", {}, [{ ...pair, rejected: "Tom." }], /two answers that differ/],
    ["no lines", {}, [], /expected a row a line, found no lines/],
    ["a mark out of range", regression, [{ ...marked, joy: 5 }], /a mark from 0 to 4 .*in `joy`, found 5/],
    ["no mark at all", regression, [{ ...marked, joy: -100 }], /at least one mark of joy/],
  ])("%s", async (_, stage, rows, message) => {
    const recipe = checkTrainingRecipe(stageOf({ ...stage, data: fileOf("bad.jsonl", rows) }), "recipe");
    await expect(runTraining(recipe, { store: join(directory, "store") })).rejects.toThrow(message);
  });

  test.each([
    [{ attributes: ["joy"] }, /only regression reads marks/],
    [{ objective: "regression", centre: 0.1 }, /it is for pairs/],
    [{ objective: "regression", lowest: 4 }, /the greatest mark must be above the least/],
    [{ objective: "regression", attributes: ["a", "b"], attributeWeights: [1] }, /one for each of the attributes/],
    [{ method: "merge", models: ["a"] }, /name two or more/],
    [{ method: "merge", models: ["a", "b", "c"], extrapolate: 1.5 }, /it goes from one model to another/],
    [{ method: "rank" }, /name at least one, or a rewardModel/],
  ])("fields that contradict: %j", (stage, message) => {
    const {
      heldOut: _h,
      steps: _s,
      length: _l,
      ...own
    } = stageOf({ data: "x.jsonl", ...stage }).stages[0]! as Record<string, unknown>;
    const { data: _d, ...plain } = own;
    const chosen = "method" in stage && stage.method === "merge" ? plain : own;
    expect(() => checkTrainingRecipe({ ...stageOf({}), stages: [chosen] }, "recipe")).toThrow(message);
  });
});
