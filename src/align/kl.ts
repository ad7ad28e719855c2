/**
 * @module Estimates of KL(policy || reference) from tokens that the policy sampled (Schulman,
 * http://joschu.net/blog/kl-approx.html), with r = log(reference / policy) of a token:
 *
 *   k1  -r, no bias, its sign varies       k2  r^2 / 2, biased, little variance
 *   k3  exp(r) - 1 - r, no bias, >= 0      abs |r|, NeMo-Aligner's default penalty
 */
import type { GraphBuilder, Value } from "../graph/index.js";

export type KlKind = "k1" | "k2" | "k3" | "abs";

export interface KlOptions {
  /** Defaults to `k3`. */
  kind?: KlKind;
  /** r is held within +- this (NeMo-RL: 20). Defaults to no bound: then k3 overflows float32 where r exceeds 88. */
  inputClamp?: number;
  /** Estimates, weights included, are held within +- this (NeMo-RL: 10). Defaults to no bound. */
  outputClamp?: number;
  /** Factor of each estimate before the output is clamped, [N]. Defaults to 1. */
  weights?: Value;
}

/** Estimate for each token, [N]; the gradient, 0 where a clamp binds, reaches the policy alone. */
export function klEstimate(g: GraphBuilder, policy: Value, reference: Value, options: KlOptions = {}): Value {
  const { kind = "k3", inputClamp, outputClamp, weights } = options;
  const ratio = clamp(g, g.sub(g.stopGradient(reference), policy), inputClamp);
  const estimate = estimators[kind](g, ratio);
  return clamp(g, weights ? g.mul(weights, estimate) : estimate, outputClamp);
}

const clamp = (g: GraphBuilder, x: Value, bound?: number) => (bound === undefined ? x : g.clip(x, -bound, bound));

const estimators: { readonly [K in KlKind]: (g: GraphBuilder, ratio: Value) => Value } = {
  k1: (g, r) => g.neg(r),
  k2: (g, r) => g.scale(g.square(r), 0.5),
  k3: (g, r) => g.sub(g.addScalar(g.exp(r), -1), r),
  abs: (g, r) => g.abs(r),
};

/** KL of one sampled sequence for a reward, in plain numbers: no gradient passes through it. */
export function sequenceKl(
  policy: ArrayLike<number>,
  reference: ArrayLike<number>,
  { absolute = false, average = false, mask }: SequenceKlOptions = {},
): number {
  let [sum, count] = [0, 0];
  for (let t = 0; t < policy.length; t++) {
    if (mask && !mask[t]) continue;
    const difference = policy[t]! - reference[t]!;
    sum += absolute ? Math.abs(difference) : difference;
    count++;
  }
  return average ? sum / Math.max(1, count) : sum;
}

export interface SequenceKlOptions {
  /** Absolute differences instead of signed ones. Defaults to false. */
  absolute?: boolean;
  /** Mean over the tokens instead of their sum: the coefficient of the penalty differs by the length. Defaults to false. */
  average?: boolean;
  /** Tokens that count. Defaults to all. */
  mask?: ArrayLike<number>;
}
