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

/** The mask under which a token sees itself and earlier tokens of its own segment: segments [B, T] -> [B, T, T]. */
export function buildPackedMask(g: GraphBuilder, segments: Value): Value {
  const [batch, length] = segments.shape as [number, number];
  const same = g.equal(g.reshape(segments, [batch, length, 1]), g.reshape(segments, [batch, 1, length]));
  const causal = g.constant(causalMask(length)); // [T, T]
  return g.where(
    same,
    g.expand(g.reshape(causal, [1, length, length]), [batch, length, length]),
    g.scalar(maskedScore),
  );
}
