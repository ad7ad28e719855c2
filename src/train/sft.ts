/**
 * @module Supervised fine-tuning: cross-entropy of the tokens that are to be learnt, averaged over all of them in a step,
 * however they are spread over sequences and passes.
 *
 * Departures: none from the token mean that TRL and NeMo use (a mean of means would weigh short answers more).
 */
import { createPackedBatches, type PackableSample } from "../data/index.js";
import type { Batches } from "./batches.js";
import { fineTuningLoss } from "./losses/tokens.js";
import type { PackedLossOptions, PackedShape } from "./packed.js";
import { packedFeeds } from "./packed-feeds.js";

/** The denominator is the number of targets of the step. */
export const sftLoss: PackedLossOptions["lossOf"] = (g, { logProbs, weights }, denominator) => ({
  loss: fineTuningLoss(g, logProbs, weights, { denominator }),
});

export interface SampleBatches {
  /** For `train`. */
  batches: Batches;
  /** Passes of the gradient in the first epoch. */
  passesPerEpoch: number;
  /** Share of the places that hold tokens, in the first epoch. */
  fill: number;
}

/** Samples, or those of each epoch, packed anew for each epoch in a seeded order. */
export function sampleBatches(
  samples: readonly PackableSample[] | ((epoch: number) => readonly PackableSample[]),
  shape: PackedShape,
  seed: number | string,
): SampleBatches {
  const packed = createPackedBatches(samples, shape, { seed });
  const { steps, fill } = packed.passOf(0);
  return { batches: (index) => packedFeeds(packed.at(index), shape), passesPerEpoch: steps, fill };
}
