/**
 * @module What the head says about hidden states: logits, log-probabilities of given tokens, and the divergence of one
 * model from another. Rows are taken in chunks, so logits exist for a few positions at a time.
 */
import type { Model, ModelConfig } from "../models/index.js";
import { type F32Tensor, f32Tensor, type HostTensor, i64Tensor } from "../tensor/index.js";
import type { Programs } from "./programs.js";
import { readHead, type WeightCache } from "./weights.js";

/** Hidden states (before the final norm) and the engine whose head reads them. */
export interface HeadState {
  engine: HeadScores;
  /** [rows, H] */
  x: F32Tensor;
  /** Log-probabilities of all rows, [rows, V], where they are kept: see `holdReference`. */
  held?: F32Tensor;
}

export interface Comparison {
  /** KL(reference || own) of the next-token distributions, nats, one a row. */
  kl: Float32Array;
  /** Log-probability of the targets under each, one a row; only with `targets`. */
  targetLogProbs?: { reference: Float32Array; own: Float32Array };
}

export interface ScoreOptions {
  signal?: AbortSignal;
}

export interface HeadScores {
  /** Logits of a few rows: x [rows, H] -> [rows, V]. */
  logits(x: F32Tensor): Promise<F32Tensor>;
  /** Log-probabilities of the whole vocabulary for a few rows, written to `into` [rows, V]. */
  logProbs(x: F32Tensor, into: F32Tensor): Promise<void>;
  /** log p(targets[r] | row r), nats: x [rows, H] -> [rows]. */
  targetLogProbs(x: F32Tensor, targets: ArrayLike<number>, options?: ScoreOptions): Promise<Float32Array>;
  /**
   * Own hidden states as the reference of several comparisons. Their log-probabilities are computed once and kept when
   * they take at most `maxBytes`, by default 64 MiB; x must not be written to meanwhile.
   */
  holdReference(x: F32Tensor, options?: { maxBytes?: number }): Promise<HeadState>;
  /** Compares own hidden states x [rows, H] with a reference's, row by row. */
  compare(reference: HeadState, x: F32Tensor, options?: CompareOptions): Promise<Comparison>;
  /**
   * Mean KL(reference || own) of each of `batch` sequences, in nats a token, summed in float64. The reference is this
   * engine's own head unless another is given.
   */
  klAgainst(reference: F32Tensor | HeadState, x: F32Tensor, options: KlOptions): Promise<number[]>;
}

export interface CompareOptions extends ScoreOptions {
  /** One token a row whose log-probabilities are wanted besides. */
  targets?: ArrayLike<number>;
}

export interface KlOptions extends ScoreOptions {
  /** Number of sequences, of equal length, in the rows. */
  batch: number;
}

interface HeadParts {
  model: Model;
  programs: Programs;
  weights: WeightCache;
}

export function createHeadScores(parts: HeadParts): HeadScores {
  const scores: HeadScores = {
    logits: (x) => logitsOf(parts, x),
    logProbs: (x, into) => logProbsOf(parts, x, into),
    targetLogProbs: (x, targets, options = {}) => targetRows(parts, x, targets, options),
    holdReference: (x, { maxBytes = 64 << 20 } = {}) => holdRows(parts, { engine: scores, x }, maxBytes),
    compare: (reference, x, options = {}) => compareRows(parts, reference, x, options),
    async klAgainst(reference, x, { batch, ...options }) {
      const state = "engine" in reference ? reference : { engine: scores, x: reference };
      const { kl } = await compareRows(parts, state, x, options);
      return meansOf(kl, batch);
    },
  };
  return scores;
}

async function logitsOf({ model, programs, weights }: HeadParts, x: F32Tensor): Promise<F32Tensor> {
  const program = await programs.logits(x.shape[0]!);
  const into = f32Tensor([x.shape[0]!, model.config.vocabSize]);
  await program.run({ x, ...(await readHead(weights, model)) }, { logits: into });
  return into;
}

async function logProbsOf({ model, programs, weights }: HeadParts, x: F32Tensor, into: F32Tensor): Promise<void> {
  const program = await programs.logProbs(x.shape[0]!);
  await program.run({ x, ...(await readHead(weights, model)) }, { logProbs: into });
}

async function targetRows(
  { model, programs, weights }: HeadParts,
  x: F32Tensor,
  targets: ArrayLike<number>,
  { signal }: ScoreOptions,
): Promise<Float32Array> {
  const out = new Float32Array(x.shape[0]!);
  const head = await readHead(weights, model);
  for (const chunk of chunksOf(out.length, chunkRows(model.config))) {
    signal?.throwIfAborted();
    const program = await programs.targets(chunk.size);
    const result = await program.run({ x: rowsOf(x, chunk), targets: idsOf(targets, chunk), ...head });
    keepRows(out, result.targetLogProbs!, chunk);
  }
  return out;
}

async function holdRows(parts: HeadParts, state: HeadState, maxBytes: number): Promise<HeadState> {
  const { vocabSize } = parts.model.config;
  const rows = state.x.shape[0]!;
  if (4 * rows * vocabSize > maxBytes) return state;
  const held = f32Tensor([rows, vocabSize]);
  for (const chunk of chunksOf(rows, chunkRows(parts.model.config))) {
    const part = rowsOf(held, chunk);
    await logProbsOf(parts, rowsOf(state.x, chunk), part);
    // A padded chunk is a copy and not a view.
    if (chunk.rows < chunk.size) held.data.set(part.data.subarray(0, held.data.length));
  }
  return { ...state, held };
}

async function compareRows(
  { model, programs, weights }: HeadParts,
  reference: HeadState,
  x: F32Tensor,
  { targets, signal }: CompareOptions,
): Promise<Comparison> {
  const rows = x.shape[0]!;
  const [kl, own, theirs] = [new Float32Array(rows), new Float32Array(rows), new Float32Array(rows)];
  const head = await readHead(weights, model);
  const buffers = new Map<number, F32Tensor>();
  for (const chunk of chunksOf(rows, chunkRows(model.config))) {
    signal?.throwIfAborted();
    const logProbs = await referenceRows(reference, chunk, buffers, model.config.vocabSize);
    const ids = idsOf(targets ?? new Uint8Array(rows), chunk);
    const program = await programs.compare(chunk.size);
    const result = await program.run({ x: rowsOf(x, chunk), reference: logProbs, targets: ids, ...head });
    keepRows(kl, result.kl!, chunk);
    keepRows(own, result.targetLogProbs!, chunk);
    keepRows(theirs, pickTargets(logProbs, ids), chunk);
  }
  return targets ? { kl, targetLogProbs: { reference: theirs, own } } : { kl };
}

/** The reference's log-probabilities of one chunk; `buffers` are reused from chunk to chunk. */
async function referenceRows(
  { engine, x, held }: HeadState,
  chunk: Chunk,
  buffers: Map<number, F32Tensor>,
  vocabSize: number,
): Promise<F32Tensor> {
  if (held) return rowsOf(held, chunk);
  const buffer = buffers.get(chunk.size) ?? f32Tensor([chunk.size, vocabSize]);
  buffers.set(chunk.size, buffer);
  await engine.logProbs(rowsOf(x, chunk), buffer);
  return buffer;
}

/** Logits of one chunk take about 32 MiB, enough rows for the matrix product to be worth its set-up. */
function chunkRows({ vocabSize }: ModelConfig): number {
  const fitting = 2 ** Math.floor(Math.log2((32 << 20) / 4 / vocabSize));
  return Math.min(1024, Math.max(16, fitting));
}

/** `size` rows from `start`; of them `rows` exist and the rest is padding. */
interface Chunk {
  start: number;
  size: number;
  rows: number;
}

/**
 * Chunks of one size, so that one program does for all: the last one reaches back over rows that are done already. Few
 * rows are padded to a power of two.
 */
export function chunksOf(rows: number, limit: number): Chunk[] {
  if (rows < limit) return [{ start: 0, size: 2 ** Math.ceil(Math.log2(rows)), rows }];
  const count = Math.ceil(rows / limit);
  return Array.from({ length: count }, (_, i) => ({
    start: Math.min(i * limit, rows - limit),
    size: limit,
    rows: limit,
  }));
}

function rowsOf(x: F32Tensor, { start, size, rows }: Chunk): F32Tensor {
  const width = x.shape[1]!;
  const part = x.data.subarray(start * width, (start + rows) * width);
  if (rows === size) return f32Tensor([size, width], part);
  const padded = f32Tensor([size, width]);
  padded.data.set(part);
  return padded;
}

function idsOf(targets: ArrayLike<number>, { start, size, rows }: Chunk): HostTensor {
  return i64Tensor(
    [size],
    Array.from({ length: size }, (_, i) => (i < rows ? targets[start + i]! : 0)),
  );
}

function keepRows(out: Float32Array, part: HostTensor, { start, rows }: Chunk): void {
  out.set((part.data as Float32Array).subarray(0, rows), start);
}

function pickTargets({ shape, data }: F32Tensor, ids: HostTensor): F32Tensor {
  const width = shape[1]!;
  return f32Tensor(
    [shape[0]!],
    Float32Array.from(ids.data as BigInt64Array, (id, row) => data[row * width + Number(id)]!),
  );
}

/** Mean of each of `batch` equal runs of values. */
function meansOf(values: Float32Array, batch: number): number[] {
  const length = values.length / batch;
  return Array.from({ length: batch }, (_, i) => {
    let sum = 0;
    for (let t = 0; t < length; t++) sum += values[i * length + t]!;
    return sum / length;
  });
}
