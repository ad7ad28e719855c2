/** @module How far files of one model are from a reference: log-likelihoods and KL on the same sequences. */
import { type Evaluation, openEvaluation } from "./evaluation.js";
import type { Comparison, Methods } from "./protocol.js";

/** Tokens evaluated together: 33 MB of logits for a vocabulary of 128,256. */
export const batchSize = 64;

export async function compareFiles(
  { reference, ggufs, sequences }: Methods["compare"]["params"],
  threads: number,
  send: (part: Methods["compare"]["part"]) => void,
): Promise<Methods["compare"]["result"]> {
  const contextSize = Math.max(...sequences.map((ids) => ids.length));
  const models: Evaluation[] = [];
  try {
    for (const gguf of [reference, ...ggufs])
      models.push(await openEvaluation(gguf, { contextSize, batchSize, threads }));
    const results: Comparison[][] = ggufs.map(() => []);
    for (const [done, ids] of sequences.entries()) {
      const truth = evaluateRows(models[0]!, ids);
      for (const [i, own] of results.entries()) own.push(compareSequence(models[i + 1]!, ids, truth));
      send({ done: done + 1, total: sequences.length });
      await new Promise((resolve) => setImmediate(resolve));
    }
    return results;
  } finally {
    for (const model of models) model.dispose();
  }
}

/** Logits of a position, with what turns them into log-probabilities, and which token is likeliest. */
export interface Row {
  logits: Float32Array;
  /** Logarithm of the sum of the exponentials of the logits. */
  logSum: number;
  top: number;
}

/** The rows that predict a token: all but the last. */
export function evaluateRows(model: Evaluation, ids: readonly number[]): Row[] {
  const rows: Row[] = [];
  model.evaluate(ids, (position, logits) => {
    if (position + 1 < ids.length) rows.push(rowOf(logits.slice()));
  });
  return rows;
}

function rowOf(logits: Float32Array): Row {
  let top = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[top]!) top = i;
  const highest = logits[top]!;
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i]! - highest);
  return { logits, logSum: highest + Math.log(sum), top };
}

export function compareSequence(model: Evaluation, ids: readonly number[], truth: readonly Row[]): Comparison {
  const sums: Comparison = { tokens: truth.length, referenceNll: 0, nll: 0, kl: 0, sameTop: 0 };
  model.evaluate(ids, (position, logits) => {
    const reference = truth[position];
    if (!reference) return;
    const row = rowOf(logits);
    const next = ids[position + 1]!;
    sums.referenceNll += reference.logSum - reference.logits[next]!;
    sums.nll += row.logSum - logits[next]!;
    sums.kl += divergence(reference, row);
    if (row.top === reference.top) sums.sameTop++;
  });
  return sums;
}

/** KL(p || q) = sum of p (ln p - ln q). */
function divergence(p: Row, q: Row): number {
  let sum = 0;
  for (let i = 0; i < p.logits.length; i++) {
    const logP = p.logits[i]! - p.logSum;
    sum += Math.exp(logP) * (logP - (q.logits[i]! - q.logSum));
  }
  return sum;
}
