import { EspalierError, mean } from "../base/index.js";
import { createEngine, type Engine, roundWeights } from "../engine/index.js";
import type { LlamaCpp } from "../llamacpp/index.js";

/**
 * Largest difference of a logit that an export may show, by type; of others the KL is bounded. F16 is compared with our
 * own engine in F16's arithmetic, so that a fault of the file is not lost in the rounding of the type.
 */
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
  /**
   * From our logits in the arithmetic of the file's type: F16 and BF16 round matrices and what they multiply. Of these two
   * a shift of all logits of a position is taken out first: it changes no probability, and rounding makes it.
   */
  maxAbsLogitDifference: number;
  /** Mean KL of the file's next-token distributions from the model's own in f32, nats a token: what the type costs. */
  kl: number;
}

/**
 * Loads a GGUF in llama.cpp (f32 cache, no flash attention) and compares its logits with those of the model it was written
 * from. For F16 and BF16 the model is computed as llama.cpp computes such a file, which leaves only the order of sums.
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
  const own = await logitsOfAll(engine, sequences);
  const rounded = inArithmeticOf(type, engine);
  const alike = rounded ? await logitsOfAll(rounded, sequences) : own;
  const difference = rounded ? largestCentredDifference : largestDifference;
  let maxAbsLogitDifference = 0;
  const divergences: number[] = [];
  await llama.eachLogits(
    path,
    sequences.map((ids) => [...ids]),
    (sequence, position, row) => {
      const rowOf = (logits: Float32Array) => logits.subarray(position * vocabulary, (position + 1) * vocabulary);
      maxAbsLogitDifference = Math.max(maxAbsLogitDifference, difference(rowOf(alike[sequence]!), row));
      divergences.push(divergence(rowOf(own[sequence]!), row));
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

/**
 * Compares a checkpoint that was opened again with the model it was written from, at the values that its type can hold.
 * @throws EspalierError beyond the tolerance of the type
 */
export async function compareModels(
  reloaded: Engine,
  own: Engine,
  sequences: readonly Int32Array[],
  { where, type }: { where: string; type: string },
): Promise<Verified> {
  const vocabulary = own.config.vocabSize;
  let maxAbsLogitDifference = 0;
  const divergences: number[] = [];
  const held = withValuesOf(type, own);
  for (const ids of sequences) {
    const [expected, found] = [await logitsOf(own, ids), await logitsOf(reloaded, ids)];
    const alike = held ? await logitsOf(held, ids) : expected;
    maxAbsLogitDifference = Math.max(maxAbsLogitDifference, largestDifference(alike, found));
    for (let at = 0; at < expected.length; at += vocabulary) {
      divergences.push(divergence(expected.subarray(at, at + vocabulary), found.subarray(at, at + vocabulary)));
    }
  }
  const kl = mean(divergences);
  checkDifference(where, type, { maxAbsLogitDifference, kl });
  return { maxAbsLogitDifference, kl };
}

/** Undefined where the type's arithmetic is the engine's own, or one that it does not know. */
function inArithmeticOf(type: string, { runtime, model }: Engine): Engine | undefined {
  return type === "f16" || type === "bf16" ? createEngine(runtime, model, { rounding: type }) : undefined;
}

/** The model at the nearest values of a half-precision checkpoint; undefined for types that hold all. */
function withValuesOf(type: string, { runtime, model }: Engine): Engine | undefined {
  if (type !== "f16" && type !== "bf16") return undefined;
  return createEngine(runtime, { ...model, weights: roundWeights(model.weights, type, 0) });
}

async function logitsOfAll(engine: Engine, sequences: readonly Int32Array[]): Promise<Float32Array[]> {
  const all: Float32Array[] = [];
  for (const ids of sequences) all.push(await logitsOf(engine, ids));
  return all;
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

/** The largest difference that is left when the mean difference is taken out of all. */
export function largestCentredDifference(a: Float32Array, b: Float32Array): number {
  const shift = a.reduce((sum, value, i) => sum + (b[i]! - value), 0) / a.length;
  return largestDifference(
    a.map((value) => value + shift),
    b,
  );
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
