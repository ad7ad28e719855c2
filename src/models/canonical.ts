/**
 * @module Rewrites a model's blocks into what a file format can hold, without changing the function.
 *
 * A block is two residual sub-layers, and a model is their sequence; formats differ in which pairs they accept. llama.cpp's
 * `deci` drops an attention without feed-forward in silence, aborts where the first layer has no attention or the last no
 * feed-forward, and has no linear feed-forward. So for GGUF the sequence is packed anew: an attention-like sub-layer, then
 * a SwiGLU. What is missing from a pair is filled with zeros, which add nothing to the residual stream. Hugging Face
 * files hold every pair; there only empty blocks go.
 */
import { f32Tensor, type Shape, sizeOf } from "../tensor/index.js";
import {
  attentionWeights,
  type BlockConfig,
  ffnWeights,
  isUniform,
  layerPrefix,
  type Model,
  type ModelConfig,
  type WeightInfo,
} from "./config.js";
import { needsBothAttentionBiases } from "./families/index.js";
import { readWeightRows } from "./weights.js";

export interface CanonicalModel {
  model: Model;
  /** What was changed and why that is exact, one sentence each; empty when nothing was. */
  notes: string[];
}

/** One sub-layer: where its weights are in the given model, or zeros. */
interface SubLayer<Config> {
  config: Config;
  /** Layer it comes from; undefined for zeros. */
  layer?: number;
  /** Weight names in the given model by name in the new one, without layer prefixes, where they differ. */
  renamed?: Readonly<Record<string, string>>;
}

interface PackedBlock {
  attention: SubLayer<BlockConfig["attention"]>;
  ffn: SubLayer<BlockConfig["ffn"]>;
}

const none = { config: { kind: "none" } } as const;
const zeroAttention: PackedBlock["attention"] = { config: { kind: "linear" } };
/** The narrowest width that every block quantisation of 32 can hold. */
const zeroFfn: PackedBlock["ffn"] = { config: { kind: "swiglu", width: 32 } };

/** The same function in blocks that `target` can hold. Weights are read through the given model. */
export function canonicalise(model: Model, target: "gguf" | "hf"): CanonicalModel {
  const notes: string[] = [];
  const packed = target === "gguf" ? packForGguf(model.config, notes) : dropEmpty(model.config, notes);
  const config = withBiases({ ...model.config, blocks: packed.map(toBlock) }, target, notes);
  const family = isUniform(config) ? "llama" : "deci";
  return { model: { ...model, config: { ...config, family }, weights: packedWeights(model, config, packed) }, notes };
}

function toBlock({ attention, ffn }: PackedBlock): BlockConfig {
  return { attention: attention.config, ffn: ffn.config };
}

function dropEmpty(config: ModelConfig, notes: string[]): PackedBlock[] {
  const packed = config.blocks.map(({ attention, ffn }, layer) => ({
    attention: { config: attention, layer },
    ffn: { config: ffn, layer },
  }));
  const kept = packed.filter(({ attention, ffn }) => attention.config.kind !== "none" || ffn.config.kind !== "none");
  noteDropped(packed.length - kept.length, notes);
  if (kept.length > 0) return kept;
  notes.push("no block does anything: one block of zeros stands for them");
  return [{ attention: zeroAttention, ffn: zeroFfn }];
}

function noteDropped(count: number, notes: string[]): void {
  if (count > 0) notes.push(`${count} ${count === 1 ? "block" : "blocks"} without sub-layers left out`);
}

/** Packs the sequence of sub-layers greedily: an attention-like one opens a block, a feed-forward closes it. */
function packForGguf(config: ModelConfig, notes: string[]): PackedBlock[] {
  const packed: PackedBlock[] = [];
  const counts = { zeroFfn: 0, linearFfn: 0 };
  let open: PackedBlock["attention"] | undefined;
  const close = (ffn: PackedBlock["ffn"]) => {
    packed.push({ attention: open ?? (packed.length === 0 ? zeroAttention : none), ffn });
    open = undefined;
  };
  const openWith = (attention: PackedBlock["attention"]) => {
    if (open) {
      counts.zeroFfn++;
      close(zeroFfn);
    }
    open = attention;
  };
  for (const [layer, { attention, ffn }] of config.blocks.entries()) {
    if (attention.kind !== "none") openWith({ config: attention, layer });
    if (ffn.kind === "swiglu") close({ config: ffn, layer });
    if (ffn.kind === "linear") {
      counts.linearFfn++;
      openWith({ config: { kind: "linear" }, layer, renamed: linearFfnNames });
    }
  }
  if (open || packed.length === 0) {
    counts.zeroFfn++;
    if (!open) open = zeroAttention;
    close(zeroFfn);
  }
  noteDropped(
    config.blocks.filter(({ attention, ffn }) => attention.kind === "none" && ffn.kind === "none").length,
    notes,
  );
  if (packed[0]!.attention.layer === undefined) {
    notes.push("layer 0 has no attention: a linear attention of zeros stands in its place, which adds nothing");
  }
  if (counts.linearFfn > 0)
    notes.push(`${counts.linearFfn} linear feed-forward held as linear attention, the same product`);
  if (counts.zeroFfn > 0) notes.push(`${counts.zeroFfn} attention without feed-forward given one of zeros, width 32`);
  return packed;
}

/** A linear feed-forward is a norm and a matrix, and so is a linear attention. */
const linearFfnNames = {
  "input_layernorm.weight": "post_attention_layernorm.weight",
  "self_attn.linear_attn.weight": "mlp.linear_mlp.weight",
};

/** Plain Llama and DeciLM state one flag for all attention biases; missing ones are written as zeros. */
function withBiases(config: ModelConfig, target: "gguf" | "hf", notes: string[]): ModelConfig {
  if (target === "gguf" || !needsBothAttentionBiases(config)) return config;
  notes.push(
    "attention biases that the model does not have are written as zeros, because the format has one flag for all",
  );
  return { ...config, attentionBias: true, attentionOutputBias: true };
}

/** Where a weight of the new model comes from: a name in the given one, or a constant. */
type Origin = { shape: Shape } & ({ source: string } | { fill: number });

function packedWeights(model: Model, config: ModelConfig, packed: readonly PackedBlock[]): Model["weights"] {
  const origins = new Map<string, Origin>();
  for (const [index, { attention, ffn }] of packed.entries()) {
    const add = (weights: readonly WeightInfo[], { layer, renamed = {} }: SubLayer<unknown>) => {
      for (const { name, shape } of weights) {
        const source = layer === undefined ? undefined : layerPrefix(layer) + (renamed[name] ?? name);
        const found = source !== undefined && model.weights.has(source);
        origins.set(layerPrefix(index) + name, found ? { shape, source } : { shape, fill: isNorm(name) ? 1 : 0 });
      }
    };
    add(attentionWeights(config, attention.config), attention);
    add(ffnWeights(config, ffn.config), ffn);
  }
  const top = (name: string) => !name.startsWith("model.layers.");
  return {
    has: (name) => origins.has(name) || (top(name) && model.weights.has(name)),
    shapeOf: (name) => origins.get(name)?.shape ?? model.weights.shapeOf(name),
    async read(name) {
      const origin = origins.get(name);
      if (!origin) return model.weights.read(name);
      if ("source" in origin) return model.weights.read(origin.source);
      return f32Tensor(origin.shape, new Float32Array(sizeOf(origin.shape)).fill(origin.fill));
    },
    async readRows(name, from, to) {
      const origin = origins.get(name);
      if (!origin) return readWeightRows(model.weights, name, from, to);
      if ("source" in origin) return readWeightRows(model.weights, origin.source, from, to);
      const shape = [to - from, ...origin.shape.slice(1)];
      return f32Tensor(shape, new Float32Array(sizeOf(shape)).fill(origin.fill));
    },
  };
}

function isNorm(name: string): boolean {
  return name.endsWith("layernorm.weight");
}
