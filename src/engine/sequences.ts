import type { Engine } from "./engine.js";

/** What a model says about one sequence. */
export interface SequenceScore {
  /** Predicted tokens: all but the first. */
  tokens: number;
  /** Summed negative log-likelihood of the predicted tokens, nats. */
  nll: number;
  /** With a reference: mean KL(reference || model) over all positions, nats a token. */
  kl?: number;
  /** With a reference: its own summed negative log-likelihood. */
  referenceNll?: number;
}

export interface ScoreSequencesOptions {
  /** Compares with this model, which must share the vocabulary. */
  reference?: Engine;
  /** Tokens that run together; more are faster and take more memory. Defaults to 2048. */
  batchTokens?: number;
  signal?: AbortSignal;
  /** Called after each batch with the number of sequences done. */
  onProgress?: (done: number) => void;
}

/** Scores sequences of at least two ids each, several in one run; shorter ones are padded behind their end. */
export async function scoreSequences(
  engine: Engine,
  sequences: readonly ArrayLike<number>[],
  { reference, batchTokens = 2048, signal, onProgress }: ScoreSequencesOptions = {},
): Promise<SequenceScore[]> {
  const scores: SequenceScore[] = [];
  for (const batch of batchesOf(sequences, batchTokens)) {
    scores.push(...(await scoreBatch(engine, reference, batch, signal)));
    onProgress?.(scores.length);
  }
  return scores;
}

async function scoreBatch(
  engine: Engine,
  reference: Engine | undefined,
  batch: readonly ArrayLike<number>[],
  signal: AbortSignal | undefined,
): Promise<SequenceScore[]> {
  const options = signal ? { signal } : {};
  const ids = padded(batch);
  const length = ids[0]!.length;
  const targets = ids.flatMap((row) => [...row.subarray(1), 0]);
  const x = await engine.forward(ids, options);
  if (!reference) {
    const own = await engine.targetLogProbs(x, targets, options);
    return batch.map((row, i) => ({ tokens: row.length - 1, nll: -sum(own, i * length, row.length - 1) }));
  }
  const state = { engine: reference, x: await reference.forward(ids, options) };
  const { kl, targetLogProbs } = await engine.compare(state, x, { targets, ...options });
  return batch.map((row, i) => ({
    tokens: row.length - 1,
    nll: -sum(targetLogProbs!.own, i * length, row.length - 1),
    referenceNll: -sum(targetLogProbs!.reference, i * length, row.length - 1),
    kl: sum(kl, i * length, row.length) / row.length,
  }));
}

function sum(values: Float32Array, start: number, count: number): number {
  let total = 0;
  for (let i = start; i < start + count; i++) total += values[i]!;
  return total;
}

/** Neighbouring sequences together, at most `tokens` of padded rows and at least one sequence a batch. */
function batchesOf(sequences: readonly ArrayLike<number>[], tokens: number): ArrayLike<number>[][] {
  const batches: ArrayLike<number>[][] = [];
  for (const sequence of sequences) {
    const last = batches.at(-1);
    const longest = Math.max(sequence.length, ...(last ?? []).map(({ length }) => length));
    if (last && longest * (last.length + 1) <= tokens) last.push(sequence);
    else batches.push([sequence]);
  }
  return batches;
}

/** Rows of one length: their own when equal, else a multiple of 32, so that few different programs are needed. */
function padded(batch: readonly ArrayLike<number>[]): Int32Array[] {
  const longest = Math.max(...batch.map(({ length }) => length));
  const equal = batch.every(({ length }) => length === longest);
  const length = equal ? longest : 32 * Math.ceil(longest / 32);
  return batch.map((row) => {
    const ids = new Int32Array(length);
    ids.set(row);
    return ids;
  });
}
