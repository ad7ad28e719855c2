/**
 * @module REINFORCE with a leave-one-out baseline and the KL in the reward (arXiv:2402.14740; HelpSteer2-Preference,
 * arXiv:2410.01257 section 5, in NeMo-Aligner): one update per rollout, the advantage of an answer on each of its
 * tokens. No gradient passes through the KL.
 *
 * Departures: none in value. NeMo-Aligner can only compute micro batches of one sequence; this is their mean.
 */
import type { GraphBuilder, Value } from "../graph/index.js";
import { leaveOneOutBaseline, rlooAdvantages } from "./advantages.js";
import { type SequenceKlOptions, sequenceKl } from "./kl.js";
import { meanPerSequence, nonZero, onlyValid, sequenceLengths, sumPerSequence, type TokenGroup } from "./tokens.js";

/** A sampled answer: log-probabilities of its tokens under policy and reference. */
export interface Rollout {
  reward: number;
  policy: ArrayLike<number>;
  reference: ArrayLike<number>;
  /** Tokens that count. Defaults to all. */
  mask?: ArrayLike<number>;
  /** Whether it ended by itself, within its bound of tokens. Defaults to true. */
  ended?: boolean;
}

export interface ReinforceAdvantageOptions {
  /**
   * `aligner`: penalty on the mean of absolute differences, baseline of the ended answers. `trl`: on the sum of signed
   * ones, baseline of all others. Their penalties differ by about the length. Defaults to `aligner`.
   */
  compat?: "aligner" | "trl";
  /** Factor of the KL in the reward. Defaults to 0.01 (`aligner`) or 0.05 (`trl`). */
  penalty?: number;
  /** Absolute differences. Defaults to the convention's. */
  absolute?: boolean;
  /** Whiten the advantages over the batch (`trl` only). Defaults to false. */
  normalise?: boolean;
}

export interface ReinforceAdvantages {
  kl: Float64Array;
  /** Rewards less their penalty. */
  rewards: Float64Array;
  baseline: Float64Array;
  advantages: Float64Array;
}

/** @param groups number of the prompt of each rollout */
export function reinforceAdvantages(
  rollouts: readonly Rollout[],
  groups: ArrayLike<number>,
  { compat = "aligner", penalty, absolute, normalise = false }: ReinforceAdvantageOptions = {},
): ReinforceAdvantages {
  const aligner = compat === "aligner";
  const options: SequenceKlOptions = { absolute: absolute ?? aligner, average: aligner };
  const kl = Float64Array.from(rollouts, ({ policy, reference, mask }) =>
    sequenceKl(policy, reference, { ...options, ...(mask && { mask }) }),
  );
  const factor = penalty ?? (aligner ? 0.01 : 0.05);
  const rewards = kl.map((value, i) => rollouts[i]!.reward - factor * value);
  if (!aligner) {
    const baseline = rewards.map((reward, i) => reward - rlooAdvantages(rewards, groups)[i]!);
    return { kl, rewards, baseline, advantages: rlooAdvantages(rewards, groups, { normalise }) };
  }
  const ended = rollouts.map((rollout) => ((rollout.ended ?? true) ? 1 : 0));
  const baseline = leaveOneOutBaseline(rewards, groups, ended);
  return { kl, rewards, baseline, advantages: rewards.map((reward, i) => reward - baseline[i]!) };
}

export interface ReinforceOptions {
  /**
   * `sequences`: mean over all sequences of means over tokens, those that do not count included as 0 (NeMo-Aligner).
   * `tokens`: mean over the tokens of sequences that count. Defaults to `sequences`.
   */
  reduction?: "sequences" | "tokens";
  /** f32 scalar: sequences or tokens of the whole batch. Defaults to those of this one. */
  denominator?: Value;
}

export interface SequenceLoss {
  loss: Value;
  /** [S] */
  perSequence: Value;
}

/**
 * -log pi A, averaged.
 *
 * @param advantages f32 [S], constant
 * @param counts f32 [S]: 1 for answers that ended by themselves, 0 for others; defaults to all
 */
export function reinforceLoss(
  g: GraphBuilder,
  { logProbs, membership }: TokenGroup,
  advantages: Value,
  counts?: Value,
  { reduction = "sequences", denominator }: ReinforceOptions = {},
): SequenceLoss {
  const factors = g.stopGradient(counts ? g.mul(advantages, counts) : advantages);
  const nll = g.neg(onlyValid(g, membership, logProbs));
  const perSequence = g.mul(meanPerSequence(g, membership, nll), factors);
  if (reduction === "sequences") {
    const sequences = denominator ?? g.scalar(membership.shape[0]!);
    return { loss: g.div(g.sum(perSequence), sequences), perSequence };
  }
  const lengths = sequenceLengths(g, membership);
  const tokens = denominator ?? nonZero(g, g.sum(counts ? g.mul(counts, lengths) : lengths));
  return { loss: g.div(g.sum(g.mul(sumPerSequence(g, membership, nll), factors)), tokens), perSequence };
}

export interface RlooLossOptions {
  /** The ratio is clipped to 1 +- this. Defaults to 0.2. */
  epsilon?: number;
  /** f32 [S]: 0 for sequences that do not count. Defaults to 1 for each. */
  weights?: Value;
  /** f32 scalar: sequences of the whole batch. Defaults to those of this one. */
  denominator?: Value;
}

/**
 * TRL's RLOO: -min(ratio A, clip(ratio) A) with the ratio of whole answers, exp(sum over tokens of policy - old).
 *
 * @param old log-probabilities before the updates, [N]
 * @param advantages f32 [S], constant
 */
export function rlooLoss(
  g: GraphBuilder,
  { logProbs, membership }: TokenGroup,
  old: Value,
  advantages: Value,
  { epsilon = 0.2, weights, denominator }: RlooLossOptions = {},
): SequenceLoss & { ratio: Value } {
  const difference = onlyValid(g, membership, g.sub(logProbs, g.stopGradient(old)));
  const ratio = g.exp(sumPerSequence(g, membership, difference));
  const factors = g.stopGradient(advantages);
  const clipped = g.mul(g.clip(ratio, 1 - epsilon, 1 + epsilon), factors);
  const perSequence = g.neg(g.minimum(g.mul(ratio, factors), clipped));
  const count = denominator ?? (weights ? nonZero(g, g.sum(weights)) : g.scalar(membership.shape[0]!));
  return { loss: g.div(g.sum(weights ? g.mul(weights, perSequence) : perSequence), count), perSequence, ratio };
}
