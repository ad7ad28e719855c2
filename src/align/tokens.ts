import { EspalierError } from "../base/index.js";
import type { GraphBuilder, Value } from "../graph/index.js";

/** Tokens of several sequences as losses see them: flat, padded tokens belonging to no sequence. */
export interface TokenGroup {
  /** Log-probability of each token under the policy that is trained, [N]. */
  logProbs: Value;
  /** f32 [S, N]: 1 where token n is a valid token of sequence s. A token counts for one sequence at most. */
  membership: Value;
}

/** Sums over the tokens of each sequence: x [N] -> [S]. */
export function sumPerSequence(g: GraphBuilder, membership: Value, x: Value): Value {
  return g.reshape(g.matmul(membership, g.reshape(onlyValid(g, membership, x), [-1, 1])), [-1]);
}

/** Gives every token the value of its sequence (0 where it has none): x [S] -> [N]. */
export function spreadToTokens(g: GraphBuilder, membership: Value, x: Value): Value {
  return g.reshape(g.matmul(membership, g.reshape(x, [-1, 1]), { transposeA: true }), [-1]);
}

/** Valid tokens of each sequence, [S]. */
export function sequenceLengths(g: GraphBuilder, membership: Value): Value {
  return g.sum(membership, { axes: [1] });
}

/** Means over the tokens of each sequence, 0 for one without tokens: x [N] -> [S]. */
export function meanPerSequence(g: GraphBuilder, membership: Value, x: Value): Value {
  return g.div(sumPerSequence(g, membership, x), nonZero(g, sequenceLengths(g, membership)));
}

/** x where a token belongs to a sequence, else 0, so that nothing fed for padding can reach a sum: [N] -> [N]. */
export function onlyValid(g: GraphBuilder, membership: Value, x: Value): Value {
  const valid = g.greater(g.sum(membership, { axes: [0] }), g.scalar(0));
  return g.where(valid, x, g.scalar(0));
}

/** A count that may be divided by: 1 instead of 0. */
export function nonZero(g: GraphBuilder, count: Value): Value {
  return g.where(g.equal(count, g.scalar(0)), g.scalar(1), count);
}

/** @throws EspalierError where the options of a loss contradict */
export function requireOption(holds: boolean, where: string, expected: string, found: unknown, fix?: string): void {
  if (!holds) throw new EspalierError({ where, expected, found: `${found}`, ...(fix && { fix }) });
}
