import type { PackedBatch } from "../data/index.js";
import type { Tensors } from "../runtime/index.js";
import { f32Tensor, i64Tensor } from "../tensor/index.js";
import type { Batch } from "./batches.js";
import type { PackedShape } from "./packed.js";

/** The inputs of `PackedRowInputs`: ids, segments, prefixes and positions, [B, T] each. */
export function packedRowFeeds(
  { rows }: PackedBatch,
  { batch, length }: Pick<PackedShape, "batch" | "length">,
): Tensors {
  const grid = (of: "ids" | "segments" | "prefixes" | "positions") =>
    i64Tensor([batch, length], BigInt64Array.from(rows.flatMap((row) => Array.from(row[of], BigInt))));
  return {
    ids: grid("ids"),
    segments: grid("segments"),
    prefixes: grid("prefixes"),
    positions: grid("positions"),
  };
}

/**
 * The inputs of `packedLoss` from a packed batch; its weight is the number of targets. Losses over sequences give a weight
 * of their own, such as the number of pairs.
 */
export function packedFeeds(packed: PackedBatch, shape: PackedShape): Batch & { weight: number } {
  const { length, targets: most, sequences } = shape;
  const from = new BigInt64Array(most);
  const targets = new BigInt64Array(most);
  const weights = new Float32Array(most);
  const membership = new Float32Array(sequences * most);
  let n = 0;
  for (const [row, { targets: own }] of packed.rows.entries()) {
    for (const target of own) {
      from[n] = BigInt(row * length + target.from);
      targets[n] = BigInt(target.id);
      weights[n] = 1;
      membership[target.sequence * most + n] = 1;
      n++;
    }
  }
  const feeds = {
    ...packedRowFeeds(packed, shape),
    from: i64Tensor([most], from),
    targets: i64Tensor([most], targets),
    weights: f32Tensor([most], weights),
    membership: f32Tensor([sequences, most], membership),
  };
  return { feeds, weight: n, tokens: packed.tokens };
}

/** The same without `membership`, for losses that know positions alone. */
export function positionFeeds(packed: PackedBatch, shape: PackedShape): Batch & { weight: number } {
  const { feeds, ...batch } = packedFeeds(packed, shape);
  const { membership: _, ...rest } = feeds;
  return { ...batch, feeds: rest };
}
