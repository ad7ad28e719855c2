import { expect, test } from "vitest";
import { findInCatalogue } from "./catalogue.js";
import { type TrainingMethod, type TrainingPrecision, trainingMemory } from "./training-memory.js";

const { shape, parameters } = findInCatalogue("llama-3.1-8b")!;
const rows = trainingMemory(shape, { batch: 2, length: 1024, rank: 16, share: 0.5 });
const of = (method: TrainingMethod, precision: TrainingPrecision) =>
  rows.find((row) => row.method === method && row.precision === precision)!;

test("of all weights: four bytes of each, as many of its gradient, eight of its moments; in 16 bits two, two and twelve", () => {
  expect(of("full", "f32")).toMatchObject({
    weightsBytes: 4 * parameters,
    gradientBytes: 4 * parameters,
    optimiserBytes: 8 * parameters,
    diskBytes: 28 * parameters,
  });
  expect(of("full", "mixed")).toMatchObject({
    weightsBytes: 2 * parameters,
    gradientBytes: 2 * parameters,
    optimiserBytes: 12 * parameters,
  });
});

test("LoRA of rank 16 on every matrix of Llama 3.1 8B trains 41,943,040 numbers", () => {
  expect(of("lora", "f32")).toMatchObject({
    gradientBytes: 4 * 41_943_040,
    weightsBytes: 4 * (parameters + 41_943_040),
  });
});

test("a distilled child is trained beside its whole parent", () => {
  const { weightsBytes, gradientBytes } = of("distil", "f32");
  expect([weightsBytes, gradientBytes]).toEqual([4 * 1.5 * parameters, 4 * 0.5 * parameters].map(Math.round));
});

test("insides of a block of Llama 3.1 8B", () => {
  // A token: streams and norms 4 x 4096; q, o twice 3 x 4096; k and v 2 x 1024; feed-forward 4 x 14336 = 88,064. 32 blocks,
  // two bytes each.
  expect(of("full", "mixed").activationBytes).toBe(2 * 2048 * 32 * 88_064);
  // In f32 also scores of 32 heads, for queries in two chunks of 512 that see 512 and 1024 keys: 768 on average; and copies of
  // each chunk: of q and o 2 x 4096, of k and v 2 x 1024 x (512 + 1024) / 1024.
  expect(of("full", "f32").activationBytes).toBe(4 * 2048 * 32 * (88_064 + 32 * 768 + 8_192 + 3_072));
});

test("pairs are two sequences, a reward model has no logits, rollouts a cache and a frozen reference", () => {
  expect(of("dpo", "f32").activationBytes).toBe(2 * of("full", "f32").activationBytes);
  expect(of("reward", "f32")).toMatchObject({
    logitsBytes: 0,
    weightsBytes: 4 * (parameters - 128_256 * 4096 + 4096),
  });
  // 2 x 8 heads x 128 numbers in 32 layers, 2 x 1024 tokens.
  expect(of("grpo", "mixed")).toMatchObject({ kvCacheBytes: 2 * 65_536 * 2048, weightsBytes: 4 * parameters });
});

test("a total is the sum of its parts, Node and ONNX Runtime beside them in main memory", () => {
  for (const row of rows) {
    const { weightsBytes, gradientBytes, optimiserBytes, activationBytes, logitsBytes, sweepBytes, kvCacheBytes } = row;
    const work = Math.max(activationBytes + Math.max(logitsBytes, sweepBytes), kvCacheBytes);
    const process = row.precision === "f32" ? 165 * 2 ** 20 : 0;
    expect(row.totalBytes).toBe(weightsBytes + gradientBytes + optimiserBytes + work + process);
  }
});
