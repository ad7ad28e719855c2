/**
 * @module Policy gradients with a clipped ratio: the GRPO family. For a token with advantage A,
 * ratio = exp(policy - old) (or the geometric mean of a sequence's ratios, GSPO, arXiv:2507.18071) and:
 *
 *   clip       -min(ratio A, clip(ratio, 1 - low, 1 + high) A)         PPO, arXiv:1707.06347 eq. 7
 *   cispo      -sg(clip(ratio)) A log pi                               MiniMax-M1, arXiv:2506.13585 eq. 4
 *   sapo       -4 / tau sigmoid(tau (ratio - 1)) A                     arXiv:2511.20347
 *   reinforce  -log pi A                                               no ratio
 *
 * plus beta KL(policy || reference). What differs between TRL and NeMo-RL (reduction, clamps, the KL's gradient,
 * denominators) are options; {@link trlPolicy} and {@link nemoRlPolicy} hold their settings.
 *
 * Departures: `luspo` sums the losses of a sequence's own tokens, which is TRL's value for sequence ratios without KL;
 * otherwise TRL averages over padding too. Padded tokens and sequences never count.
 */
import type { GraphBuilder, Value } from "../graph/index.js";
import { finiteExp, type ImportanceCorrection, importanceWeights } from "./importance.js";
import { type KlOptions, klEstimate } from "./kl.js";
import {
  meanPerSequence,
  nonZero,
  onlyValid,
  requireOption,
  sequenceLengths,
  spreadToTokens,
  sumPerSequence,
  type TokenGroup,
} from "./tokens.js";

export interface PolicyInputs extends TokenGroup {
  /** f32 [S], or [N] where tokens have their own. */
  advantages: Value;
  /** Log-probabilities before the updates on this batch, [N]. Not needed by `reinforce` and with `onPolicy`. */
  old?: Value;
  /** Those of the reference, [N]; for the KL. */
  reference?: Value;
  /** Those of the program that sampled, [N]; for corrections, and KL weights of kind `sampled`. */
  sampled?: Value;
  /** f32 [S]: 0 for sequences that do not count. Defaults to 1 for each. */
  weights?: Value;
  /** f32 [S]: 1 where the answer is right; for `positiveWeight`. */
  positives?: Value;
}

export interface PolicyKl extends Omit<KlOptions, "weights"> {
  /** Factor of the estimate in the loss. */
  beta: number;
  /**
   * What the estimate is multiplied by: nothing; `score`: exp(policy - sg(policy)), 1 in value, which adds the gradient
   * through the sampling (arXiv:2506.09477); `ratio`: the ratio (TRL's `use_bias_correction_kl`); `sampled`:
   * exp(policy - sampled) (NeMo-RL's on-policy approximation). Defaults to nothing.
   */
  weight?: "score" | "ratio" | "sampled";
}

export interface PolicyOptions {
  /** Defaults to `clip`. */
  objective?: "clip" | "cispo" | "sapo" | "reinforce";
  /** Ratio of each token or one for each sequence. Defaults to `token`. */
  level?: "token" | "sequence";
  /** Bounds of the clipped ratio. Default to 0.8 and 1.2. */
  ratioLow?: number;
  ratioHigh?: number;
  /** Bound of the ratio that is not clipped otherwise (INTELLECT-2, TRL's `delta`). Defaults to none. */
  delta?: number;
  /** Loss of a negative advantage is at most -A times this, > 1 (arXiv:1912.09729). Defaults to no bound. */
  dualClip?: number;
  /** Temperatures of `sapo` for positive and other advantages. Default to 1 and 1.05. */
  tauPositive?: number;
  tauNegative?: number;
  /** The ratio is 1 in value, whatever `old` says: one update per rollout. Defaults to false. */
  onPolicy?: boolean;
  /** Defaults to none. */
  kl?: PolicyKl;
  /** Defaults to none. */
  correction?: ImportanceCorrection;
  /**
   * `sequences`: mean over sequences of means over tokens. `tokens`: mean over all tokens. `length`: sum over tokens /
   * (sequences * maxLength). `sums`: mean over sequences of sums over tokens. Defaults to `sequences`.
   */
  reduction?: "sequences" | "tokens" | "length" | "sums";
  /** Most tokens of an answer, for `length`. */
  maxLength?: number;
  /** Added to every denominator instead of holding it at 1 or more. Defaults to none. */
  epsilon?: number;
  /** Factor of the negative log-likelihood of positive answers (VAPO, arXiv:2504.05118 eq. 10). Defaults to 0. */
  positiveWeight?: number;
  /** f32 scalar: tokens (for `tokens`) or sequences of the whole batch. Defaults to those of this one. */
  denominator?: Value;
}

export interface PolicyLoss {
  loss: Value;
  /** Of each token, KL included; 0 where padded, [N]. */
  perToken: Value;
  /** [N]; with `level: "sequence"` equal within a sequence. */
  ratio: Value;
  /** Estimates before their factor, where a KL was asked for, [N]. */
  kl?: Value;
}

/** @throws EspalierError where options contradict or an input is missing that they need */
export function policyLoss(g: GraphBuilder, inputs: PolicyInputs, options: PolicyOptions = {}): PolicyLoss {
  requirePolicy(inputs, options);
  const { membership } = inputs;
  const logProbs = onlyValid(g, membership, inputs.logProbs);
  const spread = inputs.advantages.shape[0] === logProbs.shape[0] && inputs.advantages.shape[0] !== membership.shape[0];
  const constants = g.stopGradient(inputs.advantages);
  const advantages = onlyValid(g, membership, spread ? constants : spreadToTokens(g, membership, constants));
  const ratio = ratioOf(g, { ...inputs, logProbs }, options);
  const policy = corrected(g, inputs, objectiveOf(g, logProbs, ratio, advantages, options), options);
  const kl = options.kl && klOf(g, inputs, logProbs, ratio, options.kl);
  const perToken = onlyValid(g, membership, kl ? g.add(policy, g.scale(kl, options.kl!.beta)) : policy);
  const loss = reduce(g, inputs, perToken, options);
  const positive = options.positiveWeight ? positiveNll(g, inputs, logProbs, options) : undefined;
  return { loss: positive ? g.add(loss, positive) : loss, perToken, ratio, ...(kl && { kl }) };
}

function requirePolicy({ old, reference, sampled, positives }: PolicyInputs, options: PolicyOptions): void {
  const { objective = "clip", onPolicy, kl, correction, reduction, maxLength, dualClip, positiveWeight } = options;
  const needs = (input: Value | undefined, needed: unknown, name: string) =>
    requireOption(
      !needed || input !== undefined,
      `align: ${name}`,
      "log-probabilities, as the options need them",
      "none",
    );
  needs(old, objective !== "reinforce" && !onPolicy, "old");
  needs(reference, kl, "reference");
  needs(sampled, correction || kl?.weight === "sampled", "sampled");
  needs(old, correction && !onPolicy, "old");
  requireOption(!positiveWeight || positives !== undefined, "align: positives", "which answers are right", "none");
  requireOption(
    reduction !== "length" || (maxLength ?? 0) > 0,
    "align: maxLength",
    "the most tokens of an answer",
    maxLength,
  );
  requireOption(dualClip === undefined || dualClip > 1, "align: dualClip", "above 1", dualClip);
  const clips = objective === "clip" || (options.delta === undefined && dualClip === undefined);
  requireOption(clips, "align: delta, dualClip", "the objective clip", objective);
  const ratioless = objective === "cispo" && onPolicy;
  requireOption(!ratioless, "align: cispo", "a ratio to clip", "onPolicy, which makes it 1");
}

function ratioOf(g: GraphBuilder, { logProbs, membership, old }: PolicyInputs, options: PolicyOptions): Value {
  const { objective, level = "token", onPolicy } = options;
  // Without a ratio, reinforce reports that of an update on its own rollout.
  const before = onPolicy || objective === "reinforce" || !old ? logProbs : old;
  const difference = onlyValid(g, membership, g.sub(logProbs, g.stopGradient(before)));
  const log = level === "token" || onPolicy ? difference : meanOverSequence(g, membership, difference, options);
  return g.exp(log);
}

function meanOverSequence(g: GraphBuilder, membership: Value, x: Value, { epsilon }: PolicyOptions): Value {
  if (!epsilon) return spreadToTokens(g, membership, meanPerSequence(g, membership, x));
  const lengths = g.addScalar(sequenceLengths(g, membership), epsilon);
  return spreadToTokens(g, membership, g.div(sumPerSequence(g, membership, x), lengths));
}

function objectiveOf(g: GraphBuilder, logProbs: Value, ratio: Value, advantages: Value, options: PolicyOptions): Value {
  const { objective = "clip", ratioLow = 0.8, ratioHigh = 1.2, delta, dualClip, onPolicy } = options;
  if (objective === "reinforce") return g.neg(g.mul(logProbs, advantages));
  if (objective === "sapo") return g.neg(g.mul(softGate(g, ratio, advantages, options), advantages));
  const clipped = onPolicy ? ratio : g.clip(ratio, ratioLow, ratioHigh);
  if (objective === "cispo") return g.neg(g.mul(g.mul(g.stopGradient(clipped), advantages), logProbs));
  const bounded = delta === undefined ? ratio : g.clip(ratio, 0, delta);
  const loss = g.neg(g.minimum(g.mul(bounded, advantages), g.mul(clipped, advantages)));
  if (dualClip === undefined) return loss;
  const most = g.minimum(loss, g.scale(advantages, -dualClip));
  return g.where(g.less(advantages, g.scalar(0)), most, loss);
}

/** 4 / tau sigmoid(tau (ratio - 1)) */
function softGate(g: GraphBuilder, ratio: Value, advantages: Value, options: PolicyOptions): Value {
  const { tauPositive = 1, tauNegative = 1.05 } = options;
  const gate = (tau: number) => g.scale(g.sigmoid(g.scale(g.addScalar(ratio, -1), tau)), 4 / tau);
  return g.where(g.greater(advantages, g.scalar(0)), gate(tauPositive), gate(tauNegative));
}

function corrected(g: GraphBuilder, inputs: PolicyInputs, loss: Value, options: PolicyOptions): Value {
  const { correction, level = "token", onPolicy } = options;
  if (!correction) return loss;
  const old = onPolicy ? inputs.logProbs : inputs.old!;
  return g.mul(loss, importanceWeights(g, inputs.membership, old, inputs.sampled!, level, correction));
}

function klOf(
  g: GraphBuilder,
  inputs: PolicyInputs,
  logProbs: Value,
  ratio: Value,
  { weight, ...kl }: PolicyKl,
): Value {
  const valid = (x: Value) => onlyValid(g, inputs.membership, x);
  const weights = {
    score: () => g.exp(g.sub(logProbs, g.stopGradient(logProbs))),
    ratio: () => ratio,
    sampled: () => finiteExp(g, g.sub(logProbs, g.stopGradient(valid(inputs.sampled!)))),
  };
  return klEstimate(g, logProbs, valid(inputs.reference!), { ...kl, ...(weight && { weights: weights[weight]() }) });
}

function reduce(g: GraphBuilder, inputs: PolicyInputs, perToken: Value, options: PolicyOptions): Value {
  const { membership, weights } = inputs;
  const { reduction = "sequences", maxLength = 1, epsilon, denominator } = options;
  const safe = (count: Value) => (epsilon ? g.addScalar(count, epsilon) : nonZero(g, count));
  const lengths = sequenceLengths(g, membership); // [S]
  const sums = sumPerSequence(g, membership, perToken);
  const values = reduction === "sequences" ? g.div(sums, safe(lengths)) : sums;
  const weighted = (x: Value) => g.sum(weights ? g.mul(weights, x) : x);
  const sequences = () => (weights ? g.sum(weights) : g.scalar(membership.shape[0]!));
  const count = denominator ?? (reduction === "tokens" ? weighted(lengths) : sequences());
  const divisor = denominator && !epsilon ? denominator : safe(count);
  return g.div(weighted(values), g.scale(divisor, reduction === "length" ? maxLength : 1));
}

/** Mean over the tokens of positive answers, by its factor; 0 where there are none. */
function positiveNll(
  g: GraphBuilder,
  inputs: PolicyInputs,
  logProbs: Value,
  { positiveWeight = 0 }: PolicyOptions,
): Value {
  const { membership, weights, positives } = inputs;
  const counted = g.stopGradient(weights ? g.mul(weights, positives!) : positives!);
  const nll = g.sum(g.mul(counted, sumPerSequence(g, membership, g.neg(logProbs))));
  const tokens = nonZero(g, g.sum(g.mul(counted, sequenceLengths(g, membership))));
  return g.scale(g.div(nll, tokens), positiveWeight);
}

/** Names of TRL's `loss_type`; `gspo` is `grpo` with ratios of sequences. */
export type TrlLossType = "grpo" | "bnpo" | "dr_grpo" | "dapo" | "cispo" | "sapo" | "gspo" | "luspo";

const trlLosses: { readonly [T in TrlLossType]: PolicyOptions } = {
  grpo: { reduction: "sequences" },
  bnpo: { reduction: "tokens" },
  dr_grpo: { reduction: "length" },
  dapo: { reduction: "tokens" },
  cispo: { objective: "cispo", reduction: "tokens" },
  sapo: { objective: "sapo", reduction: "sequences" },
  gspo: { level: "sequence", reduction: "sequences" },
  luspo: { level: "sequence", reduction: "sums" },
};

export interface TrlPolicyOptions
  extends Pick<
    PolicyOptions,
    "level" | "delta" | "tauPositive" | "tauNegative" | "correction" | "maxLength" | "denominator"
  > {
  /** Default to 0.2. For `cispo`, `epsilonHigh` is the bound of the ratio itself (TRL suggests 5) and the lower one is not used. */
  epsilonLow?: number;
  epsilonHigh?: number;
  /** Factor of the KL, k3 without clamps. Defaults to 0. */
  beta?: number;
  /** Multiply the KL by the ratio. Defaults to false. */
  biasCorrectedKl?: boolean;
}

/** TRL's settings of a loss. `bnpo` and `dapo` differ in their denominator: the tokens of this batch, or of all that accumulate. */
export function trlPolicy(type: TrlLossType, options: TrlPolicyOptions = {}): PolicyOptions {
  const { epsilonLow = 0.2, epsilonHigh = 0.2, beta = 0, biasCorrectedKl = false, ...rest } = options;
  const bounds =
    type === "cispo"
      ? { ratioLow: 0, ratioHigh: epsilonHigh }
      : { ratioLow: 1 - epsilonLow, ratioHigh: 1 + epsilonHigh };
  const kl: PolicyKl = { beta, ...(biasCorrectedKl && { weight: "ratio" as const }) };
  return { ...trlLosses[type], ...bounds, ...rest, ...(beta !== 0 && { kl }) };
}

export interface NemoRlPolicyOptions
  extends Pick<PolicyOptions, "level" | "dualClip" | "onPolicy" | "correction" | "positiveWeight" | "denominator"> {
  /** Defaults to `clip`. */
  objective?: "clip" | "cispo" | "reinforce";
  /** Mean over all tokens; false: mean over sequences of means. Defaults to true. */
  tokenLevel?: boolean;
  /** Default to 0.2. */
  clipMin?: number;
  clipMax?: number;
  /** Defaults to a factor of 0.01 for k3, clamped to +-20 and +-10, weighted by `score`. */
  kl?: Partial<PolicyKl>;
}

/** NeMo-RL's settings: 1e-8 in every denominator, a clamped KL with the gradient of its sampling. */
export function nemoRlPolicy(options: NemoRlPolicyOptions = {}): PolicyOptions {
  const { tokenLevel = true, clipMin = 0.2, clipMax = 0.2, kl = {}, ...rest } = options;
  const bounds = { ratioLow: 1 - clipMin, ratioHigh: 1 + clipMax };
  const fullKl = { beta: 0.01, inputClamp: 20, outputClamp: 10, weight: "score" as const, ...kl };
  const reduction = tokenLevel ? ("tokens" as const) : ("sequences" as const);
  return { ...rest, ...bounds, reduction, epsilon: 1e-8, ...(fullKl.beta !== 0 && { kl: fullKl }) };
}
