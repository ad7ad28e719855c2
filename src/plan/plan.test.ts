import { describe, expect, test } from "vitest";
import { repositoryPath } from "../base/testing.js";
import { type BlockConfig, ggufExportBytes, type ModelConfig, modelParameters, openModel } from "../models/index.js";
import { createRuntime } from "../runtime/index.js";
import {
  fallbacks,
  forecastReshape,
  ggufBytes,
  ggufTensorBytes,
  hubBytes,
  measureMachine,
  memoryCost,
  modelMemory,
  parameterCost,
  type ReshapeWork,
  reachOf,
  totalCost,
  weightTypes,
} from "./index.js";

const parentBlock: BlockConfig = { attention: { kind: "gqa", kvHeads: 8 }, ffn: { kind: "swiglu", width: 28672 } };

/** Llama-3.1-Nemotron-70B-Instruct: 80 layers, hidden 8192, 64 heads of 128, FFN 28672, vocabulary 128256, untied. */
const nemotron70: ModelConfig = {
  family: "llama",
  modelType: "llama",
  vocabSize: 128256,
  hiddenSize: 8192,
  heads: 64,
  headDim: 128,
  normEps: 1e-5,
  rope: {
    theta: 500000,
    scaling: { type: "llama3", factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 8192 },
  },
  tiedEmbeddings: false,
  attentionBias: false,
  attentionOutputBias: false,
  mlpBias: false,
  maxPositions: 131072,
  bosTokenId: 128000,
  eosTokenIds: [128009],
  blocks: Array.from({ length: 80 }, () => parentBlock),
};

const tiny: ModelConfig = {
  ...nemotron70,
  vocabSize: 512,
  hiddenSize: 64,
  heads: 8,
  headDim: 8,
  rope: { theta: 10000 },
  tiedEmbeddings: true,
  blocks: Array.from({ length: 5 }, () => ({
    attention: { kind: "gqa", kvHeads: 4 },
    ffn: { kind: "swiglu", width: 172 },
  })),
};

describe("sizes", () => {
  test("Q8_0 of Nemotron-70B: the tensor bytes of the published file (74,975,054,752 less its header of 7,867,040)", () => {
    expect(ggufBytes(nemotron70, "q8_0")).toBe(74_967_187_712);
  });

  test("a bf16 checkpoint holds two bytes a parameter", () => {
    expect(hubBytes(nemotron70, "bf16")).toBe(2 * 70_553_706_496);
  });

  test("one tensor: 34 bytes for 32 numbers, norms in f32, ragged rows in f16, padded to 32", () => {
    expect(ggufTensorBytes("q8_0", [4, 64])).toBe(288); // 4 * 2 * 34 = 272, padded
    expect(ggufTensorBytes("q8_0", [64])).toBe(256);
    expect(ggufTensorBytes("q8_0", [64, 172])).toBe(64 * 172 * 2);
  });

  test("names what falls back: rows of 172 are no whole blocks of 32", () => {
    expect(fallbacks(tiny, "q8_0").map(({ name, type }) => [name, type])).toEqual(
      [0, 1, 2, 3, 4].map((layer) => [`model.layers.${layer}.mlp.down_proj.weight`, "f16"]),
    );
    expect(fallbacks(tiny, "f16")).toEqual([]);
  });
});

test("files that are written have exactly these bytes and one header, whatever their type", async () => {
  const model = await openModel(repositoryPath("models/stories260K"));
  const headers = weightTypes.map((type) => ggufExportBytes(model, type) - ggufBytes(model.config, type));
  await model.close();
  expect(new Set(headers).size).toBe(1);
  expect(headers[0]).toBeGreaterThan(0);
});

test("the machine is measured at the model's own shapes", async () => {
  const runtime = await createRuntime({ threads: 1 });
  const { gflops, solveGflops } = await measureMachine(runtime, tiny, { length: 32, batch: 2 });
  await runtime.dispose();
  expect(gflops).toBeGreaterThan(0.01);
  expect(solveGflops).toBeGreaterThan(0.01);
});

describe("costs", () => {
  test("parameters are linear in the blocks", () => {
    const cost = parameterCost(tiny);
    expect(totalCost(cost, tiny.blocks)).toBe(modelParameters(tiny));
    const [first, ...rest] = tiny.blocks;
    const narrowed: BlockConfig = { ...first!, ffn: { kind: "none" } };
    expect(cost.block(first!) - cost.block(narrowed)).toBe(64 + 3 * 64 * 172);
    expect(totalCost(cost, [narrowed, ...rest])).toBe(modelParameters({ ...tiny, blocks: [narrowed, ...rest] }));
  });

  test("the cache of Nemotron-70B at 128K is 40 GiB, 327,680 bytes a token", () => {
    const { kvCache, weights, total } = modelMemory(nemotron70, { context: 131072 });
    expect(kvCache).toBe(40 * 2 ** 30);
    expect(weights).toBe(ggufBytes(nemotron70, "f16"));
    expect(total).toBe(weights + kvCache);
  });

  test("the sum over blocks is the whole: weights by type, cache by kv heads, batch and context", () => {
    const options = { type: "q8_0", batch: 3, context: 100 } as const;
    const cost = memoryCost(tiny, options);
    const cache = 3 * 100 * 5 * 2 * 4 * 8 * 2; // batch, context, layers, keys and values, heads, headDim, bytes
    expect(totalCost(cost, tiny.blocks)).toBe(ggufBytes(tiny, "q8_0") + cache);
    expect(modelMemory(tiny, options).kvCache).toBe(cache);
  });

  test("reach: from the parent down to the cheapest block of every layer", () => {
    const cost = parameterCost(tiny);
    const empty: BlockConfig = { attention: { kind: "none" }, ffn: { kind: "none" } };
    const choices = tiny.blocks.map((block) => [block, empty]);
    expect(reachOf(cost, tiny.blocks, choices)).toEqual({ parent: modelParameters(tiny), least: 512 * 64 + 64 });
  });
});

describe("forecast", () => {
  const half: BlockConfig = { attention: { kind: "gqa", kvHeads: 4 }, ffn: { kind: "swiglu", width: 86 } };
  const work: ReshapeWork = {
    length: 256,
    batch: 8,
    calibrateTokens: 8192,
    choices: tiny.blocks.map((block) => [block, half]),
    scored: 5,
    refit: true,
    blockTokens: 0,
    scoreTokens: 8192,
    distilTokens: 65536,
    distilBatch: 4,
    children: 2,
    share: 0.6,
    evaluateTokens: 8192,
  };

  test("distillation is three forwards of the child and one of the parent", () => {
    const machine = { gflops: 10, solveGflops: 1, trainShare: 1 };
    const { stages } = forecastReshape(tiny, work, machine);
    // Per token and block: two operations a weight, and 4 x length x hidden for scores and values.
    const matrices = 2 * (2 * 64 + 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 172);
    const blocks = 5 * (matrices + 4 * 256 * 64);
    const head = 2 * 512 * 64;
    const child = (65536 * (3 * (0.6 * blocks + head) + (blocks + head))) / 10e9;
    expect(stages.find(({ name }) => name === "distil")!.seconds).toBeCloseTo(2 * child, 9);
  });

  test("a box of time is what it says for each that is distilled; candidates are forwards over the scoring text", () => {
    const boxed = { ...work, distilTokens: 0, distilSeconds: 480, distilled: 3, candidates: 16 };
    const { stages, memory } = forecastReshape(tiny, boxed, { gflops: 10, solveGflops: 1 });
    expect(stages.find(({ name }) => name === "distil")!.seconds).toBe(3 * 480);
    expect(memory.stages.find(({ name }) => name === "distil")!.bytes).toBeGreaterThan(
      forecastReshape(tiny, { ...work, distilTokens: 0 }, { gflops: 10, solveGflops: 1 }).memory.stages.find(
        ({ name }) => name === "distil",
      )!.bytes,
    );
    const matrices = 2 * (2 * 64 + 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 172);
    const token = 0.6 * 5 * (matrices + 4 * 256 * 64) + 2 * 512 * 64;
    expect(stages.find(({ name }) => name === "candidates")!.seconds).toBeCloseTo((16 * 8192 * token) / 10e9, 9);
  });

  test("twice the rate halves what is arithmetic; solving and measuring stay", () => {
    const slow = forecastReshape(tiny, work, { gflops: 10, solveGflops: 1 });
    const fast = forecastReshape(tiny, work, { gflops: 20, solveGflops: 1 });
    const of = (forecast: typeof slow, name: string) => forecast.stages.find((stage) => stage.name === name)!.seconds;
    expect(of(fast, "score")).toBeCloseTo(of(slow, "score") / 2, 9);
    expect(of(fast, "speed")).toBe(of(slow, "speed"));
    expect(slow.seconds).toBeCloseTo(
      slow.stages.reduce((sum, { seconds }) => sum + seconds, 0),
      9,
    );
  });

  test("memory is bounded by a block and a slice of logits where nothing is trained, not by the model", () => {
    const untrained = { ...work, distilTokens: 0 };
    const choices = nemotron70.blocks.map((block) => [block]);
    const { memoryBytes } = forecastReshape(nemotron70, { ...untrained, choices }, { gflops: 100, solveGflops: 1 });
    const halfAsDeep = { ...nemotron70, blocks: nemotron70.blocks.slice(40) };
    expect(forecastReshape(halfAsDeep, { ...untrained, choices }, { gflops: 100, solveGflops: 1 }).memoryBytes).toBe(
      memoryBytes,
    );
    expect(memoryBytes).toBeLessThan(0.1 * hubBytes(nemotron70, "f32"));
  });

  test("memory is that of the stage with the highest peak, and llama.cpp maps the file that it runs", () => {
    const of = (changes: Partial<ReshapeWork>) => {
      const { memory, memoryBytes } = forecastReshape(tiny, { ...work, ...changes }, { gflops: 10, solveGflops: 1 });
      expect(memoryBytes).toBe(Math.max(...memory.stages.map(({ bytes }) => bytes)));
      return Object.fromEntries(memory.stages.map(({ name, bytes }) => [name, bytes]));
    };
    const mapped = of({ exportType: "f32" }).export! - of({ exportType: "f16" }).export!;
    const difference = work.share * (ggufBytes(tiny, "f32") - ggufBytes(tiny, "f16"));
    expect(Math.abs(mapped - difference)).toBeLessThan(2);
    expect(of({ children: 7 }).evaluate! - of({ children: 6 }).evaluate!).toBe(30 * 2 ** 20);
  });

  test("disk holds every child twice and the exports", () => {
    const { diskBytes } = forecastReshape(tiny, work, { gflops: 10, solveGflops: 1 });
    const childBytes = 0.6 * hubBytes(tiny, "f32");
    expect(diskBytes).toBeGreaterThan(6 * childBytes);
  });
});
