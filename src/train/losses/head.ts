/**
 * @module Losses on whole rows of logits through a large vocabulary, a chunk of positions at a time: each chunk's gradient
 * is computed beside its value, by reverse mode over the chunk alone, while its logits exist.
 */
import { type GraphBuilder, gradients, type Value } from "../../graph/index.js";

/** Hidden states [N, H] and the matrix [V, H] that turns them into logits. */
export interface Head {
  hidden: Value;
  head: Value;
}

/** The positions at hand. */
export interface HeadChunk {
  /** [C, V] */
  logits: Value;
  /** Rows from `from` up to, not including, `to`. */
  from: number;
  to: number;
  /** What belongs to the chunk, for use when the chunk before is done with: its logits are free then. */
  next(x: Value): Value;
}

/** A value for each position of a chunk, [C]. */
export type ChunkValues = (chunk: HeadChunk) => Value;

export interface HeadLossOptions {
  /** f32 [N] */
  weights: Value;
  /** f32 scalar that the weighted sum is divided by. */
  denominator: Value;
  /** Positions of a chunk. Defaults to as many as keep eight sets of logits within 256 MiB. */
  chunk?: number;
}

const chunkBytes = 256 * 2 ** 20;
/** Sets of logits that exist at one time: both models', their log-probabilities and what the gradient takes. */
const copies = 8;

/** Weighted mean over positions of what `valuesOf` gives; gradients reach the hidden states and the head. */
export function headLoss(
  g: GraphBuilder,
  { hidden, head }: Head,
  { weights, denominator, chunk }: HeadLossOptions,
  valuesOf: ChunkValues,
): Value {
  const share = g.div(weights, denominator); // [N]
  const rows: Value[] = [];
  let sums: { loss: Value; head: Value } | undefined;
  const done = () => (sums ? [sums.loss, sums.head, rows.at(-1)!] : []);
  for (const [from, to] of chunksOf(hidden, head, chunk)) {
    const before = done();
    const next = (x: Value) => g.after(x, before);
    const x = next(g.slice(hidden, 0, from, to)); // [C, H]
    const logits = g.linear(x, head);
    const term = g.sum(g.mul(valuesOf({ logits, from, to, next }), g.slice(share, 0, from, to)));
    const [slope] = gradients(g, term, [logits]);
    rows.push(g.matmul(slope!, head));
    sums = {
      loss: sums ? g.add(sums.loss, term) : term,
      head: sums ? g.gemm(slope!, x, sums.head, { transposeA: true }) : g.matmul(slope!, x, { transposeA: true }),
    };
  }
  return g.withGradient(sums!.loss, [
    [hidden, g.after(g.concat(rows, 0), done())],
    [head, sums!.head],
  ]);
}

/** What `valuesOf` gives for every position, [N]; no gradient. */
export function headValues(g: GraphBuilder, { hidden, head }: Head, valuesOf: ChunkValues, chunk?: number): Value {
  const values: Value[] = [];
  for (const [from, to] of chunksOf(hidden, head, chunk)) {
    const before = values.slice(-1);
    const next = (x: Value) => g.after(x, before);
    values.push(valuesOf({ logits: g.linear(next(g.slice(hidden, 0, from, to)), head), from, to, next }));
  }
  return g.stopGradient(g.concat(values, 0));
}

/** [from, to) pairs of nearly equal length. */
function chunksOf(hidden: Value, head: Value, chunk?: number): [from: number, to: number][] {
  const positions = hidden.shape[0]!;
  const most = chunk ?? Math.max(1, Math.floor(chunkBytes / copies / (4 * head.shape[0]!)));
  const size = Math.ceil(positions / Math.ceil(positions / most));
  return Array.from({ length: Math.ceil(positions / size) }, (_, i) => [i * size, Math.min(positions, (i + 1) * size)]);
}
