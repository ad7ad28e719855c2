import { internal } from "../../base/index.js";
import type { GraphBuilder, Value } from "../../graph/index.js";
import type { AttentionConfig, ModelConfig } from "../config.js";
import type { BlockInputs } from "./block.js";
import { linearLayer, weightOf } from "./block.js";

/** What the attention sub-layer gives besides its addition to the residual stream. */
export interface AttentionOutputs {
  /** [rows, H], to be added to the residual stream. */
  update: Value;
  /** Normed input of the projections, [rows, H]. */
  attentionInput: Value;
  /** Input of `o_proj`, [rows, heads * headDim]; grouped-query attention only. */
  attentionHeads?: Value;
}

/** Queries, keys and values after the rotary embedding, [batch, heads, length, headDim]. */
export interface HeadsQkv {
  q: Value;
  k: Value;
  v: Value;
}

/** The attention sub-layer with its norm; `undefined` where the block has none. */
export function buildAttention(
  g: GraphBuilder,
  config: ModelConfig,
  attention: AttentionConfig,
  inputs: BlockInputs,
): AttentionOutputs | undefined {
  if (attention.kind === "none") return undefined;
  const attentionInput = g.rmsNorm(inputs.x, weightOf(inputs, "input_layernorm.weight"), config.normEps);
  if (attention.kind === "linear") {
    const update = linearLayer(g, inputs, "self_attn.linear_attn", attentionInput);
    return { update, attentionInput };
  }
  const qkv = buildQkv(g, config, attention.kvHeads, attentionInput, inputs);
  const attend = inputs.attend ?? ((heads) => attendWithin(g, heads, inputs));
  const attentionHeads = mergeHeads(g, attend(qkv)); // [rows, heads * headDim]
  const update = linearLayer(g, inputs, "self_attn.o_proj", attentionHeads);
  return { update, attentionInput, attentionHeads };
}

function buildQkv(g: GraphBuilder, config: ModelConfig, kvHeads: number, x: Value, inputs: BlockInputs): HeadsQkv {
  const { cos, sin } = inputs;
  if (!cos || !sin) return internal("attention without rotary tables");
  const heads = (name: string, count: number): Value =>
    splitHeads(g, linearLayer(g, inputs, `self_attn.${name}`, x), { ...inputs, heads: count, headDim: config.headDim });
  return {
    q: g.rotary(heads("q_proj", config.heads), cos, sin, { pairing: "half" }),
    k: g.rotary(heads("k_proj", kvHeads), cos, sin, { pairing: "half" }),
    v: heads("v_proj", kvHeads),
  };
}

interface HeadShape {
  batch: number;
  length: number;
  heads: number;
  headDim: number;
}

/** [rows, heads * D] -> [batch, heads, length, D] */
function splitHeads(g: GraphBuilder, x: Value, { batch, length, heads, headDim }: HeadShape): Value {
  // One token alone needs no transpose: its heads lie in order already.
  if (length === 1) return g.reshape(x, [batch, heads, 1, headDim]);
  return g.transpose(g.reshape(x, [batch, length, heads, headDim]), [0, 2, 1, 3]);
}

/** [batch, heads, length, D] -> [rows, heads * D] */
function mergeHeads(g: GraphBuilder, x: Value): Value {
  const [batch, heads, length, headDim] = x.shape as [number, number, number, number];
  const rows = length === 1 ? x : g.transpose(x, [0, 2, 1, 3]);
  return g.reshape(rows, [batch * length, heads * headDim]);
}

/** Scores of longer sequences are computed for this many queries at a time. */
const queryChunk = 512;

/** Every token attends to those before it in its own sequence (and, when packed, in its own segment). */
export function attendWithin(g: GraphBuilder, { q, k, v }: HeadsQkv, { mask, length }: BlockInputs): Value {
  if (mask) return g.attention(q, k, v, { mask });
  if (length <= queryChunk) return g.attention(q, k, v, { causal: true });
  // Memory grows with the length and not its square, and keys that no query of a chunk may see are never touched.
  const chunks: Value[] = [];
  for (let start = 0; start < length; start += queryChunk) {
    const end = Math.min(start + queryChunk, length);
    const [queries, keys, values] = [g.slice(q, 2, start, end), g.slice(k, 2, 0, end), g.slice(v, 2, 0, end)];
    chunks.push(g.attention(queries, keys, values, { causal: true }));
  }
  return g.concat(chunks, 2);
}
