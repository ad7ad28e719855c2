/**
 * @module Reward-aware preference optimisation (Nemotron-4 340B, arXiv:2406.11704 section 3.3.2; RPO,
 * arXiv:2502.00203): the implicit reward gap beta D is drawn to the gap eta G of a reward model, not to infinity.
 * With p = sigmoid(eta G), the target, and q = sigmoid(beta D), the policy:
 *
 *   bwd_kl  KL(Bernoulli(p) || Bernoulli(q)), slope beta (q - p); the distance of Nemotron-4
 *   fwd_kl  KL(Bernoulli(q) || Bernoulli(p)), slope beta q (1 - q) (beta D - eta G)
 *   sq      (beta D - eta G)^2
 *
 * The names are NVIDIA's; most texts call the first one forward. `bwd_kl` tends to DPO for eta G to infinity. Logarithms
 * are log-sigmoids alone, so that nothing overflows. Departures: none.
 */
import type { GraphBuilder, Value } from "../graph/index.js";
import {
  logRatios,
  type PairReductionOptions,
  type PreferenceLoss,
  type PreferencePairs,
  reducePairs,
} from "./pairs.js";
import { requireOption } from "./tokens.js";

export type RewardDistance = "bwd_kl" | "fwd_kl" | "sq";

export interface RewardAwareOptions extends PairReductionOptions {
  /** Defaults to `bwd_kl`. */
  distance?: RewardDistance;
  /** Factor of the implicit reward gap. Defaults to 0.1. */
  beta?: number;
  /** Factor of the reward model's gap. Defaults to 1. */
  eta?: number;
}

/**
 * @param gap reward of the chosen answer less that of the rejected one, [P]; no gradient reaches it
 * @throws EspalierError for a beta that is not positive
 */
export function rewardAwareLoss(
  g: GraphBuilder,
  pairs: PreferencePairs,
  gap: Value,
  options: RewardAwareOptions = {},
): PreferenceLoss {
  const { distance = "bwd_kl", beta = 0.1, eta = 1 } = options;
  requireOption(beta > 0, "align: beta", "above 0", beta);
  const { chosen, rejected } = logRatios(g, pairs, options.average ?? false);
  const policy = g.scale(g.sub(chosen, rejected), beta);
  const target = g.scale(g.stopGradient(gap), eta);
  return reducePairs(g, pairs, rewardDistance(g, policy, target, distance), beta, options);
}

/** Distance of each gap beta D from its target eta G, [P]. */
export function rewardDistance(g: GraphBuilder, policy: Value, target: Value, distance: RewardDistance): Value {
  if (distance === "sq") return g.square(g.sub(policy, target));
  return distance === "bwd_kl" ? bernoulliKl(g, target, policy) : bernoulliKl(g, policy, target);
}

/** KL of two Bernoulli distributions with logits a and b: s(a) (ls(a) - ls(b)) + s(-a) (ls(-a) - ls(-b)). */
function bernoulliKl(g: GraphBuilder, a: Value, b: Value): Value {
  const side = (x: Value, y: Value) => g.mul(g.sigmoid(x), g.sub(g.logSigmoid(x), g.logSigmoid(y)));
  return g.add(side(a, b), side(g.neg(a), g.neg(b)));
}
