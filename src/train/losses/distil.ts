/**
 * @module Distilling a child from its parent: hidden states and next-token distribution (arXiv:2411.19146 section 4.3
 * and appendix F.3, the combination chosen there: cosine + KL, no language-modelling loss).
 *
 *   loss = mean over layers and tokens of (1 - cos(h_child, h_parent)) + mean over tokens of KL(parent || child)
 *
 * Departures: none.
 */
import type { GraphBuilder, Value } from "../../graph/index.js";
import type { LossValues } from "../step.js";

export interface ModelValues {
  /** Residual stream after each block, [N, H]; as many in child and parent. */
  hiddenStates: readonly Value[];
  /** After the final norm, [N, H]. */
  finalHidden: Value;
  /** [V, H] */
  headWeight: Value;
}

export interface DistilOptions {
  /** f32 [N]: weight of each token. */
  weights: Value;
  /** f32 scalar that sums over tokens are divided by. */
  denominator: Value;
}

export function distillationLoss(
  g: GraphBuilder,
  child: ModelValues,
  parent: ModelValues,
  { weights, denominator }: DistilOptions,
): LossValues {
  const teacher = { hidden: g.stopGradient(parent.finalHidden), head: g.stopGradient(parent.headWeight) };
  const student = { hidden: child.finalHidden, head: child.headWeight };
  const kl = g.klDivergence(student, teacher, weights, { denominator });
  const cosine = hiddenDistance(g, child.hiddenStates, parent.hiddenStates, { weights, denominator });
  return { loss: g.add(cosine, kl), parts: { cosine, kl } };
}

/** Mean over layers, and weighted mean over tokens, of 1 - cos; no gradient reaches the parent. */
export function hiddenDistance(
  g: GraphBuilder,
  child: readonly Value[],
  parent: readonly Value[],
  { weights, denominator }: DistilOptions,
): Value {
  const share = g.div(weights, denominator); // [N]
  const distances = child.map((h, layer) => g.sum(g.mul(cosineDistance(g, h, g.stopGradient(parent[layer]!)), share)));
  return g.scale(
    distances.reduce((sum, distance) => g.add(sum, distance)),
    1 / child.length,
  );
}

/** Keeps the quotient finite for rows of zeros, far below the square of any real row's length. */
const smallestSquare = 1e-30;

/** 1 - cos of the angle between rows, [N, H] x [N, H] -> [N]. */
export function cosineDistance(g: GraphBuilder, a: Value, b: Value): Value {
  const dot = (x: Value, y: Value) => g.sum(g.mul(x, y), { axes: [1] });
  const lengths = g.mul(g.sqrt(g.addScalar(dot(a, a), smallestSquare)), g.sqrt(g.addScalar(dot(b, b), smallestSquare)));
  return g.addScalar(g.neg(g.div(dot(a, b), lengths)), 1);
}
