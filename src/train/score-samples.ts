import { type PackableSample, packSamples } from "../data/index.js";
import type { Runtime, Tensors } from "../runtime/index.js";
import { createTokenScorer, type PackedModel, type PackedShape } from "./packed.js";
import { packedFeeds } from "./packed-feeds.js";

/** What a model gives to one sequence of samples. */
export interface SequenceScore {
  /** Number of the sample, and of its branch (0 of a plain one). */
  sample: number;
  branch: number;
  /** Log-probability of each learnt token, in nats, in their order. */
  logProbs: Float32Array;
  /** Mean entropy of the distributions that they were drawn from, in nats. */
  entropy: number;
}

/** Scores of all samples under the weights, in the order of samples and branches. */
export type SampleScorer = (samples: readonly PackableSample[], weights: Tensors) => Promise<SequenceScore[]>;

/** The arithmetic is that of a training step of the same shape, to the bit. */
export function createSampleScorer(
  runtime: Runtime,
  name: string,
  model: PackedModel,
  shape: PackedShape,
  signal?: AbortSignal,
): SampleScorer {
  const score = createTokenScorer(runtime, name, model, shape);
  return async (samples, weights) => {
    const scores: SequenceScore[] = [];
    for (const batch of packSamples(samples, shape).batches) {
      signal?.throwIfAborted();
      const { logProbs, entropy } = await score(weights, packedFeeds(batch, shape).feeds);
      const places: number[][] = batch.sequences.map(() => []);
      let n = 0;
      for (const { targets } of batch.rows) for (const { sequence } of targets) places[sequence]!.push(n++);
      for (const [i, { sample, branch }] of batch.sequences.entries()) {
        const own = places[i]!;
        const mean = own.reduce((sum, at) => sum + entropy[at]!, 0) / own.length;
        scores.push({ sample, branch, logProbs: Float32Array.from(own, (at) => logProbs[at]!), entropy: mean });
      }
    }
    return scores.sort((a, b) => a.sample - b.sample || a.branch - b.branch);
  };
}
