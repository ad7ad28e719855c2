/** @module Supervised fine-tuning from log-probabilities of tokens. */
import type { GraphBuilder, Value } from "../../graph/index.js";
import { weightedMean } from "./divergence.js";

/** log softmax(logits)[target]: logits [N, V], targets i64 [N] (valid ids also where they are not wanted) -> [N]. */
export function targetLogProbs(g: GraphBuilder, logits: Value, targets: Value): Value {
  return g.gatherLast(g.logSoftmax(logits), targets);
}

export interface FineTuningOptions {
  /**
   * f32 scalar: tokens (or sequences, with `membership`) of the whole batch, so that micro batches add up; their means
   * do not. Defaults to those of this one.
   */
  denominator?: Value;
  /** f32 [S, N]: take the mean over sequences of means over their tokens. Defaults to the mean over all tokens. */
  membership?: Value;
  /** Dynamic fine-tuning (DFT, arXiv:2508.05629 eq. 9): each token's loss times its probability, held constant. Defaults to false. */
  dynamic?: boolean;
}

/**
 * Negative log-likelihood of tokens.
 *
 * @param logProbs [N]
 * @param weights f32 [N]: 1 where a token is to be learnt
 */
export function fineTuningLoss(
  g: GraphBuilder,
  logProbs: Value,
  weights: Value,
  options: FineTuningOptions = {},
): Value {
  const { denominator, membership, dynamic = false } = options;
  const nll = g.neg(dynamic ? g.mul(g.stopGradient(g.exp(logProbs)), logProbs) : logProbs); // [N]
  if (!membership) return weightedMean(g, nll, weights, denominator && { denominator });
  const perSequence = (x: Value) => g.reshape(g.matmul(membership, g.reshape(x, [-1, 1])), [-1]); // [S]
  const lengths = perSequence(weights);
  const means = g.div(perSequence(g.mul(weights, nll)), g.maximum(lengths, g.scalar(1)));
  const learnt = g.cast(g.greater(lengths, g.scalar(0)), "f32");
  return weightedMean(g, means, learnt, denominator && { denominator });
}
