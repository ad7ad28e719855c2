import { EspalierError } from "../base/index.js";
import { createOrder } from "./blend.js";
import { type Sequences, sequenceAt } from "./windows.js";

export interface Batch {
  /** Number of this batch since the beginning. */
  step: number;
  /** `batchSize * length` ids. */
  ids: Int32Array;
  batchSize: number;
  /** Tokens of a sequence. */
  length: number;
  /** Which sequences these are. */
  indices: readonly number[];
}

export interface Batches {
  /** The batch of one step: a function of seed and step alone, so that a run resumes by its step number. */
  at(step: number): Batch;
  /** Steps until every sequence has come once, rounded up. */
  readonly stepsPerEpoch: number;
}

export interface BatchOptions {
  batchSize: number;
  seed: number | string;
  /** New order for every pass. Defaults to true. */
  shuffle?: boolean;
}

/**
 * Sequences in seeded order, every one once per pass. A batch that runs over the end of a pass takes the rest from the
 * next one: no sequence is dropped and every batch is full.
 */
export function createBatches(sequences: Sequences, { batchSize, seed, shuffle = true }: BatchOptions): Batches {
  const { count, length, name } = sequences;
  if (count === 0) throw new EspalierError({ where: name, expected: "at least one sequence", found: "none" });
  const orderOf = createOrder(count, seed, shuffle);

  return {
    stepsPerEpoch: Math.ceil(count / batchSize),
    at(step) {
      const indices = Array.from({ length: batchSize }, (_, i) => {
        const position = step * batchSize + i;
        return orderOf(Math.floor(position / count))[position % count]!;
      });
      const ids = new Int32Array(batchSize * length);
      indices.forEach((index, i) => {
        ids.set(sequenceAt(sequences, index), i * length);
      });
      return { step, ids, batchSize, length, indices };
    },
  };
}
