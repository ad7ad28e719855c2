/**
 * @module DeciLM: every block states its own attention and feed-forward (`block_configs`), as in Llama-3.1-Nemotron-51B
 * and Ultra-253B.
 *
 * Departure: the format states widths as `ffn_mult`, from which loaders compute a multiple of 256. A width that is none is
 * written as `ffn.intermediate_size` instead, which newer loaders accept where `ffn_mult` is absent.
 */
import { EspalierError } from "../../base/index.js";
import type { HubBlockConfig, HubConfig } from "../../formats/index.js";
import type { AttentionConfig, BlockConfig, FfnConfig, ModelConfig } from "../config.js";

/** `block_configs` to blocks. Throws for entries that state nothing or something impossible. */
export function blocksFromDeci(hub: HubConfig, where: string): BlockConfig[] {
  if (!hub.block_configs) {
    throw new EspalierError({
      where,
      expected: "block_configs",
      found: "none",
      fix: "DeciLM without block_configs is not supported",
      exitCode: 2,
    });
  }
  return hub.block_configs.map((block, layer) => {
    const at = `${where} block_configs.${layer}`;
    return {
      attention: parseAttention(block.attention, hub.num_attention_heads, at),
      ffn: parseFfn(block.ffn, hub.hidden_size, at),
    };
  });
}

function parseAttention(stated: HubBlockConfig["attention"], heads: number, where: string): AttentionConfig {
  if (stated.no_op) return { kind: "none" };
  if (stated.replace_with_linear) return { kind: "linear" };
  const group = stated.n_heads_in_group;
  if (group && heads % group === 0) return { kind: "gqa", kvHeads: heads / group };
  throw new EspalierError({
    where: `${where}.attention.n_heads_in_group`,
    expected: `a divisor of num_attention_heads ${heads}`,
    found: `${group}`,
    exitCode: 2,
  });
}

function parseFfn(stated: HubBlockConfig["ffn"], hidden: number, where: string): FfnConfig {
  if (stated.no_op) return { kind: "none" };
  if (stated.replace_with_linear) return { kind: "linear" };
  const width = stated.intermediate_size ?? (stated.ffn_mult ? widthOf(stated.ffn_mult, hidden) : undefined);
  if (width && width <= 1 << 24) return { kind: "swiglu", width };
  throw new EspalierError({
    where: `${where}.ffn`,
    expected: "ffn_mult or intermediate_size",
    found: `width ${width}`,
    exitCode: 2,
  });
}

/** The format's own rule: two thirds of the multiple, rounded up to 256. */
function widthOf(mult: number, hidden: number): number {
  return Math.ceil(Math.floor((2 * mult * hidden) / 3) / 256) * 256;
}

/** Blocks to `block_configs`. */
export function blocksToDeci(config: ModelConfig): unknown[] {
  return config.blocks.map(({ attention, ffn }) => ({
    attention: {
      n_heads_in_group: attention.kind === "gqa" ? config.heads / attention.kvHeads : null,
      no_op: attention.kind === "none",
      replace_with_linear: attention.kind === "linear",
      window_length: null,
      num_sink_tokens: null,
      use_prefill_window_in_sink_attention: false,
      unshifted_sink: false,
      sparsify: null,
    },
    ffn: {
      ...statedWidth(ffn, config.hiddenSize),
      no_op: ffn.kind === "none",
      replace_with_linear: ffn.kind === "linear",
      sparsify: null,
    },
  }));
}

function statedWidth(ffn: FfnConfig, hidden: number): Record<string, number | null> {
  if (ffn.kind !== "swiglu") return { ffn_mult: null };
  const mult = (3 * ffn.width) / (2 * hidden);
  return widthOf(mult, hidden) === ffn.width ? { ffn_mult: mult } : { intermediate_size: ffn.width };
}
