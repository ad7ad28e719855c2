/**
 * @module Distillation from logits that exist: divergences of next-token distributions, for each position. Logits are
 * [N, V], or [N, K] where a teacher's K best tokens are what was kept. See `g.klDivergence` for a head whose logits are
 * never held whole.
 *
 * What reductions and temperatures mean in other libraries stands at each function; none multiplies by the square of
 * the temperature by itself.
 */
import { EspalierError } from "../../base/index.js";
import type { GraphBuilder, Value } from "../../graph/index.js";
import { i64Tensor } from "../../tensor/index.js";

export interface JsdOptions {
  /** 0: KL(teacher || student), forward. 1: KL(student || teacher), reverse. Defaults to 0.5. */
  beta?: number;
  /** Both sets of logits are divided by it. Defaults to 1. */
  temperature?: number;
}

/**
 * Generalised Jensen-Shannon divergence (GKD, arXiv:2306.13649 eq. 1) with m = (1 - beta) student + beta teacher:
 * beta KL(teacher || m) + (1 - beta) KL(student || m). Hinton's loss is beta 0 times the temperature's square.
 *
 * @param student [N, V]
 * @param teacher [N, V], no gradient reaches it
 * @returns [N]
 */
export function jensenShannon(g: GraphBuilder, student: Value, teacher: Value, options: JsdOptions = {}): Value {
  const { beta = 0.5, temperature = 1 } = options;
  requireRange("beta", beta, 0, 1);
  const s = g.logSoftmax(g.scale(student, 1 / temperature));
  const t = g.stopGradient(g.logSoftmax(g.scale(teacher, 1 / temperature)));
  return between(g, s, t, beta);
}

/** The same of log-probabilities. */
function between(g: GraphBuilder, s: Value, t: Value, beta: number): Value {
  if (beta === 0) return kl(g, t, s);
  if (beta === 1) return kl(g, s, t);
  const mixture = logAddExp(g, g.addScalar(s, Math.log1p(-beta)), g.addScalar(t, Math.log(beta)));
  return g.add(g.scale(kl(g, t, mixture), beta), g.scale(kl(g, s, mixture), 1 - beta));
}

/** Directions of a divergence; `js`: Jensen and Shannon, `mixed`: a sum of forward and reverse KL. */
export type Divergence = "forward" | "reverse" | "js" | "mixed";

export interface DivergenceOptions {
  /** Defaults to `forward`, KL(teacher || student). */
  divergence?: Divergence;
  /** Of `js` its beta, of `mixed` the share of the forward KL. Defaults to 0.5. */
  mix?: number;
  /** Both sets of logits are divided by it; the result is multiplied by its square (Hinton, arXiv:1503.02531 section 2). Defaults to 1. */
  temperature?: number;
}

/** One of the divergences of whole distributions, logits [N, V] -> [N]. */
export function logitDivergence(g: GraphBuilder, student: Value, teacher: Value, options: DivergenceOptions): Value {
  const { temperature = 1 } = options;
  const s = g.logSoftmax(g.scale(student, 1 / temperature));
  const t = g.stopGradient(g.logSoftmax(g.scale(teacher, 1 / temperature)));
  return g.scale(chosen(g, s, t, options), temperature ** 2);
}

/** Probability of all other tokens is taken for this at least: what f32 tells apart from 1. */
const leastRest = 1e-6;

/**
 * The same from a teacher's K best tokens: distributions over these and over "any other token", whose probability is what
 * the K leave. By the data-processing inequality it is never above the divergence of the whole distributions.
 *
 * @param student logits [N, V]
 * @param teacher log-probabilities among all tokens, at the temperature, [N, K]
 * @param ids i64 [N, K]
 * @returns [N]
 */
export function cachedDivergence(
  g: GraphBuilder,
  student: Value,
  teacher: Value,
  ids: Value,
  options: DivergenceOptions,
): Value {
  const { temperature = 1 } = options;
  const all = g.logSoftmax(g.scale(student, 1 / temperature));
  const s = withRest(g, takeIds(g, all, ids));
  return g.scale(chosen(g, s, g.stopGradient(withRest(g, teacher)), options), temperature ** 2);
}

/** log-probabilities [N, K] -> [N, K + 1] */
function withRest(g: GraphBuilder, logProbs: Value): Value {
  const rest = g.addScalar(g.neg(g.sum(g.exp(logProbs), { axes: [1], keepDims: true })), 1);
  return g.concat([logProbs, g.log(g.clip(rest, leastRest, 1))], 1);
}

function chosen(g: GraphBuilder, s: Value, t: Value, { divergence = "forward", mix = 0.5 }: DivergenceOptions): Value {
  requireRange("mix", mix, 0, 1);
  return divergence === "js" ? between(g, s, t, mix) : directed(g, s, t, divergence, mix);
}

/** Soft cross-entropy, -sum teacher log student: forward KL plus the teacher's entropy, with the same gradient. [N, V] -> [N] */
export function softCrossEntropy(g: GraphBuilder, student: Value, teacher: Value): Value {
  const p = g.stopGradient(g.softmax(teacher));
  return g.neg(g.sum(g.mul(p, g.logSoftmax(student)), { axes: [1] }));
}

export type KlDirection = "forward" | "reverse" | "mixed";

export interface TopKOptions {
  /** `forward`: KL(teacher || student). Defaults to `forward`. */
  direction?: KlDirection;
  /** Share of the forward KL in `mixed`. Defaults to 0.5. */
  mix?: number;
  /**
   * Tokens outside the teacher's K best. `renormalise`: both distributions are those over the K tokens, and what the
   * student gives to others is not seen (NeMo-Aligner; NeMo-RL's default). `penalise`: the student's is the full one, and
   * the teacher's log-probability outside is -100 (NeMo-RL's `zero_outside_topk`). Defaults to `renormalise`.
   */
  outside?: "renormalise" | "penalise";
}

/** Log-probability of a teacher for tokens that it was not asked about. */
const outsideLogProb = -100;

/**
 * Divergence from the K best tokens of a teacher.
 *
 * @param student logits [N, V]
 * @param teacher logits or log-probabilities of its best tokens, [N, K]; no gradient reaches them
 * @param ids i64 [N, K]
 * @returns [N]
 */
export function topKDivergence(
  g: GraphBuilder,
  student: Value,
  teacher: Value,
  ids: Value,
  options: TopKOptions = {},
): Value {
  const { direction = "forward", mix = 0.5, outside = "renormalise" } = options;
  requireRange("mix", mix, 0, 1);
  const t = g.stopGradient(g.logSoftmax(teacher));
  if (outside === "renormalise") return directed(g, g.logSoftmax(takeIds(g, student, ids)), t, direction, mix);
  const all = g.logSoftmax(student); // [N, V]
  const s = takeIds(g, all, ids);
  const within = directed(g, s, t, direction, mix);
  if (direction === "forward") return within;
  const rest = restPenalty(g, all, s);
  return g.add(within, direction === "mixed" ? g.scale(rest, 1 - mix) : rest);
}

/** The part of the reverse KL outside the K tokens: sum p log p there + 100 times the probability there. */
function restPenalty(g: GraphBuilder, all: Value, within: Value): Value {
  const negativeEntropy = (x: Value) => g.sum(g.mul(g.exp(x), x), { axes: [1] });
  const entropyRest = g.sub(negativeEntropy(all), negativeEntropy(within));
  const mass = g.sum(g.exp(within), { axes: [1] });
  return g.sub(entropyRest, g.scale(g.addScalar(g.neg(mass), 1), outsideLogProb));
}

function directed(g: GraphBuilder, s: Value, t: Value, direction: KlDirection, mix: number): Value {
  if (direction === "forward") return kl(g, t, s);
  if (direction === "reverse") return kl(g, s, t);
  return g.add(g.scale(kl(g, t, s), mix), g.scale(kl(g, s, t), 1 - mix));
}

/** x [N, V] at ids i64 [N, K]: [N, K]. */
export function takeIds(g: GraphBuilder, x: Value, ids: Value): Value {
  const [rows, width] = x.shape as [number, number];
  const offsets = i64Tensor(
    [rows, 1],
    Array.from({ length: rows }, (_, n) => n * width),
  );
  return g.gather(g.reshape(x, [rows * width]), g.add(ids, g.constant(offsets)));
}

/** KL of log-probabilities a and b over the last axis. */
function kl(g: GraphBuilder, a: Value, b: Value): Value {
  return g.sum(g.mul(g.exp(a), g.sub(a, b)), { axes: [1] });
}

/** log(exp a + exp b) */
function logAddExp(g: GraphBuilder, a: Value, b: Value): Value {
  return g.add(g.maximum(a, b), g.softplus(g.neg(g.abs(g.sub(a, b)))));
}

export interface MeanOptions {
  /** f32 scalar that the weighted sum is divided by: the weights of the whole batch. Defaults to those of this one, or 1. */
  denominator?: Value;
  /** Added to the denominator (NeMo-RL: 1e-8). Defaults to 0. */
  epsilon?: number;
}

/** sum(weights x) / denominator, for x and weights [N]; positions with weight 0 never reach the sum. */
export function weightedMean(g: GraphBuilder, x: Value, weights: Value, options: MeanOptions = {}): Value {
  const { denominator, epsilon = 0 } = options;
  const seen = g.where(g.equal(weights, g.scalar(0)), g.scalar(0), x);
  const total = g.sum(weights);
  const count = denominator ?? (epsilon ? total : g.where(g.equal(total, g.scalar(0)), g.scalar(1), total));
  return g.div(g.sum(g.mul(weights, seen)), g.addScalar(count, epsilon));
}

function requireRange(option: string, value: number, low: number, high: number): void {
  if (value >= low && value <= high) return;
  throw new EspalierError({ where: `distillation: ${option}`, expected: `${low} to ${high}`, found: `${value}` });
}
