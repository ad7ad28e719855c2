import { type PackableSample, type PackedBatch, packSamples, type TokenSample } from "../data/index.js";
import type { ModelConfig } from "../models/index.js";
import type { Runtime, Tensors } from "../runtime/index.js";
import { createTokenScorer, type PackedModel, type PackedShape } from "./packed.js";
import { packedKlGraph } from "./packed-distil.js";
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
      const places = placesOf(batch);
      for (const [i, { sample, branch }] of batch.sequences.entries()) {
        const own = places[i]!;
        const mean = own.reduce((sum, at) => sum + entropy[at]!, 0) / own.length;
        scores.push({ sample, branch, logProbs: Float32Array.from(own, (at) => logProbs[at]!), entropy: mean });
      }
    }
    return scores.sort((a, b) => a.sample - b.sample || a.branch - b.branch);
  };
}

/** Of each sequence of a batch, the numbers of its targets. */
function placesOf({ sequences, rows }: PackedBatch): number[][] {
  const places: number[][] = sequences.map(() => []);
  let n = 0;
  for (const { targets } of rows) for (const { sequence } of targets) places[sequence]!.push(n++);
  return places;
}

/** Mean KL(teacher || student) of each plain sample, nats a token. Weights are those of both: the teacher's as `parent/NAME`. */
export type KlScorer = (samples: readonly TokenSample[], weights: Tensors) => Promise<number[]>;

export function createKlScorer(
  runtime: Runtime,
  name: string,
  models: { student: Omit<PackedModel, "temperature">; teacher: ModelConfig },
  shape: PackedShape,
  signal?: AbortSignal,
): KlScorer {
  const compiling = runtime.compile(packedKlGraph(name, models.student, models.teacher, shape));
  return async (samples, weights) => {
    const program = await compiling;
    const means = new Array<number>(samples.length).fill(0);
    for (const batch of packSamples(samples, shape).batches) {
      signal?.throwIfAborted();
      const all: Tensors = { ...weights, ...packedFeeds(batch, shape).feeds };
      const needed = program.inputs.filter((input) => all[input.name]).map((input) => [input.name, all[input.name]!]);
      const kl = (await program.run(Object.fromEntries(needed))).kl!.data as Float32Array;
      placesOf(batch).forEach((own, i) => {
        means[batch.sequences[i]!.sample] = own.reduce((sum, at) => sum + kl[at]!, 0) / own.length;
      });
    }
    return means;
  };
}
