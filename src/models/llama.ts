/**
 * @module The Llama decoder (arXiv:2302.13971, section 2.2) over blocks that may each differ: pre-norm residual blocks
 * of grouped-query attention with rotary positions and SwiGLU, either of which may be a linear map or absent, as in
 * Puzzle (arXiv:2411.19146, section 3).
 *
 * Departures: none. Activations are two-dimensional, [batch * length, H], because all but attention treats every
 * position alike.
 */
import { internal } from "../base/index.js";
import type { GraphBuilder, Value } from "../graph/index.js";
import { buildAttention } from "./blocks/attention.js";
import type { BlockInputs, WeightValues } from "./blocks/block.js";
import { buildFfn } from "./blocks/ffn.js";
import { type BlockConfig, blockWeights, layerPrefix, type ModelConfig, modelWeights } from "./config.js";
import { buildEmbedding, buildFinalNorm, headWeightName } from "./heads.js";
import { int8BlockNames } from "./int8.js";
import { loraNames } from "./lora.js";

/** Values inside a block that calibration looks at; absent where the block has no such place. */
export interface BlockTaps {
  /** Normed input of the attention sub-layer, [rows, H]. */
  attentionInput?: Value;
  /** Input of `o_proj`, [rows, heads * headDim]. */
  attentionHeads?: Value;
  /** Normed input of the feed-forward sub-layer, [rows, H]. */
  ffnInput?: Value;
  /** Input of `down_proj`, [rows, width]. */
  ffnHidden?: Value;
}

export interface BlockOutputs {
  /** Residual stream after the block, [rows, H]. */
  output: Value;
  /** Residual stream between the two sub-layers, [rows, H]. */
  afterAttention: Value;
  taps: BlockTaps;
}

/** One block: x + attention(norm(x)), then + ffn(norm(.)). Taps that nothing reads cost nothing. */
export function buildBlock(
  g: GraphBuilder,
  config: ModelConfig,
  block: BlockConfig,
  inputs: BlockInputs,
): BlockOutputs {
  const attention = buildAttention(g, config, block.attention, inputs);
  const afterAttention = attention ? g.add(inputs.x, attention.update) : inputs.x;
  const ffn = buildFfn(g, config, block.ffn, { ...inputs, x: afterAttention });
  const output = ffn ? g.add(afterAttention, ffn.update) : afterAttention;
  const { update: _a, ...attentionTaps } = attention ?? { update: undefined };
  const { update: _f, ...ffnTaps } = ffn ?? { update: undefined };
  return { output, afterAttention, taps: { ...attentionTaps, ...ffnTaps } };
}

/** Declares a block's weights as graph inputs, named by their short names after `prefix`. */
export function blockWeightInputs(
  g: GraphBuilder,
  config: ModelConfig,
  block: BlockConfig,
  prefix = "",
): Record<string, Value> {
  const entries = blockWeights(config, block).map(({ name, shape }) => [name, g.input(prefix + name, shape)] as const);
  return Object.fromEntries(entries);
}

/** Declares all weights of a model as graph inputs under their full names. */
export function modelWeightInputs(g: GraphBuilder, config: ModelConfig): Record<string, Value> {
  return Object.fromEntries(modelWeights(config).map(({ name, shape }) => [name, g.input(name, shape)] as const));
}

export interface ModelInputs {
  batch: number;
  length: number;
  /** Token ids, i64 [batch, length]. */
  ids: Value;
  /** Full weight names, as `modelWeightInputs` declares them. */
  weights: WeightValues;
  /** Rotary tables, [1, length, headDim / 2], or [batch, length, headDim / 2] where packed positions restart. */
  cos: Value;
  sin: Value;
  /** In place of the causal mask where rows hold several sequences: see `buildPackedMask`. */
  mask?: Value;
  /** Alpha of the adapters among the weights, where there are any: see `loraWeights`. */
  loraAlpha?: number;
}

export interface ModelOutputs {
  /** Residual stream before every block and after the last one: blocks + 1 values, [rows, H]. */
  hiddenStates: Value[];
  /** The last of them after the final norm, [rows, H]: what the head multiplies. */
  finalHidden: Value;
  /** Inputs of the linear layers of every block. */
  taps: BlockTaps[];
  /** The head's matrix, [V, H]; logits are `g.linear(finalHidden, headWeight)`, which long batches take in chunks. */
  headWeight: Value;
}

/**
 * The whole model in one graph, for training models that fit in memory. Logits are left to the caller, since a loss
 * takes them chunk by chunk.
 *
 * @example
 * const weights = modelWeightInputs(g, config);
 * const ids = g.input("ids", [batch, length], "i64");
 * const tables = rotaryTables(config, positionsFrom(0, length));
 * const [cos, sin] = [g.constant(tables.cos), g.constant(tables.sin)];
 * const { finalHidden, headWeight } = buildModel(g, config, { batch, length, ids, weights, cos, sin });
 * const logits = g.linear(finalHidden, headWeight); // [batch * length, V]
 */
export function buildModel(g: GraphBuilder, config: ModelConfig, inputs: ModelInputs): ModelOutputs {
  const { ids, weights, ...shared } = inputs;
  const taps: BlockTaps[] = [];
  const hiddenStates = [buildEmbedding(g, named(weights, "model.embed_tokens.weight"), ids)];
  config.blocks.forEach((block, layer) => {
    const blockInputs = { ...shared, x: hiddenStates[layer]!, weights: layerWeights(config, block, layer, weights) };
    const { output, taps: own } = buildBlock(g, config, block, blockInputs);
    hiddenStates.push(output);
    taps.push(own);
  });
  const finalHidden = buildFinalNorm(g, config, hiddenStates.at(-1)!, named(weights, "model.norm.weight"));
  return { hiddenStates, taps, finalHidden, headWeight: named(weights, headWeightName(config)) };
}

function layerWeights(config: ModelConfig, block: BlockConfig, layer: number, all: WeightValues): WeightValues {
  const prefix = layerPrefix(layer);
  const names = blockWeights(config, block).map(({ name }) => name);
  const adapters = names.flatMap((name) => Object.values(loraNames(name.replace(/\.weight$/, ""))));
  const present = [...names, ...adapters, ...int8BlockNames(config, block)].filter((name) => all[prefix + name]);
  return Object.fromEntries(present.map((name) => [name, all[prefix + name]!]));
}

function named(weights: WeightValues, name: string): Value {
  return weights[name] ?? internal(`model weight ${name} was not given`);
}
