import { EspalierError, mean } from "../base/index.js";
import type { Engine } from "../engine/index.js";
import type { LlamaCpp } from "../llamacpp/index.js";

/** Largest difference of a logit that an export may show, by type; of others the KL is bounded. */
export const logitTolerance: Partial<Record<string, number>> = { f32: 1e-3, f16: 5e-2 };

/**
 * Largest mean KL of any export, nats a token. Quantised weights, and activations that llama.cpp rounds to BF16, move
 * single logits by several units; a garbled file has a KL of whole nats.
 */
export const klTolerance = 0.1;

export interface VerifyGgufOptions {
  llama: LlamaCpp;
  path: string;
  type: string;
  /** The model that was written. */
  engine: Engine;
  sequences: readonly Int32Array[];
  /** What to call it in a message. Defaults to the path. */
  where?: string;
  signal?: AbortSignal;
}

export interface Verified {
  maxAbsLogitDifference: number;
  /** Mean KL of llama.cpp's next-token distributions from ours, nats a token. */
  kl: number;
}

/**
 * Loads a GGUF in llama.cpp (f32 cache, no flash attention) and compares its logits with ours.
 * @throws EspalierError beyond the tolerance of its type
 */
export async function verifyGguf({
  llama,
  path,
  type,
  engine,
  sequences,
  where = path,
  signal,
}: VerifyGgufOptions): Promise<Verified> {
  const vocabulary = engine.config.vocabSize;
  const own: Float32Array[] = [];
  for (const ids of sequences) own.push(await logitsOf(engine, ids));
  let maxAbsLogitDifference = 0;
  const divergences: number[] = [];
  await llama.eachLogits(
    path,
    sequences.map((ids) => [...ids]),
    (sequence, position, row) => {
      const expected = own[sequence]!.subarray(position * vocabulary, (position + 1) * vocabulary);
      maxAbsLogitDifference = Math.max(maxAbsLogitDifference, largestDifference(expected, row));
      divergences.push(divergence(expected, row));
    },
    signal ? { signal } : {},
  );
  const kl = mean(divergences);
  checkDifference(where, type, { maxAbsLogitDifference, kl });
  return { maxAbsLogitDifference, kl };
}

/** Compares a checkpoint that was written and opened again with the model it was written from. */
export async function verifyHub(reloaded: Engine, own: Engine, sequences: readonly Int32Array[]): Promise<number> {
  const compared = await compareModels(reloaded, own, sequences, { where: reloaded.model.path, type: "f32" });
  return compared.maxAbsLogitDifference;
}

/** @throws EspalierError beyond the tolerance of the type */
export async function compareModels(
  reloaded: Engine,
  own: Engine,
  sequences: readonly Int32Array[],
  { where, type }: { where: string; type: string },
): Promise<Verified> {
  const vocabulary = own.config.vocabSize;
  let maxAbsLogitDifference = 0;
  const divergences: number[] = [];
  for (const ids of sequences) {
    const [expected, found] = [await logitsOf(own, ids), await logitsOf(reloaded, ids)];
    maxAbsLogitDifference = Math.max(maxAbsLogitDifference, largestDifference(expected, found));
    for (let at = 0; at < expected.length; at += vocabulary) {
      divergences.push(divergence(expected.subarray(at, at + vocabulary), found.subarray(at, at + vocabulary)));
    }
  }
  const kl = mean(divergences);
  checkDifference(where, type, { maxAbsLogitDifference, kl });
  return { maxAbsLogitDifference, kl };
}

async function logitsOf(engine: Engine, ids: Int32Array): Promise<Float32Array> {
  return (await engine.logits(await engine.forward([ids]))).data;
}

function checkDifference(where: string, type: string, { maxAbsLogitDifference, kl }: Verified): void {
  const tolerance = logitTolerance[type] ?? Number.POSITIVE_INFINITY;
  const close = maxAbsLogitDifference <= tolerance;
  if (close && kl <= klTolerance) return;
  throw new EspalierError({
    where,
    expected: close
      ? `a KL within ${klTolerance} nats a token of the model`
      : `logits within ${tolerance} of the model's own`,
    found: close ? kl.toPrecision(3) : `a difference of ${maxAbsLogitDifference.toPrecision(3)}`,
    fix: "the export must not be used and was not kept; please report it with the model's configuration",
  });
}

/** NaN anywhere counts as an infinite difference. */
export function largestDifference(a: Float32Array, b: Float32Array): number {
  let largest = a.length === b.length ? 0 : Number.POSITIVE_INFINITY;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs(a[i]! - b[i]!);
    if (!(difference <= largest)) largest = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference;
  }
  return largest;
}

/** KL(softmax(a) || softmax(b)) in nats. */
export function divergence(a: Float32Array, b: Float32Array): number {
  const [logZa, logZb] = [logSumExp(a), logSumExp(b)];
  let sum = 0;
  for (let i = 0; i < a.length; i++) {
    const logP = a[i]! - logZa;
    sum += Math.exp(logP) * (logP - (b[i]! - logZb));
  }
  return sum;
}

function logSumExp(values: Float32Array): number {
  let top = Number.NEGATIVE_INFINITY;
  for (const value of values) top = Math.max(top, value);
  let sum = 0;
  for (const value of values) sum += Math.exp(value - top);
  return top + Math.log(sum);
}
