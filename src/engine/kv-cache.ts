/**
 * @module The key and value cache of one sequence, and attention over it. Shapes are static, so the cache has a
 * capacity that grows by doubling, positions not yet written are masked, and new keys are attended to beside the cache
 * rather than copied into it first.
 */
import { causalMask, type GraphBuilder, maskedScore, type Value } from "../graph/index.js";
import type { BlockConfig, HeadsQkv, ModelConfig } from "../models/index.js";
import { type F32Tensor, f32Tensor } from "../tensor/index.js";
import type { CachedShape } from "./programs.js";

/** One layer's keys and values, each [1, kvHeads, capacity, headDim]. */
export interface LayerCache {
  kvHeads: number;
  keys: F32Tensor;
  values: F32Tensor;
}

export interface KvCache {
  /** Positions written. */
  length: number;
  capacity: number;
  /** `undefined` where a block has no attention of its own positions. */
  layers: (LayerCache | undefined)[];
}

export function createKvCache(config: ModelConfig, capacity: number): KvCache {
  const layers = config.blocks.map(({ attention }) => {
    if (attention.kind !== "gqa") return undefined;
    const shape = [1, attention.kvHeads, capacity, config.headDim];
    return { kvHeads: attention.kvHeads, keys: f32Tensor(shape), values: f32Tensor(shape) };
  });
  return { length: 0, capacity, layers };
}

/** The same contents with room for `capacity` positions. */
export function growKvCache(config: ModelConfig, cache: KvCache, capacity: number): KvCache {
  const grown = createKvCache(config, capacity);
  cache.layers.forEach((layer, i) => {
    const target = grown.layers[i];
    if (!layer || !target) return;
    for (const part of ["keys", "values"] as const) {
      copyHeads(layer[part], target[part], { from: 0, to: 0, count: cache.length });
    }
  });
  grown.length = cache.length;
  return grown;
}

/** Writes the first `count` of the new keys and values at the end of the cache; its length is left to the caller. */
export function writeKv(
  cache: KvCache,
  layer: LayerCache,
  fresh: { keys: F32Tensor; values: F32Tensor },
  count: number,
) {
  for (const part of ["keys", "values"] as const) {
    copyHeads(fresh[part], layer[part], { from: 0, to: cache.length, count });
  }
}

/** Copies `count` positions of every head between two [1, heads, positions, D] tensors. */
function copyHeads(
  source: F32Tensor,
  target: F32Tensor,
  { from, to, count }: { from: number; to: number; count: number },
) {
  const [, heads, sourceRows, width] = source.shape as [number, number, number, number];
  const targetRows = target.shape[2]!;
  for (let head = 0; head < heads; head++) {
    const start = (head * sourceRows + from) * width;
    target.data.set(source.data.subarray(start, start + count * width), (head * targetRows + to) * width);
  }
}

/** Added to the scores of cached positions: zero for those written. [1, capacity] */
export function cacheMask(cache: KvCache): F32Tensor {
  return f32Tensor([1, cache.capacity], new Float32Array(cache.capacity).fill(maskedScore, cache.length));
}

/**
 * Attention of new tokens to the cache and to one another, for `BlockInputs.attend`. Declares the inputs `keys`,
 * `values` and `mask` and the outputs `newKeys` and `newValues`; `undefined` where the block keeps no cache.
 */
export function buildCachedAttention(
  g: GraphBuilder,
  { headDim, heads }: ModelConfig,
  { attention }: BlockConfig,
  { length, capacity }: CachedShape,
): ((heads: HeadsQkv) => Value) | undefined {
  if (attention.kind !== "gqa") return undefined;
  const { kvHeads } = attention;
  const rows = (heads / kvHeads) * length; // query heads of one kv head lie below each other
  const keys = g.input("keys", [1, kvHeads, capacity, headDim]);
  const values = g.input("values", [1, kvHeads, capacity, headDim]);
  const mask = g.input("mask", [1, capacity]);
  const alpha = 1 / Math.sqrt(headDim);
  return ({ q, k, v }) => {
    g.output("newKeys", k);
    g.output("newValues", v);
    const grouped = g.reshape(q, [1, kvHeads, rows, headDim]);
    const past = g.add(g.matmul(grouped, keys, { transposeB: true, alpha }), mask); // [1, kv, rows, capacity]
    const fresh = g.matmul(grouped, k, { transposeB: true, alpha }); // [1, kv, rows, length]
    const causal = length === 1 ? fresh : g.add(fresh, causalRows(g, rows, length));
    const p = g.softmax(g.concat([past, causal], 3));
    const [pPast, pFresh] = g.split(p, 3, [capacity, length]) as [Value, Value];
    const o = g.add(g.matmul(pPast, values), g.matmul(pFresh, v)); // [1, kv, rows, D]
    return g.reshape(o, [1, heads, length, headDim]);
  };
}

/** The causal mask once for each query head of a group, [rows, length]. */
function causalRows(g: GraphBuilder, rows: number, length: number): Value {
  const mask = g.constant(causalMask(length));
  return g.concat(
    Array.from({ length: rows / length }, () => mask),
    0,
  );
}
