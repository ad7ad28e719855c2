/**
 * @module Reward models: losses over pairs and attributes, the head, and what is done with models after training.
 * Wang et al., HelpSteer2-Preference, arXiv:2410.01257, section 3 and its poster. Departures: none; the slot that holds
 * the reward is the caller's choice (NeMo-Aligner always takes the fifth).
 */
import { EspalierError } from "../base/index.js";
import type { GraphBuilder, Value } from "../graph/index.js";
import { meanOfPairs, type ReductionOptions } from "./pairs.js";
import { nonZero, requireOption } from "./tokens.js";

export interface RewardPairs {
  /** Rewards, [P] each. */
  chosen: Value;
  rejected: Value;
  /** How much better the chosen answer is, [P] (HelpSteer2: 1 slightly, 2, 3 much); for `margin` and `scaled`. */
  strength?: Value;
}

export interface BradleyTerryOptions extends ReductionOptions {
  /**
   * `regular`: -ls(r_c - r_l). `margin`: -ls(r_c - r_l - m) asks for a gap of the strength m. `scaled`:
   * -m ls(r_c - r_l) counts strong pairs m times. Defaults to `regular`.
   */
  kind?: "regular" | "margin" | "scaled";
  /** Factor of the mean of (r_c + r_l)^2, which keeps rewards around 0 (TRL suggests 0.01). Defaults to 0. */
  centre?: number;
}

export interface RewardLoss {
  loss: Value;
  /** [P], without the centring term */
  perPair: Value;
}

export function bradleyTerry(g: GraphBuilder, pairs: RewardPairs, options: BradleyTerryOptions = {}): RewardLoss {
  const { kind = "regular", centre = 0 } = options;
  const { chosen, rejected, strength } = pairs;
  requireOption(kind === "regular" || strength !== undefined, `align: ${kind}`, "a strength for each pair", "none");
  const gap = g.sub(chosen, rejected);
  const nll = g.softplus(g.neg(kind === "margin" ? g.sub(gap, strength!) : gap));
  const perPair = kind === "scaled" ? g.mul(strength!, nll) : nll;
  const loss = meanOfPairs(g, perPair, options);
  if (centre === 0) return { loss, perPair };
  const offset = meanOfPairs(g, g.square(g.add(chosen, rejected)), options);
  return { loss: g.add(loss, g.scale(offset, centre)), perPair };
}

/**
 * Pairs whose better answer a label tells: negative, the first; otherwise the second, for 0 as well (with strength 0).
 *
 * @param first [P] rewards of the first answers
 * @param labels f32 [P], -3 to 3
 */
export function pairsOfLabels(g: GraphBuilder, first: Value, second: Value, labels: Value): Required<RewardPairs> {
  const firstIsBetter = g.less(labels, g.scalar(0));
  return {
    chosen: g.where(firstIsBetter, first, second),
    rejected: g.where(firstIsBetter, second, first),
    strength: g.abs(g.stopGradient(labels)),
  };
}

export interface RegressionOptions {
  /** Label of attributes that were not judged. Defaults to -100. */
  ignore?: number;
  /** f32 scalar: judged attributes of the whole batch. Defaults to those of this one. */
  denominator?: Value;
}

/** Mean of (prediction - label)^2 over all judged attributes (not a mean over samples), [S, A] both. */
export function maskedRegression(
  g: GraphBuilder,
  predictions: Value,
  labels: Value,
  options: RegressionOptions = {},
): Value {
  const { ignore = -100, denominator } = options;
  const judged = g.not(g.equal(labels, g.scalar(ignore)));
  const error = g.where(judged, g.sub(predictions, g.stopGradient(labels)), g.scalar(0));
  const count = denominator ?? nonZero(g, g.sum(g.cast(judged, "f32")));
  return g.div(g.sum(g.square(error)), count);
}

/** Linear layer on top of pooled states: [A, H] and, where it has one, [A]. */
export interface RewardHeadValues {
  weight: Value;
  bias?: Value;
}

/**
 * Attributes [S, A] from the last token of each sequence.
 *
 * @param hidden [N, H]
 * @param last i64 [S]: row of the last token of each sequence
 */
export function rewardOfLast(g: GraphBuilder, hidden: Value, last: Value, { weight, bias }: RewardHeadValues): Value {
  return g.linear(g.gather(hidden, last), weight, bias);
}

/** Attributes [S, A] from the mean over the tokens of each sequence; membership f32 [S, N]. */
export function rewardOfMean(
  g: GraphBuilder,
  hidden: Value,
  membership: Value,
  { weight, bias }: RewardHeadValues,
): Value {
  const lengths = nonZero(g, g.sum(membership, { axes: [1], keepDims: true }));
  return g.linear(g.div(g.matmul(membership, hidden), lengths), weight, bias);
}

/** Attributes of a HelpSteer head in their order; the first four are not trained. */
export const helpSteerAttributes = [
  ...["quality", "toxicity", "humor", "creativity"],
  ...["helpfulness", "correctness", "coherence", "complexity", "verbosity"],
] as const;

/** Weights of the attributes in the reward of published models. */
export const attributeWeights = {
  "Nemotron-4-340B-Reward": [0, 0, 0, 0, 0.3, 0.74, 0.46, 0.47, -0.33],
  "Llama3-70B-SteerLM-RM": [0, 0, 0, 0, 0.65, 0.8, 0.45, 0.55, -0.4],
} as const;

/** One reward of attributes: their weighted sum. Weights default to equal shares, 1 / A. */
export function aggregateReward(attributes: readonly number[], weights?: readonly number[]): number {
  requireOption(
    !weights || weights.length === attributes.length,
    "align: weights",
    `${attributes.length}`,
    weights?.length,
  );
  return attributes.reduce((sum, value, i) => sum + value * (weights?.[i] ?? 1 / attributes.length), 0);
}

type Floats = Float32Array | Float64Array;

/**
 * ExPO (arXiv:2404.16792): weak + alpha (strong - weak), element by element. 1 is the strong model; HelpSteer2-Preference
 * takes 1.52 between the regression model and the scaled Bradley-Terry model that began from it.
 */
export function extrapolate<T extends Floats>(weak: T, strong: T, alpha: number): T {
  return mergeWeights([weak, strong], [1 - alpha, alpha]);
}

/** Weighted sum of models, element by element. Factors default to equal shares. */
export function mergeWeights<T extends Floats>(models: readonly T[], factors?: readonly number[]): T {
  const [first] = models;
  if (!first || models.some(({ length }) => length !== first.length)) {
    const found = models.map(({ length }) => length).join(", ");
    throw new EspalierError({ where: "align: models", expected: "one or more of equal size", found });
  }
  requireOption(!factors || factors.length === models.length, "align: factors", `${models.length}`, factors?.length);
  const merged = first.slice() as T;
  for (let i = 0; i < merged.length; i++) {
    merged[i] = models.reduce((sum, model, m) => sum + model[i]! * (factors?.[m] ?? 1 / models.length), 0);
  }
  return merged;
}
