/** @module A small model with one block of every kind and random weights, and its forward pass in plain float64. Tests only. */
import { createRng } from "../base/index.js";
import {
  blockWeights,
  layerPrefix,
  type Model,
  type ModelConfig,
  modelWeights,
  rotaryFrequencies,
} from "../models/index.js";
import { type F32Tensor, f32Tensor, sizeOf } from "../tensor/index.js";

export const mixedConfig: ModelConfig = {
  family: "deci",
  modelType: "test",
  vocabSize: 37,
  hiddenSize: 16,
  heads: 4,
  headDim: 6,
  normEps: 1e-5,
  rope: { theta: 1000, scaling: { type: "linear", factor: 2 } },
  tiedEmbeddings: false,
  attentionBias: true,
  attentionOutputBias: true,
  mlpBias: true,
  maxPositions: 300,
  eosTokenIds: [],
  blocks: [
    { attention: { kind: "gqa", kvHeads: 2 }, ffn: { kind: "swiglu", width: 20 } },
    { attention: { kind: "linear" }, ffn: { kind: "swiglu", width: 10 } },
    { attention: { kind: "none" }, ffn: { kind: "none" } },
    { attention: { kind: "gqa", kvHeads: 4 }, ffn: { kind: "linear" } },
    { attention: { kind: "none" }, ffn: { kind: "swiglu", width: 20 } },
    { attention: { kind: "gqa", kvHeads: 1 }, ffn: { kind: "none" } },
  ],
};

/** In memory; `reads` counts how often each weight was asked for. */
export function randomModel(config: ModelConfig, seed: number): Model & { reads: Map<string, number> } {
  const rng = createRng(seed);
  const tensors = new Map<string, F32Tensor>();
  for (const { name, shape } of modelWeights(config)) {
    const scale = name.endsWith("norm.weight") ? 1 : 0.3;
    tensors.set(
      name,
      f32Tensor(
        shape,
        Float32Array.from({ length: sizeOf(shape) }, () => scale * rng.normal()),
      ),
    );
  }
  const reads = new Map<string, number>();
  return {
    path: "",
    format: "hf",
    config,
    weights: {
      has: (name) => tensors.has(name),
      shapeOf: (name) => tensors.get(name)!.shape,
      async read(name) {
        reads.set(name, (reads.get(name) ?? 0) + 1);
        return tensors.get(name)!;
      },
      async readRows(name, from, to) {
        const { shape, data } = tensors.get(name)!;
        return f32Tensor(
          [to - from, ...shape.slice(1)],
          data.slice((from * data.length) / shape[0]!, (to * data.length) / shape[0]!),
        );
      },
    },
    sidecars: { legal: [], name: "random" },
    notices: [],
    async close() {},
    reads,
  };
}

type Row = number[];

/** Logits of every position of one sequence, in float64 and straight from the definitions. */
export async function referenceLogits(model: Model, ids: readonly number[]): Promise<Row[]> {
  const { config, weights } = model;
  const load = async (name: string) => (await weights.read(name)) as F32Tensor;
  const table = await load("model.embed_tokens.weight");
  let x = ids.map((id) => rowOf(table, id));
  for (let layer = 0; layer < config.blocks.length; layer++) {
    const block = config.blocks[layer]!;
    const own = new Map<string, F32Tensor>();
    for (const { name } of blockWeights(config, block)) own.set(name, await load(layerPrefix(layer) + name));
    x = referenceBlock(config, block, own, x);
  }
  const [norm, head] = [await load("model.norm.weight"), await load("lm_head.weight")];
  return x.map((row) => linear(rmsNorm(row, norm, config.normEps), head));
}

function referenceBlock(
  config: ModelConfig,
  block: ModelConfig["blocks"][number],
  w: Map<string, F32Tensor>,
  x: Row[],
): Row[] {
  const normed = (rows: Row[], name: string) => rows.map((row) => rmsNorm(row, w.get(name)!, config.normEps));
  const dense = (row: Row, name: string) => linear(row, w.get(`${name}.weight`)!, w.get(`${name}.bias`));
  let out = x;
  const { attention, ffn } = block;
  if (attention.kind !== "none") {
    const inputs = normed(out, "input_layernorm.weight");
    const updates =
      attention.kind === "linear"
        ? inputs.map((row) => dense(row, "self_attn.linear_attn"))
        : attend(config, attention.kvHeads, inputs, dense).map((row) => dense(row, "self_attn.o_proj"));
    out = out.map((row, t) => addRows(row, updates[t]!));
  }
  if (ffn.kind !== "none") {
    const updates = normed(out, "post_attention_layernorm.weight").map((row) => {
      if (ffn.kind === "linear") return dense(row, "mlp.linear_mlp");
      const [gate, up] = [dense(row, "mlp.gate_proj"), dense(row, "mlp.up_proj")];
      return dense(
        gate.map((z, i) => (z / (1 + Math.exp(-z))) * up[i]!),
        "mlp.down_proj",
      );
    });
    out = out.map((row, t) => addRows(row, updates[t]!));
  }
  return out;
}

function attend(config: ModelConfig, kvHeads: number, x: Row[], dense: (row: Row, name: string) => Row): Row[] {
  const { headDim: D, heads } = config;
  const frequencies = rotaryFrequencies(config);
  const head = (row: Row, h: number) => row.slice(h * D, (h + 1) * D);
  const turned = (row: Row, t: number) =>
    row.map((value, i) => {
      const angle = t * frequencies[i % (D / 2)]!;
      const other = i < D / 2 ? -row[i + D / 2]! : row[i - D / 2]!;
      return value * Math.cos(angle) + other * Math.sin(angle);
    });
  const [q, k, v] = ["q", "k", "v"].map((p) => x.map((row) => dense(row, `self_attn.${p}_proj`))) as [
    Row[],
    Row[],
    Row[],
  ];
  return x.map((_, t) =>
    Array.from({ length: heads }, (_, h) => {
      const kv = Math.floor(h / (heads / kvHeads));
      const query = turned(head(q[t]!, h), t);
      const scores = k.slice(0, t + 1).map((key, s) => dot(query, turned(head(key, kv), s)) / Math.sqrt(D));
      const exps = scores.map((score) => Math.exp(score - Math.max(...scores)));
      const total = exps.reduce((a, b) => a + b, 0);
      return Array.from({ length: D }, (_, i) =>
        exps.reduce((sum, e, s) => sum + (e / total) * head(v[s]!, kv)[i]!, 0),
      );
    }).flat(),
  );
}

const dot = (a: Row, b: Row) => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
const addRows = (a: Row, b: Row) => a.map((value, i) => value + b[i]!);

function rowOf({ shape, data }: F32Tensor, index: number): Row {
  return [...data.subarray(index * shape[1]!, (index + 1) * shape[1]!)];
}

function linear(x: Row, w: F32Tensor, bias?: F32Tensor): Row {
  return Array.from({ length: w.shape[0]! }, (_, o) => dot(rowOf(w, o), x) + (bias?.data[o] ?? 0));
}

function rmsNorm(x: Row, w: F32Tensor, eps: number): Row {
  const scale = 1 / Math.sqrt(dot(x, x) / x.length + eps);
  return x.map((value, i) => value * scale * w.data[i]!);
}
