/**
 * @module Baselines and advantages, in float64 and plain numbers: no gradient passes through them. A group is the
 * answers to one prompt. NaN is the reward of an answer that nothing could score: it is left out of means and
 * deviations and has advantage 0. Deviations are unbiased (n - 1), 0 for a single value.
 */
import { requireOption } from "./tokens.js";

/** Number of the group of each answer. */
export type Groups = ArrayLike<number>;

/** Groups of neighbouring answers, `size` each. */
export function consecutiveGroups(count: number, size: number): Int32Array {
  requireOption(count % size === 0, "align: answers", `a multiple of ${size}`, count);
  return Int32Array.from({ length: count }, (_, i) => Math.floor(i / size));
}

/**
 * NeMo-Aligner's leave-one-out baseline: sum of the other ended answers' rewards / (ended answers - 1); the reward
 * itself (advantage 0) where one answer or none has ended.
 *
 * The divisor is the reference's also for an answer that did not end itself, whose baseline is too large for that. Such
 * answers are masked in the loss there.
 *
 * @param ended 1 for answers that ended by themselves; defaults to all
 */
export function leaveOneOutBaseline(
  rewards: ArrayLike<number>,
  groups: Groups,
  ended?: ArrayLike<number>,
): Float64Array {
  const counts = (i: number) => (!ended || ended[i] ? 1 : 0);
  const baseline = new Float64Array(rewards.length);
  for (const members of membersOf(groups)) {
    const total = sum(members, counts);
    for (const i of members) {
      const others = sum(members, (j) => (j === i || !counts(j) ? 0 : rewards[j]!));
      baseline[i] = total <= 1 ? rewards[i]! : others / (total - 1);
    }
  }
  return baseline;
}

export interface GroupBaselineOptions {
  /** Statistics of the other answers instead of all. Defaults to true. */
  leaveOneOut?: boolean;
  /** 1 for answers that count. Defaults to all; unscored ones never do. */
  valid?: ArrayLike<number>;
}

export interface GroupBaseline {
  baseline: Float64Array;
  std: Float64Array;
}

/**
 * NeMo-RL's baseline and deviation for each answer (`calculate_baseline_and_std_per_prompt`). With two answers and
 * leave-one-out the deviation is that of one value, 0. A group with at most one valid answer has its reward as baseline.
 */
export function groupBaseline(
  rewards: ArrayLike<number>,
  groups: Groups,
  { leaveOneOut = true, valid }: GroupBaselineOptions = {},
): GroupBaseline {
  const result = { baseline: new Float64Array(rewards.length), std: new Float64Array(rewards.length) };
  for (const members of membersOf(groups)) {
    const counted = members.filter((i) => (!valid || valid[i]) && !Number.isNaN(rewards[i]));
    for (const i of members) {
      const others = counted.filter((j) => !leaveOneOut || j !== i).map((j) => rewards[j]!);
      const few = counted.length <= 1 || others.length === 0;
      result.baseline[i] = few ? rewards[i]! : mean(others);
      result.std[i] = few ? 0 : deviation(others);
    }
  }
  return result;
}

export interface ScaledAdvantageOptions extends GroupBaselineOptions {
  /** Divide by the deviation where it is not 0. Defaults to true. */
  normalise?: boolean;
  /** Added to deviations. Defaults to 1e-6. */
  epsilon?: number;
}

/** NeMo-RL's GRPO advantages: (r - baseline) / (std + epsilon) where std > 0, else r - baseline. */
export function scaledAdvantages(
  rewards: ArrayLike<number>,
  groups: Groups,
  { normalise = true, epsilon = 1e-6, ...options }: ScaledAdvantageOptions = {},
): Float64Array {
  const { baseline, std } = groupBaseline(rewards, groups, options);
  return Float64Array.from(baseline, (b, i) => {
    const advantage = scored(rewards[i]! - b);
    return normalise && std[i]! > 0 ? advantage / (std[i]! + epsilon) : advantage;
  });
}

export interface GroupAdvantageOptions {
  /** What is divided by: the deviation within the group, that of the whole batch, or nothing. Defaults to `group`. */
  scale?: "group" | "batch" | "none";
  /** Added to deviations. Defaults to 1e-4. */
  epsilon?: number;
}

/** GRPO (arXiv:2402.03300) as in TRL: (r - mean of the group) / (std + epsilon). `none` is Dr. GRPO (arXiv:2503.20783). */
export function groupAdvantages(
  rewards: ArrayLike<number>,
  groups: Groups,
  { scale = "group", epsilon = 1e-4 }: GroupAdvantageOptions = {},
): Float64Array {
  const advantages = new Float64Array(rewards.length);
  const batch = deviation(scoredOf(Array.from(rewards)));
  for (const members of membersOf(groups)) {
    const values = scoredOf(members.map((i) => rewards[i]!));
    const divisor = scale === "none" ? 1 : (scale === "group" ? deviation(values) : batch) + epsilon;
    const centre = mean(values);
    for (const i of members) advantages[i] = scored((rewards[i]! - centre) / divisor);
  }
  return advantages;
}

/**
 * One reward of several functions' rewards: their weighted sum, NaN where no function could score.
 *
 * @param rewards for each answer those of the functions; NaN or null where a function could not score it
 */
export function weightedRewards(
  rewards: readonly (readonly (number | null)[])[],
  weights: readonly number[],
): Float64Array {
  return Float64Array.from(rewards, (row) => {
    requireOption(row.length === weights.length, "align: rewards of an answer", `${weights.length}`, row.length);
    const terms = row.map((reward, k) => (reward === null ? Number.NaN : reward * weights[k]!));
    const values = scoredOf(terms);
    return values.length === 0 ? Number.NaN : values.reduce((a, b) => a + b);
  });
}

/**
 * GDPO (arXiv:2601.05242): each function's rewards are normalised within their group, summed by weight, and the sum is
 * normalised over the batch. An answer that a function could not score is at that function's mean; one that none could
 * score is left out.
 */
export function decoupledAdvantages(
  rewards: readonly (readonly (number | null)[])[],
  weights: readonly number[],
  groups: Groups,
  epsilon = 1e-4,
): Float64Array {
  const sums = new Float64Array(rewards.length);
  weights.forEach((weight, k) => {
    const column = rewards.map((row) => row[k] ?? Number.NaN);
    groupAdvantages(column, groups, { epsilon }).forEach((advantage, i) => {
      sums[i]! += weight * advantage;
    });
  });
  const known = sums.map((value, i) => (rewards[i]!.every((r) => r === null || Number.isNaN(r)) ? Number.NaN : value));
  return groupAdvantages(known, new Int32Array(known.length), { epsilon });
}

export interface RlooOptions {
  /** Whiten over the batch, with 1e-4 added to the deviation. Defaults to false. */
  normalise?: boolean;
}

/** TRL's RLOO (arXiv:2402.14740): the reward less the mean of the group's others; 0 in a group of one. */
export function rlooAdvantages(
  rewards: ArrayLike<number>,
  groups: Groups,
  { normalise = false }: RlooOptions = {},
): Float64Array {
  const unscored = Array.from(rewards, Number.isNaN);
  const others = unscored.map((missing) => (missing ? 0 : 1));
  const baseline = leaveOneOutBaseline(rewards, groups, others);
  const advantages = baseline.map((b, i) => scored(rewards[i]! - b));
  if (!normalise) return advantages;
  const known = advantages.map((advantage, i) => (unscored[i] ? Number.NaN : advantage));
  return groupAdvantages(known, new Int32Array(known.length));
}

export interface GaeOptions {
  /** Discount. Defaults to 1. */
  gamma?: number;
  /** Decay of the estimator. Defaults to 0.95. */
  lambda?: number;
  /** 1 for tokens that count; others are passed over and have 0. After the last, the value is 0. Defaults to all. */
  mask?: ArrayLike<number>;
}

/**
 * Generalised advantages of one sequence (arXiv:1506.02438 eq. 16): delta_t = r_t + gamma V_(t+1) - V_t,
 * A_t = delta_t + gamma lambda A_(t+1); returns are A + V.
 */
export function generalisedAdvantages(
  values: ArrayLike<number>,
  rewards: ArrayLike<number>,
  { gamma = 1, lambda = 0.95, mask }: GaeOptions = {},
): { advantages: Float64Array; returns: Float64Array } {
  const advantages = new Float64Array(values.length);
  const returns = new Float64Array(values.length);
  let [nextValue, nextAdvantage] = [0, 0];
  for (let t = values.length - 1; t >= 0; t--) {
    if (mask && !mask[t]) continue;
    const delta = rewards[t]! + gamma * nextValue - values[t]!;
    advantages[t] = delta + gamma * lambda * nextAdvantage;
    returns[t] = advantages[t]! + values[t]!;
    [nextValue, nextAdvantage] = [values[t]!, advantages[t]!];
  }
  return { advantages, returns };
}

export interface OverlongOptions {
  /** Most tokens of an answer. */
  maxLength: number;
  /** Tokens before that over which the penalty grows from 0 to `penalty`. */
  buffer: number;
  /** Defaults to 1. */
  penalty?: number;
}

/** DAPO's soft overlong punishment (arXiv:2503.14476 eq. 13, without its end): r + min(0, -(length - (max - buffer)) / buffer penalty). */
export function punishOverlong(
  rewards: ArrayLike<number>,
  lengths: ArrayLike<number>,
  { maxLength, buffer, penalty = 1 }: OverlongOptions,
): Float64Array {
  requireOption(buffer > 0 && buffer <= maxLength, "align: buffer", `above 0, at most ${maxLength}`, buffer);
  const punishment = (length: number) => Math.min(0, ((maxLength - buffer - length) / buffer) * penalty);
  return Float64Array.from({ length: rewards.length }, (_, i) => rewards[i]! + punishment(lengths[i]!));
}

/** Indices of the members of each group. */
function membersOf(groups: Groups): number[][] {
  const members = new Map<number, number[]>();
  for (let i = 0; i < groups.length; i++) {
    const known = members.get(groups[i]!);
    if (known) known.push(i);
    else members.set(groups[i]!, [i]);
  }
  return [...members.values()];
}

const sum = (members: readonly number[], of: (i: number) => number) => members.reduce((total, i) => total + of(i), 0);
const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
const scoredOf = (values: readonly number[]) => values.filter((value) => !Number.isNaN(value));
const scored = (advantage: number) => (Number.isNaN(advantage) ? 0 : advantage);

function deviation(values: readonly number[]): number {
  if (values.length < 2) return 0;
  const centre = mean(values);
  return Math.sqrt(values.reduce((total, value) => total + (value - centre) ** 2, 0) / (values.length - 1));
}
