import { type PackedBatch, packSamples, type TokenSample } from "../../data/index.js";
import type { Runtime, Tensors } from "../../runtime/index.js";
import { createTokenScorer, type PackedModel, type PackedShape, packedFeeds } from "../../train/index.js";

/** Answers in rows of one static length, each row beginning with the prompt that they share. */
export interface PackedAnswers {
  batches: readonly PackedBatch[];
  /** For each batch, the number of the answer (over all groups) that each of its sequences is. */
  numbers: readonly (readonly number[])[];
}

/** Answers to one prompt, each with a number of its own over all prompts. */
export interface NumberedAnswers {
  prompt: Int32Array;
  answers: readonly { ids: Int32Array; number: number }[];
}

/** Answers that do not fit into one row are cut into several rows, each with the prompt. */
export function packAnswers(groups: readonly NumberedAnswers[], shape: PackedShape): PackedAnswers {
  const samples: { prompt: Int32Array; branches: TokenSample[] }[] = [];
  const numbers: number[][] = [];
  for (const { prompt, answers } of groups) {
    let room = 0;
    for (const { ids, number } of answers) {
      if (room < ids.length) {
        samples.push({ prompt, branches: [] });
        numbers.push([]);
        room = shape.length - prompt.length;
      }
      samples.at(-1)!.branches.push({ ids, learn: new Uint8Array(ids.length).fill(1) });
      numbers.at(-1)!.push(number);
      room -= ids.length;
    }
  }
  const { batches } = packSamples(samples, shape);
  return {
    batches,
    numbers: batches.map(({ sequences }) => sequences.map(({ sample, branch }) => numbers[sample]![branch]!)),
  };
}

/** The log-probabilities of an answer's tokens, and the mean entropy of the distributions that they stand in, in nats. */
export interface AnswerScore {
  logProbs: Float32Array;
  entropy: number;
}

/** Scores by the number of the answer. */
export type AnswerScorer = (packed: PackedAnswers, weights: Tensors, signal?: AbortSignal) => Promise<AnswerScore[]>;

/** The arithmetic is that of a training step on the same packed answers, to the bit. */
export function createAnswerScorer(
  runtime: Runtime,
  name: string,
  model: PackedModel,
  shape: PackedShape,
): AnswerScorer {
  const score = createTokenScorer(runtime, name, model, shape);
  return async ({ batches, numbers }, weights, signal) => {
    const scores: AnswerScore[] = [];
    for (const [i, batch] of batches.entries()) {
      signal?.throwIfAborted();
      const { logProbs, entropy } = await score(weights, packedFeeds(batch, shape).feeds);
      const places = placesOf(batch);
      for (const [sequence, own] of places.entries()) {
        const mean = own.reduce((sum, at) => sum + entropy[at]!, 0) / own.length;
        scores[numbers[i]![sequence]!] = { logProbs: Float32Array.from(own, (at) => logProbs[at]!), entropy: mean };
      }
    }
    return scores;
  };
}

/** For each sequence of a batch the places of its tokens among the targets. */
function placesOf({ rows, sequences }: PackedBatch): number[][] {
  const places: number[][] = sequences.map(() => []);
  let n = 0;
  for (const { targets } of rows) for (const { sequence } of targets) places[sequence]!.push(n++);
  return places;
}

/** Numbers of the answers' tokens as the input of a batch, [N]; 0 where padded. */
export function tokenInput(
  batch: PackedBatch,
  numbers: readonly number[],
  values: readonly Float32Array[],
  targets: number,
): Float32Array {
  const input = new Float32Array(targets);
  for (const [sequence, places] of placesOf(batch).entries()) {
    const own = values[numbers[sequence]!]!;
    for (const [i, at] of places.entries()) input[at] = own[i]!;
  }
  return input;
}
