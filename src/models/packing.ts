import type { GraphBuilder, Value } from "../graph/index.js";
import { causalMask, maskedScore } from "../graph/index.js";

/**
 * Positions of packed rows: they start again at 0 with every segment.
 *
 * @param segments number of the sequence that each token of each row belongs to, equal lengths
 * @returns batch * length positions, for `rotaryTables(config, positions, batch)`
 */
export function packedPositions(segments: readonly ArrayLike<number>[]): Int32Array {
  const positions = segments.map((row) => {
    let start = 0;
    return Int32Array.from(row, (segment, i) => {
      if (segment !== row[i - 1]) start = i;
      return i - start;
    });
  });
  return Int32Array.from(positions.flatMap((row) => [...row]));
}

/**
 * The mask under which a token sees itself and earlier tokens of its own segment, and of the one segment besides it that
 * is its prefix (a prompt that several branches share).
 *
 * @param segments i64 [B, T]
 * @param prefixes i64 [B, T]; a token without a prefix names its own segment. Defaults to no prefixes.
 * @returns f32 [B, T, T]
 */
export function buildPackedMask(g: GraphBuilder, segments: Value, prefixes?: Value): Value {
  const [batch, length] = segments.shape as [number, number];
  const keys = g.reshape(segments, [batch, 1, length]);
  const sees = (own: Value) => g.equal(g.reshape(own, [batch, length, 1]), keys); // [B, T, T]
  const causal = g.expand(g.reshape(g.constant(causalMask(length)), [1, length, length]), [batch, length, length]);
  const within = g.where(sees(segments), causal, g.scalar(maskedScore));
  return prefixes ? g.where(sees(prefixes), causal, within) : within;
}
