/**
 * @module Preference pairs and how losses over them are reduced. References differ in what they average, so the
 * convention has a name: {@link Compat}.
 */
import type { GraphBuilder, Value } from "../graph/index.js";
import { nonZero, requireOption, sequenceLengths, sumPerSequence, type TokenGroup } from "./tokens.js";

/** Log-probabilities of chosen and rejected answers, summed over their tokens, each [P]. */
export interface PreferencePairs {
  chosen: Value;
  rejected: Value;
  /** Of the frozen reference; no gradient reaches them. */
  refChosen: Value;
  refRejected: Value;
  /** Tokens of each answer; needed where a loss averages over them. */
  chosenLengths?: Value;
  rejectedLengths?: Value;
}

/** Whose convention holds where references differ. */
export type Compat = "trl" | "aligner" | "nemo-rl" | "openrlhf";

/** How the log-likelihood of chosen answers is averaged: see {@link chosenLoss}. */
export type ChosenReduction = "sum" | "mean" | "tokens";

interface Convention {
  /** Whether IPO takes log-ratios for each token or of whole answers. */
  readonly ipo: "mean" | "sum";
  readonly chosen: ChosenReduction;
  /** Added to denominators. */
  readonly epsilon: number;
}

export const conventions: { readonly [C in Compat]: Convention } = {
  trl: { ipo: "mean", chosen: "tokens", epsilon: 0 },
  aligner: { ipo: "sum", chosen: "sum", epsilon: 0 },
  "nemo-rl": { ipo: "sum", chosen: "sum", epsilon: 1e-8 },
  openrlhf: { ipo: "sum", chosen: "mean", epsilon: 0 },
};

export interface ReductionOptions {
  /** Defaults to `trl`. */
  compat?: Compat;
  /** f32 [P]: 0 for pairs that do not count (padding, over-long answers). Defaults to 1 for each. */
  weights?: Value;
  /** f32 scalar that sums over pairs are divided by: the pairs of the whole batch. Defaults to the weights' sum. */
  denominator?: Value;
}

export interface ChosenOptions {
  /** Factor of the negative log-likelihood of chosen answers that is added to the loss. */
  weight: number;
  /** Defaults to the convention's. */
  reduction?: ChosenReduction;
  /** f32 scalar: chosen tokens of the whole batch, for `tokens`. Defaults to those of this one. */
  tokens?: Value;
}

export interface PairReductionOptions extends ReductionOptions {
  /** Log-ratios are divided by the number of tokens. Defaults to false. */
  average?: boolean;
  /** Factor of the preference loss. Defaults to 1. */
  weight?: number;
  /** Adds the loss of supervised fine-tuning on chosen answers. */
  sft?: ChosenOptions;
}

export interface PreferenceLoss {
  /** f32 scalar: weight preference + sft.weight sft. */
  loss: Value;
  /** Before weights, [P]. */
  perPair: Value;
  /** f32 scalars; `sft` is there where it was asked for. */
  parts: { preference: Value; sft?: Value };
  /** beta times the log-ratios, [P]; for reports. */
  rewards: { chosen: Value; rejected: Value };
  /** Weighted share of pairs whose chosen answer has the greater reward. */
  accuracy: Value;
}

/**
 * Pairs from the tokens of a batch. Two sequences make a pair: neighbours (`interleaved`: chosen, rejected, chosen,
 * ..., as NeMo-RL), or those of the two halves (`halves`: all chosen, then all rejected, as Aligner and TRL).
 *
 * @param reference log-probabilities of the same tokens under the reference, [N]
 */
export function pairsOfTokens(
  g: GraphBuilder,
  { logProbs, membership }: TokenGroup,
  reference: Value,
  order: "interleaved" | "halves" = "interleaved",
): PreferencePairs {
  const [chosen, rejected] = splitPairs(g, sumPerSequence(g, membership, logProbs), order);
  const [refChosen, refRejected] = splitPairs(g, sumPerSequence(g, membership, reference), order);
  const [chosenLengths, rejectedLengths] = splitPairs(g, sequenceLengths(g, membership), order);
  return { chosen, rejected, refChosen, refRejected, chosenLengths, rejectedLengths };
}

/** [2P] -> two of [P]. */
export function splitPairs(g: GraphBuilder, x: Value, order: "interleaved" | "halves"): [Value, Value] {
  const pairs = x.shape[0]! / 2;
  const parts = order === "halves" ? g.reshape(x, [2, pairs]) : g.transpose(g.reshape(x, [pairs, 2]), [1, 0]);
  const [first, second] = g.split(parts, 0, [1, 1]);
  return [g.reshape(first!, [pairs]), g.reshape(second!, [pairs])];
}

/** log(policy / reference) of both answers, [P] each; for each token where `average` says so. */
export function logRatios(
  g: GraphBuilder,
  pairs: PreferencePairs,
  average: boolean,
): { chosen: Value; rejected: Value } {
  const chosen = g.sub(pairs.chosen, g.stopGradient(pairs.refChosen));
  const rejected = g.sub(pairs.rejected, g.stopGradient(pairs.refRejected));
  return average ? perToken(g, pairs, { chosen, rejected }) : { chosen, rejected };
}

/** Divides by the numbers of tokens, which count as 1 where they are 0. */
export function perToken(g: GraphBuilder, pairs: PreferencePairs, x: { chosen: Value; rejected: Value }) {
  return {
    chosen: g.div(x.chosen, nonZero(g, lengthsOf(pairs, "chosenLengths"))),
    rejected: g.div(x.rejected, nonZero(g, lengthsOf(pairs, "rejectedLengths"))),
  };
}

function lengthsOf(pairs: PreferencePairs, side: "chosenLengths" | "rejectedLengths"): Value {
  const lengths = pairs[side];
  requireOption(lengths !== undefined, `align: ${side}`, "lengths, as the loss averages over tokens", "none");
  return lengths!;
}

/** sum(weights x) / (denominator + epsilon of the convention). */
export function meanOfPairs(g: GraphBuilder, x: Value, options: ReductionOptions): Value {
  const { compat = "trl", weights, denominator } = options;
  const total = g.sum(weights ? g.mul(weights, x) : x);
  const count = denominator ?? (weights ? g.sum(weights) : g.scalar(x.shape[0]!));
  const { epsilon } = conventions[compat];
  // A batch whose weights are all 0 gives 0, not 0 / 0.
  return g.div(total, epsilon ? g.addScalar(count, epsilon) : nonZero(g, count));
}

/**
 * Negative log-likelihood of chosen answers: the mean over pairs of its sum over tokens (`sum`: Aligner, NeMo-RL), or
 * of its mean over tokens (`mean`: OpenRLHF, `sft_average_log_probs`); or the mean over all tokens (`tokens`: TRL).
 */
export function chosenLoss(
  g: GraphBuilder,
  pairs: PreferencePairs,
  options: ReductionOptions,
  sft: ChosenOptions,
): Value {
  const { chosen } = conventions[options.compat ?? "trl"];
  const reduction = sft.reduction ?? chosen;
  const nll = g.neg(pairs.chosen);
  if (reduction === "sum") return meanOfPairs(g, nll, options);
  const lengths = lengthsOf(pairs, "chosenLengths");
  if (reduction === "mean") return meanOfPairs(g, g.div(nll, nonZero(g, lengths)), options);
  const weighted = (x: Value) => g.sum(options.weights ? g.mul(options.weights, x) : x);
  return g.div(weighted(nll), nonZero(g, sft.tokens ?? weighted(lengths)));
}

/**
 * Everything that a preference loss reports, from its value for each pair.
 *
 * @param perPairWeights weights of `perPair` where it is not in the order of the pairs
 */
export function reducePairs(
  g: GraphBuilder,
  pairs: PreferencePairs,
  perPair: Value,
  beta: number,
  options: PairReductionOptions,
  perPairWeights = options.weights,
): PreferenceLoss {
  const { weight = 1, sft } = options;
  const preference = meanOfPairs(g, perPair, { ...options, ...(perPairWeights && { weights: perPairWeights }) });
  const parts = sft ? { preference, sft: chosenLoss(g, pairs, options, sft) } : { preference };
  const weighted = g.scale(preference, weight);
  const { chosen, rejected } = logRatios(g, pairs, options.average ?? false);
  const better = g.cast(g.greater(chosen, rejected), "f32");
  return {
    loss: parts.sft && sft ? g.add(weighted, g.scale(parts.sft, sft.weight)) : weighted,
    perPair,
    parts,
    rewards: { chosen: g.scale(chosen, beta), rejected: g.scale(rejected, beta) },
    accuracy: meanOfPairs(g, better, options),
  };
}
