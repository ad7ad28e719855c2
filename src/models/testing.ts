/** @module Small models made from a seed, and their logits in float64. For tests only. */
import { readFileSync } from "node:fs";
import { createRng } from "../base/index.js";
import { repositoryPath } from "../base/testing.js";
import { createGraph, interpret } from "../graph/index.js";
import { f32Tensor, type HostTensor, sizeOf } from "../tensor/index.js";
import type { BlockConfig, Model, ModelConfig, Sidecars } from "./config.js";
import { modelWeights } from "./config.js";
import { buildModel, modelWeightInputs } from "./llama.js";
import { positionsFrom, rotaryTables } from "./rotary.js";
import { overlayWeights } from "./weights.js";

export const gqa = (kvHeads: number): BlockConfig["attention"] => ({ kind: "gqa", kvHeads });
export const swiglu = (width: number): BlockConfig["ffn"] => ({ kind: "swiglu", width });
export const linear = { kind: "linear" } as const;
export const none = { kind: "none" } as const;

/** Hidden size 32, four heads of 8, vocabulary of the bundled parent. */
export function testConfig(changes: Partial<ModelConfig> = {}): ModelConfig {
  return {
    family: "deci",
    modelType: "llama",
    vocabSize: 512,
    hiddenSize: 32,
    heads: 4,
    headDim: 8,
    normEps: 1e-5,
    rope: { theta: 10000 },
    tiedEmbeddings: true,
    attentionBias: false,
    attentionOutputBias: false,
    mlpBias: false,
    maxPositions: 128,
    bosTokenId: 1,
    eosTokenIds: [2],
    blocks: [{ attention: gqa(4), ffn: swiglu(64) }],
    ...changes,
  };
}

/** A model in memory with normal weights, norms near one, and the bundled parent's tokenizer. */
export function createTestModel(config: ModelConfig, seed = 1, sidecars: Partial<Sidecars> = {}): Model {
  const rng = createRng(seed);
  const tensors = new Map<string, HostTensor>();
  for (const { name, shape } of modelWeights(config)) {
    const scale = name === "model.embed_tokens.weight" ? 1 : 0.25;
    const offset = name.endsWith("norm.weight") ? 1 : 0;
    const values = Float32Array.from({ length: sizeOf(shape) }, () => offset + scale * rng.normal());
    tensors.set(name, f32Tensor(shape, values));
  }
  const read = (file: string) => JSON.parse(readFileSync(repositoryPath(`models/stories260K/${file}`), "utf8"));
  const nothing = {
    has: () => false,
    shapeOf: () => [],
    read: () => Promise.reject(new Error("nothing there")),
  };
  return {
    path: "",
    format: "hf",
    config,
    weights: overlayWeights(nothing, config, tensors),
    sidecars: {
      name: "test-model",
      licence: "mit",
      legal: [{ name: "LICENSE", bytes: new TextEncoder().encode("May be used by tests.\n") }],
      tokenizer: { kind: "hf", tokenizer: read("tokenizer.json"), config: read("tokenizer_config.json") },
      ...sidecars,
    },
    notices: [],
    close: async () => {},
  };
}

/** Logits of every position, [ids, vocabulary], computed in float64. */
export async function referenceLogits({ config, weights }: Model, ids: readonly number[]): Promise<Float64Array> {
  const g = createGraph("reference");
  const inputs = modelWeightInputs(g, config);
  const tables = rotaryTables(config, positionsFrom(0, ids.length));
  const half = config.headDim / 2;
  const [cos, sin] = [tables.cos, tables.sin].map((table) => g.reshape(g.constant(table), [1, ids.length, half]));
  const tokens = g.input("ids", [1, ids.length], "i64");
  const model = { batch: 1, length: ids.length, ids: tokens, weights: inputs, cos: cos!, sin: sin! };
  const { finalHidden, headWeight } = buildModel(g, config, model);
  g.output("logits", g.linear(finalHidden, headWeight));
  const feeds: Record<string, HostTensor | readonly number[]> = { ids };
  for (const { name } of modelWeights(config)) feeds[name] = await weights.read(name);
  return Float64Array.from(interpret(g, feeds).logits!.data);
}
