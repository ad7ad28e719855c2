import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../../base/testing.js";
import type { TokenSample } from "../../data/index.js";
import { inspectSamples } from "./inspect.js";
import { checkTrainingRecipe } from "./recipe.js";
import { runTraining } from "./run.js";
import { mixSources, readSources, splitSources } from "./sft-samples.js";

const directory = temporaryDirectory();
const model = repositoryPath("models/stories260K");

/** Samples that say which source they are of. */
const source = (name: string, count: number) => ({
  name,
  items: Array.from(
    { length: count },
    (_, i): TokenSample => ({ ids: Int32Array.of(name.charCodeAt(0), i), learn: Uint8Array.of(0, 1) }),
  ),
});
const countOf = (samples: readonly TokenSample[], name: string) =>
  samples.filter(({ ids }) => ids[0] === name.charCodeAt(0)).length;

describe("a mixture", () => {
  test("has every sample once an epoch, where nothing else is said", () => {
    const { samplesOf, notes } = mixSources([source("a", 3), source("b", 2)], { seed: 0 });
    expect(samplesOf(1).map(({ ids }) => [...ids])).toEqual([
      [97, 0],
      [97, 1],
      [97, 2],
      [98, 0],
      [98, 1],
    ]);
    expect(notes).toEqual(["an epoch: a 3, b 2"]);
  });

  test("draws by weights, and goes on through a source in the next epoch", () => {
    const { samplesOf, notes } = mixSources([source("a", 64), source("b", 64)], { weights: [3, 1], seed: 0 });
    const epochs = [samplesOf(0), samplesOf(1)];
    expect(epochs.map((samples) => [countOf(samples, "a"), countOf(samples, "b")])).toEqual([
      [96, 32],
      [96, 32],
    ]);
    // Two epochs take 64 of b: each of its samples once.
    const drawn = epochs.flat().filter(({ ids }) => ids[0] === 98);
    expect(new Set(drawn.map(({ ids }) => ids[1])).size).toBe(64);
    expect(notes[0]).toBe("an epoch has 128 samples: a 96 (75.0 %, 1.50 passes), b 32 (25.0 %, 0.50 passes)");
  });

  test("carries a share of an earlier stage over, on top of its own samples", () => {
    const carried = { sources: [source("c", 40)], share: 0.25 };
    const { samplesOf, notes } = mixSources([source("a", 96)], { carried, seed: 0 });
    // 96 / (1 - 0.25) = 128, a quarter of them 32.
    expect([countOf(samplesOf(0), "a"), countOf(samplesOf(0), "c")]).toEqual([96, 32]);
    expect(notes[0]).toContain("c (carried over) 32 (25.0 %, 0.80 passes)");
  });
});

test("a question with its thoughts and without is set aside as one", async () => {
  const sources = await readSources([repositoryPath("data/toy/worked.jsonl")], true);
  const { train, held } = splitSources(sources, 4, 0);
  const text = (lessons: typeof held) => lessons.map(({ conversations }) => conversations[0]!.messages[1]!.content);
  expect([held.length, train[0]!.lessons.length]).toEqual([4, 20]);
  expect(held.every(({ conversations }) => conversations.length === 2)).toBe(true);
  expect(text(train[0]!.lessons).filter((question) => text(held).includes(question))).toEqual([]);
});

const call = { type: "function", id: "a", function: { name: "add", arguments: '{"a":1,"b":2}' } };
const forms = [
  {
    messages: [
      { role: "user", content: "Who is Tom?" },
      { role: "assistant", content: "Tom is a dog." },
    ],
  },
  {
    conversations: [
      { from: "human", value: "Who is Lily?" },
      { from: "gpt", value: "A girl." },
    ],
  },
  { prompt: "Who is Ben?", response: "A boy." },
  { instruction: "Who is it?", input: "Sue", output: "A cat." },
  {
    messages: [
      { role: "user", content: "Add 1 and 2." },
      { role: "assistant", content: "", tool_calls: [call] },
      { role: "tool", tool_call_id: "a", content: "3" },
      { role: "assistant", content: "It is 3." },
    ],
  },
];
const file = join(directory, "forms.jsonl");
writeFileSync(file, forms.map((row) => `${JSON.stringify(row)}\n`).join(""));

test("what is learnt of each form is the answer with its end, and a tool's call", async () => {
  const [inspected] = await inspectSamples(model, { data: [file], count: 5, chatTemplate: "plain", length: 60 });
  const { shown, samples, over, learnt } = inspected!;
  const learntTexts = shown.map(({ text }) => [...text.matchAll(/⟦([^⟧]*)⟧/g)].map(([, marked]) => marked));
  expect(learntTexts).toEqual([
    ["Tom is a dog.</s>"],
    ["A girl.</s>"],
    ["A boy.</s>"],
    ["A cat.</s>"],
    ['{"name": "add", "arguments": {"a": 1, "b": 2}}</s>', "It is 3.</s>"],
  ]);
  expect([samples, over]).toEqual([5, 1]);
  expect(learnt).toBe(shown.reduce((sum, sample) => sum + sample.learnt, 0));
});

test("all forms train together, weighed, with some of an earlier stage", async () => {
  const earlier = join(directory, "earlier.jsonl");
  writeFileSync(earlier, `${JSON.stringify({ prompt: "Who is Max?", response: "A fish." })}\n`);
  const stage = { method: "sft", length: 192, batch: 2, steps: 3, heldOut: 0, learningRate: 0.001 };
  const recipe = checkTrainingRecipe(
    {
      kind: "train",
      model,
      out: join(directory, "out"),
      chatTemplate: "plain",
      stages: [
        {
          ...stage,
          data: [file, repositoryPath("data/toy/helpful.jsonl")],
          weights: [1, 1],
          carryOver: earlier,
          carryShare: 0.1,
        },
      ],
    },
    "recipe",
  );
  const { result } = await runTraining(recipe, { store: join(directory, "store"), threads: 1 });
  const { notes, curves } = result.stages[0]!;
  // 21 samples / 0.9 = 23: 45 % of each file.
  expect(notes[1]).toMatch(
    /^an epoch has 23 samples: forms\.jsonl \d+ \(45\.0 %.*earlier\.jsonl \(carried over\) \d+ \(10\.0 %/,
  );
  expect(curves[0]!.points.at(-1)![1]).toBeLessThan(curves[0]!.points[0]![1]);
});

test("weights that do not fit the files are refused before anything is read", () => {
  const recipe = { kind: "train", model, out: "out", stages: [{ method: "sft", data: "a.jsonl", weights: [1, 2] }] };
  expect(() => checkTrainingRecipe(recipe, "recipe")).toThrow("2 weights for 1 files");
});
