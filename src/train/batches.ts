import type { Tensors } from "../runtime/index.js";
import { f32Tensor, i64Tensor } from "../tensor/index.js";

export interface Batch {
  /** Inputs that the loss declares for a batch. */
  feeds: Tensors;
  /** What the loss is averaged over, such as predicted tokens. */
  weight: number;
  /** What an error calls it. Defaults to its number. */
  name?: string;
  /** Tokens read, for the rate that is reported. Defaults to `weight`. */
  tokens?: number;
}

/** The batch of a number: a pure function, so that a run resumes by its step alone. Counts over accumulated batches. */
export type Batches = (index: number) => Batch | Promise<Batch>;

/** Token ids of whole sequences: `count * length` of them. */
export interface TokenBatch {
  ids: ArrayLike<number>;
  batchSize: number;
  length: number;
}

/**
 * For `languageModelLoss`: every token is to predict the next one of its row. The last of a row has nothing to predict
 * and weighs nothing, nor do positions where `chosen` is 0.
 *
 * @param chosen for each id, whether it is to be predicted; defaults to all
 */
export function nextTokenBatch({ ids, batchSize, length }: TokenBatch, chosen?: ArrayLike<number>): Batch {
  const rows = batchSize * length;
  const targets = new BigInt64Array(rows);
  const weights = new Float32Array(rows);
  let weight = 0;
  for (let row = 0; row < rows; row++) {
    if (row % length === length - 1) continue;
    targets[row] = BigInt(ids[row + 1]!);
    weights[row] = chosen && chosen[row + 1] === 0 ? 0 : 1;
    weight += weights[row]!;
  }
  const feeds = {
    ids: i64Tensor([batchSize, length], ids),
    targets: i64Tensor([rows], targets),
    weights: f32Tensor([rows], weights),
  };
  return { feeds, weight, tokens: rows };
}

/** For `modelDistillationLoss`: every position counts, as the parent has an opinion after each token. */
export function distillationBatch({ ids, batchSize, length }: TokenBatch): Batch {
  const rows = batchSize * length;
  const weights = f32Tensor([rows], new Float32Array(rows).fill(1));
  return { feeds: { ids: i64Tensor([batchSize, length], ids), weights }, weight: rows };
}
