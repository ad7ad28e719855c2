/**
 * @module Weights for tokens that another program sampled than the one that trains: w = exp(old - sampled), constant.
 * Where rollouts and training share one engine they are 1 and not needed. NeMo-RL, `ClippedPGLossFn`.
 */
import type { GraphBuilder, Value } from "../graph/index.js";
import { meanPerSequence, onlyValid, spreadToTokens, sumPerSequence } from "./tokens.js";

export interface ImportanceCorrection {
  /**
   * `plain`: w as it is. `tis`: w held within [low, high]. `icepop`: 0 for tokens with w outside. `seq-mask`: 0 for
   * sequences whose geometric mean of w is outside.
   */
  kind: "plain" | "tis" | "icepop" | "seq-mask";
  /** Defaults to 0. */
  low?: number;
  /** Defaults to no bound. */
  high?: number;
}

/**
 * @param old log-probabilities under the policy before its updates, as the trainer computes them, [N]
 * @param sampled those of the program that sampled, [N]
 * @param level `sequence` gives all tokens of a sequence the product of its weights
 * @returns [N], without gradient
 */
export function importanceWeights(
  g: GraphBuilder,
  membership: Value,
  old: Value,
  sampled: Value,
  level: "token" | "sequence",
  { kind, low = 0, high = Number.POSITIVE_INFINITY }: ImportanceCorrection,
): Value {
  const difference = g.stopGradient(onlyValid(g, membership, g.sub(old, sampled)));
  const whole = () => spreadToTokens(g, membership, sumPerSequence(g, membership, difference));
  const w = finiteExp(g, level === "sequence" ? whole() : difference);
  if (kind === "plain") return w;
  if (kind === "tis") return g.clip(w, low, held(high));
  const geometric = () => g.exp(spreadToTokens(g, membership, meanPerSequence(g, membership, difference)));
  return g.where(within(g, kind === "icepop" ? w : geometric(), low, held(high)), w, g.scalar(0));
}

const within = (g: GraphBuilder, x: Value, low: number, high: number) => g.equal(g.clip(x, low, high), x);

const largestFloat = 3.4e38;
const held = (high: number) => Math.min(high, largestFloat);

/** exp(x); 0 where float32 has no room for it, as the reference takes infinite weights for 0. */
export function finiteExp(g: GraphBuilder, x: Value): Value {
  const greatest = Math.log(largestFloat);
  const fits = g.greaterEqual(g.scalar(greatest), x);
  return g.where(fits, g.exp(g.where(fits, x, g.scalar(0))), g.scalar(0));
}
