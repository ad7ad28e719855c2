/**
 * @module Supervised fine-tuning: cross-entropy of the tokens that are to be learnt, averaged over all of them in a step,
 * however they are spread over sequences and passes (as TRL and NeMo do), or over sequences.
 */
import { createPackedBatches, type PackableSample } from "../data/index.js";
import type { Batches } from "./batches.js";
import { fineTuningLoss } from "./losses/tokens.js";
import type { PackedLossOptions, PackedShape } from "./packed.js";
import { packedFeeds } from "./packed-feeds.js";

/**
 * `tokens`: every learnt token counts alike. `sequences`: every answer does, whatever its length, so that short ones are
 * not drowned by long ones.
 */
export type SftAverage = "tokens" | "sequences";

/** The denominator is the number of targets of the step, or of its sequences. */
export function sftLoss(average: SftAverage = "tokens"): PackedLossOptions["lossOf"] {
  return (g, { logProbs, weights, membership }, denominator) => ({
    loss: fineTuningLoss(g, logProbs, weights, { denominator, ...(average === "sequences" && { membership }) }),
  });
}

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
  { seed, average = "tokens" }: { seed: number | string; average?: SftAverage },
): SampleBatches {
  const packed = createPackedBatches(samples, shape, { seed });
  const { steps, fill } = packed.passOf(0);
  const batches: Batches = (index) => {
    const batch = packed.at(index);
    const feeds = packedFeeds(batch, shape);
    return average === "tokens" ? feeds : { ...feeds, weight: batch.sequences.length };
  };
  return { batches, passesPerEpoch: steps, fill };
}
