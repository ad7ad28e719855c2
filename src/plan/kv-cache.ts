/** @module The key-value cache of llama.cpp, to the byte a token. */
import type { ModelShape } from "./model-shape.js";

/** Number types of the cache and the bytes of one number, scales included. */
export const cacheTypes = {
  f32: 4,
  f16: 2,
  bf16: 2,
  q8_0: 34 / 32,
  q5_1: 24 / 32,
  q5_0: 22 / 32,
  q4_1: 20 / 32,
  q4_0: 18 / 32,
} as const;
export type CacheType = keyof typeof cacheTypes;

export interface KvCacheOptions {
  /** Of the keys. Defaults to `f16`. */
  keys?: CacheType;
  /** Of the values. Defaults to that of the keys. Quantised ones need flash attention. */
  values?: CacheType;
  /** Defaults to true. Without it llama.cpp gives the values of every layer the width of the widest. */
  flashAttention?: boolean;
}

/** Bytes that one token takes over all layers. */
export function kvCacheBytesPerToken(shape: ModelShape, options: KvCacheOptions = {}): number {
  return kvCacheBytesByLayer(shape, options).reduce((a, b) => a + b, 0);
}

/**
 * Bytes that one token takes in each layer. Without flash attention llama.cpp stores values transposed and pads those of
 * every layer, also of one without attention, to the widest layer, so that a model whose layers differ loses what its
 * narrow ones save.
 */
export function kvCacheBytesByLayer(shape: ModelShape, options: KvCacheOptions = {}): number[] {
  const { keys = "f16", values = keys, flashAttention = true } = options;
  const widths = shape.blocks.map(({ attention }) =>
    attention.kind === "gqa" ? attention.kvHeads * shape.headDim : 0,
  );
  const widest = Math.max(0, ...widths);
  return widths.map((width) => width * cacheTypes[keys] + (flashAttention ? width : widest) * cacheTypes[values]);
}
