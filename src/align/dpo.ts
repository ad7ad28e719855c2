/**
 * @module Losses over preference pairs. With R the log-ratio policy / reference of an answer summed over its tokens, c
 * chosen, l rejected, D = R_c - R_l and ls(x) = log sigmoid(x) = -softplus(-x), each entry of the table gives its
 * loss per pair; papers beside them. All are finite, with finite gradients, for |D| up to 1e4 at least.
 *
 * Departures: exponents above 80 count as 80 in the divergences that take an exponential of the log-ratio (float32
 * overflows at 88). Equal values keep their order in `aot`, where PyTorch's sort promises none.
 */
import type { GraphBuilder, Value } from "../graph/index.js";
import {
  conventions,
  logRatios,
  type PairReductionOptions,
  type PreferenceLoss,
  type PreferencePairs,
  perToken,
  reducePairs,
} from "./pairs.js";
import { countedFirst, sortAscending } from "./sort.js";
import { requireOption } from "./tokens.js";

/** Function of a log-ratio R that takes its place (f-DPO, arXiv:2309.16240). */
export type Divergence = "reverse_kl" | "forward_kl" | "js_divergence" | "alpha_divergence";

export interface PreferenceOptions extends PairReductionOptions {
  /** Defaults to `sigmoid` (DPO). */
  kind?: PreferenceKind;
  /** Strength of the tie to the reference; the regulariser tau of IPO. Defaults to 0.1. */
  beta?: number;
  /** Share of pairs taken for mislabelled, in `cdpo`, `robust`, `exo_pair`, `aot` and `aot_unpaired`. Defaults to 0. */
  labelSmoothing?: number;
  /** Temperature of the blend in `discopop`. Defaults to 0.05. */
  discopopTau?: number;
  /** Defaults to `reverse_kl`. */
  divergence?: Divergence;
  /** Exponent of `alpha_divergence`. Defaults to 0.5. */
  alpha?: number;
}

interface Scores {
  g: GraphBuilder;
  pairs: PreferencePairs;
  /** Scores of both answers and their difference, [P]. */
  c: Value;
  l: Value;
  d: Value;
  beta: number;
  smoothing: number;
  options: PreferenceOptions;
}

type PerPair = (scores: Scores) => Value;

/** -(1 - e) ls(x) - e ls(-x) */
function smoothed({ g, smoothing }: Scores, x: Value): Value {
  const right = g.softplus(g.neg(x));
  return smoothing === 0 ? right : g.add(g.scale(right, 1 - smoothing), g.scale(g.softplus(x), smoothing));
}

const nll = (g: GraphBuilder, x: Value) => g.softplus(g.neg(x));

const kinds = {
  /** DPO (arXiv:2305.18290 eq. 7): -ls(beta D) */
  sigmoid: ({ g, d, beta }) => nll(g, g.scale(d, beta)),
  /** DPO on log-ratios for each token: -ls(beta (R_c / L_c - R_l / L_l)) */
  sigmoid_norm: ({ g, pairs, c, l, beta }) => {
    const mean = perToken(g, pairs, { chosen: c, rejected: l });
    return nll(g, g.scale(g.sub(mean.chosen, mean.rejected), beta));
  },
  /** Conservative DPO: -(1 - e) ls(beta D) - e ls(-beta D) */
  cdpo: (s) => smoothed(s, s.g.scale(s.d, s.beta)),
  /** arXiv:2403.00409: (-(1 - e) ls(beta D) + e ls(-beta D)) / (1 - 2 e) */
  robust: ({ g, d, beta, smoothing }) => {
    requireOption(smoothing < 0.5, "align: labelSmoothing of robust", "less than 0.5", smoothing);
    const x = g.scale(d, beta);
    const difference = g.sub(g.scale(nll(g, x), 1 - smoothing), g.scale(g.softplus(x), smoothing));
    return g.scale(difference, 1 / (1 - 2 * smoothing));
  },
  /** SLiC (arXiv:2305.10425): max(0, 1 - beta D) */
  hinge: ({ g, d, beta }) => g.relu(g.addScalar(g.scale(d, -beta), 1)),
  /** arXiv:2310.12036 eq. 17: (D - 1 / (2 beta))^2, on means over tokens (TRL) or sums (Aligner, OpenRLHF). */
  ipo: ({ g, pairs, c, l, beta, options }) => {
    const byToken = conventions[options.compat ?? "trl"].ipo === "mean" && !options.average;
    const scores = byToken ? perToken(g, pairs, { chosen: c, rejected: l }) : { chosen: c, rejected: l };
    return g.square(g.addScalar(g.sub(scores.chosen, scores.rejected), -1 / (2 * beta)));
  },
  /** arXiv:2402.00856 eq. 16, q = sigmoid(beta D): q (log q - log(1 - e)) + (1 - q) (log(1 - q) - log e) */
  exo_pair: ({ g, d, beta, smoothing: e }) => {
    requireOption(e > 0 && e < 1, "align: labelSmoothing of exo_pair", "between 0 and 1, such as 1e-3", e);
    const x = g.scale(d, beta);
    const side = (y: Value, share: number) => g.mul(g.sigmoid(y), g.addScalar(g.logSigmoid(y), -Math.log(share)));
    return g.add(side(x, 1 - e), side(g.neg(x), e));
  },
  /** arXiv:2402.05369: -ls(beta R_c) - ls(-beta R_c) / 2 - ls(-beta R_l) / 2 */
  nca_pair: ({ g, c, l, beta }) => {
    const [x, y] = [g.scale(c, beta), g.scale(l, beta)];
    return g.add(nll(g, x), g.scale(g.add(g.softplus(x), g.softplus(y)), 0.5));
  },
  /** arXiv:2404.04656 without its running mean: -ls(beta R_c) - ls(-beta R_l) */
  bco_pair: ({ g, c, l, beta }) => g.add(nll(g, g.scale(c, beta)), g.softplus(g.scale(l, beta))),
  /** arXiv:2405.00675: (R_c - 1 / (2 beta))^2 + (R_l + 1 / (2 beta))^2 */
  sppo_hard: ({ g, c, l, beta }) =>
    g.add(g.square(g.addScalar(c, -1 / (2 * beta))), g.square(g.addScalar(l, 1 / (2 * beta)))),
  /** arXiv:2406.05882: pairs of equal rank among sort(pi_c - pi_l) and sort(ref_c - ref_l) */
  aot: (s) => {
    const { chosen, rejected, refChosen, refRejected } = s.pairs;
    return transported(s, s.g.sub(chosen, rejected), s.g.stopGradient(s.g.sub(refChosen, refRejected)));
  },
  /** arXiv:2406.05882: pairs of equal rank among sort(R_c) and sort(R_l) */
  aot_unpaired: (s) => transported(s, s.c, s.l),
  /** arXiv:2408.06266: (1 - sigmoid(beta R_c)) + sigmoid(beta R_l) */
  apo_zero: ({ g, c, l, beta }) => g.add(g.sigmoid(g.scale(c, -beta)), g.sigmoid(g.scale(l, beta))),
  /** arXiv:2408.06266: sigmoid(beta R_c) + (1 - sigmoid(beta D)) */
  apo_down: ({ g, c, d, beta }) => g.add(g.sigmoid(g.scale(c, beta)), g.sigmoid(g.scale(d, -beta))),
  /** arXiv:2406.08414, x = beta D, m = sigmoid(x / tau): -ls(x) (1 - m) + exp(-x) m, as exp(ls(x / tau) - x). */
  discopop: ({ g, d, beta, options: { discopopTau = 0.05 } }) => {
    requireOption(discopopTau > 0 && discopopTau <= 1, "align: discopopTau", "above 0, at most 1", discopopTau);
    const x = g.scale(d, beta);
    const blend = g.scale(x, 1 / discopopTau);
    return g.add(g.mul(nll(g, x), g.sigmoid(g.neg(blend))), g.exp(g.sub(g.logSigmoid(blend), x)));
  },
} satisfies Record<string, PerPair>;

export type PreferenceKind = keyof typeof kinds;
export const preferenceKinds = Object.keys(kinds) as readonly PreferenceKind[];

/** Losses that read `labelSmoothing`, and those that sort the batch. */
const smoothing: readonly PreferenceKind[] = ["cdpo", "robust", "exo_pair", "aot", "aot_unpaired"];
const sorting: readonly PreferenceKind[] = ["aot", "aot_unpaired"];

/**
 * A loss over preference pairs, averaged over the pairs that count.
 *
 * `perPair` of the losses that sort (`aot`, `aot_unpaired`) is in the order of ranks; their weights are 0 or 1.
 *
 * @throws EspalierError where options contradict, or lengths are missing that the loss divides by
 */
export function preferenceLoss(
  g: GraphBuilder,
  pairs: PreferencePairs,
  options: PreferenceOptions = {},
): PreferenceLoss {
  const { kind = "sigmoid", beta = 0.1, labelSmoothing = 0 } = options;
  requirePreference(kind, beta, options);
  const ratios = logRatios(g, pairs, options.average ?? false);
  const [c, l] = [divergenceScore(g, ratios.chosen, options), divergenceScore(g, ratios.rejected, options)];
  const perPair = (kinds[kind] as PerPair)({
    g,
    pairs,
    c,
    l,
    d: g.sub(c, l),
    beta,
    smoothing: labelSmoothing,
    options,
  });
  const sorted = sorting.includes(kind) && options.weights;
  return reducePairs(g, pairs, perPair, beta, options, sorted ? countedFirst(g, sorted) : options.weights);
}

function requirePreference(kind: PreferenceKind, beta: number, options: PreferenceOptions): void {
  const { labelSmoothing = 0, divergence = "reverse_kl", average = false } = options;
  const where = `align: ${kind}`;
  requireOption(kind in kinds, "align: kind", preferenceKinds.join(", "), kind);
  requireOption(beta > 0, `${where}, beta`, "above 0", beta);
  requireOption(labelSmoothing >= 0 && labelSmoothing < 1, `${where}, labelSmoothing`, "0 to 1", labelSmoothing);
  const smooths = labelSmoothing === 0 || smoothing.includes(kind);
  requireOption(smooths, `${where}, labelSmoothing`, "0", labelSmoothing, "cdpo is sigmoid with label smoothing");
  requireOption(
    kind !== "aot" || (divergence === "reverse_kl" && !average),
    where,
    "log-probabilities as they are",
    "a divergence or averages of them",
    "aot_unpaired takes both",
  );
  const twice = kind === "sigmoid_norm" && average;
  requireOption(!twice, where, "sums of log-ratios, which it averages itself", "averages");
}

/** Pairs of equal rank, compared as in `cdpo`. */
function transported(s: Scores, a: Value, b: Value): Value {
  const { weights } = s.options;
  const difference = s.g.sub(sortAscending(s.g, a, weights), sortAscending(s.g, b, weights));
  return smoothed(s, s.g.scale(difference, s.beta));
}

/** Greatest exponent whose power float32 holds, with room for products. */
const greatestExponent = 80;

/** R, -exp(-R), ls(R), exp((alpha - 1) R) / (alpha - 1); the last tends to R (plus a constant) for alpha to 1. */
function divergenceScore(g: GraphBuilder, ratio: Value, { divergence = "reverse_kl", alpha = 0.5 }: PreferenceOptions) {
  const power = (exponent: number) => g.exp(g.minimum(g.scale(ratio, exponent), g.scalar(greatestExponent)));
  switch (divergence) {
    case "reverse_kl":
      return ratio;
    case "forward_kl":
      return g.neg(power(-1));
    case "js_divergence":
      return g.logSigmoid(ratio);
    case "alpha_divergence":
      return alpha === 1 ? ratio : g.scale(power(alpha - 1), 1 / (alpha - 1));
  }
}
