/** @module Names of weights in GGUF, and the order of rows that llama.cpp's rotary embedding expects. */
import type { AttentionConfig, ModelConfig } from "../config.js";

const blockNames: Readonly<Record<string, string>> = {
  input_layernorm: "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "self_attn.linear_attn": "attn_output",
  post_attention_layernorm: "ffn_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
};
const topNames: Readonly<Record<string, string>> = {
  "model.embed_tokens.weight": "token_embd.weight",
  "model.norm.weight": "output_norm.weight",
  "lm_head.weight": "output.weight",
};

/** GGUF name of a weight, or undefined where GGUF has none (a linear feed-forward). */
export function ggufName(name: string): string | undefined {
  const match = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name);
  if (!match) return topNames[name];
  const [, layer, part, kind] = match;
  const short = blockNames[part!];
  return short && `blk.${layer}.${short}.${kind}`;
}

/** How many heads' rows a weight holds that rotary embedding turns, or 0. */
export function rotaryHeads(config: ModelConfig, name: string): number {
  const match = /^model\.layers\.(\d+)\.self_attn\.([qk])_proj\.(weight|bias)$/.exec(name);
  if (!match) return 0;
  if (match[2] === "q") return config.heads;
  const attention: AttentionConfig | undefined = config.blocks[Number(match[1])]?.attention;
  return attention?.kind === "gqa" ? attention.kvHeads : 0;
}

/** Rows from the halves pairing (row j turns with row j + D/2) to neighbouring pairs (2j with 2j + 1), head by head. */
export function halvesToPairs(rows: Float32Array, heads: number, headDim: number): Float32Array {
  const half = headDim / 2;
  return reorderRows(rows, { heads, headDim, from: (row) => (row % 2) * half + (row >> 1) });
}

/** The inverse of {@link halvesToPairs}. */
export function pairsToHalves(rows: Float32Array, heads: number, headDim: number): Float32Array {
  const half = headDim / 2;
  return reorderRows(rows, { heads, headDim, from: (row) => (row < half ? 2 * row : 2 * (row - half) + 1) });
}

interface Reordering {
  heads: number;
  headDim: number;
  /** Which row of a head lands at `row`. */
  from(row: number): number;
}

function reorderRows(rows: Float32Array, { heads, headDim, from }: Reordering): Float32Array {
  const width = rows.length / (heads * headDim);
  const result = new Float32Array(rows.length);
  for (let head = 0; head < heads; head++) {
    for (let row = 0; row < headDim; row++) {
      const source = (head * headDim + from(row)) * width;
      result.set(rows.subarray(source, source + width), (head * headDim + row) * width);
    }
  }
  return result;
}
