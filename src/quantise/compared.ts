/** @module What a quantised file lost: KL and perplexity against its source, with intervals by sequence. */
import { meanInterval } from "../base/index.js";
import type { Comparison } from "../llamacpp/index.js";
import type { Compared } from "./types.js";

/** The ratio of perplexities is exp of the mean difference of log-likelihoods, which is paired by sequence. */
export function summarise(comparisons: readonly Comparison[]): Compared {
  const each = (value: (own: Comparison) => number) => meanInterval(comparisons.map((own) => value(own) / own.tokens));
  const difference = each(({ nll, referenceNll }) => nll - referenceNll);
  return {
    sequences: comparisons.length,
    tokens: comparisons.reduce((sum, { tokens }) => sum + tokens, 0),
    kl: each(({ kl }) => kl),
    sameTop: each(({ sameTop }) => sameTop),
    perplexity: {
      source: Math.exp(each(({ referenceNll }) => referenceNll).mean),
      file: Math.exp(each(({ nll }) => nll).mean),
      ratio: {
        mean: Math.exp(difference.mean),
        low: Math.exp(difference.low),
        high: Math.exp(difference.high),
        n: difference.n,
      },
    },
  };
}
