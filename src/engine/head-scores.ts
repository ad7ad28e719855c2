/**
 * @module What the head says about hidden states: logits, log-probabilities of given tokens, and the divergence of one
 * model from another. Rows are taken in chunks, so logits exist for a few positions at a time; where the head's matrix is
 * not kept in memory, the vocabulary is taken in ranges too (`streamed-head.ts`).
 */
import { headWeightName, type ModelConfig } from "../models/index.js";
import { type F32Tensor, f32Tensor, type HostTensor, i64Tensor } from "../tensor/index.js";
import {
  type HeadParts,
  normaliseRows,
  partialLogits,
  streamedRows,
  streamLogits,
  sumCompared,
  sumTargets,
  type VocabularyRange,
  vocabularyRanges,
} from "./streamed-head.js";
import { readHead } from "./weights.js";

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
  /** Logits of a few rows for some entries of the vocabulary: x [rows, H] -> [rows, to - from]. */
  partialLogits(x: F32Tensor, range: VocabularyRange): Promise<F32Tensor>;
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

export function createHeadScores(parts: HeadParts): HeadScores {
  const scores: HeadScores = {
    logits: (x) => logitsOf(parts, x),
    partialLogits: (x, range) => partialLogits(parts, x, range),
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

/** True where the head's matrix is not in memory, and will not be. */
function isStreamed({ model, weights }: HeadParts): boolean {
  return !weights.keeps(headWeightName(model.config));
}

async function logitsOf(parts: HeadParts, x: F32Tensor): Promise<F32Tensor> {
  const { model, programs, weights } = parts;
  const into = f32Tensor([x.shape[0]!, model.config.vocabSize]);
  if (isStreamed(parts)) {
    await streamLogits(parts, x, into);
    return into;
  }
  const program = await programs.logits(x.shape[0]!);
  await program.run({ x, ...(await readHead(weights, model)) }, { logits: into });
  return into;
}

async function logProbsOf(parts: HeadParts, x: F32Tensor, into: F32Tensor): Promise<void> {
  const { model, programs, weights } = parts;
  if (isStreamed(parts)) {
    await streamLogits(parts, x, into);
    normaliseRows(into);
    return;
  }
  const program = await programs.logProbs(x.shape[0]!);
  await program.run({ x, ...(await readHead(weights, model)) }, { logProbs: into });
}

async function targetRows(
  parts: HeadParts,
  x: F32Tensor,
  targets: ArrayLike<number>,
  { signal }: ScoreOptions,
): Promise<Float32Array> {
  if (isStreamed(parts)) return streamTargetRows(parts, x, targets, signal);
  const { model, programs, weights } = parts;
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
  if (4 * rows * vocabSize > maxBytes || isStreamed(parts)) return state;
  const held = f32Tensor([rows, vocabSize]);
  for (const chunk of chunksOf(rows, chunkRows(parts.model.config))) {
    const part = rowsOf(held, chunk);
    await logProbsOf(parts, rowsOf(state.x, chunk), part);
    // A padded chunk is a copy and not a view.
    if (chunk.rows < chunk.size) held.data.set(part.data.subarray(0, held.data.length));
  }
  return { ...state, held };
}

/** All rows through one range of the vocabulary before the next is read. */
async function streamTargetRows(
  parts: HeadParts,
  x: F32Tensor,
  targets: ArrayLike<number>,
  signal: AbortSignal | undefined,
): Promise<Float32Array> {
  const ranges = vocabularyRanges(parts);
  const chunks = chunksOf(x.shape[0]!, streamedRows(ranges)).map((chunk) => {
    return { chunk, sums: sumTargets(parts, takeRows(targets, chunk)) };
  });
  for (const range of ranges) {
    for (const { chunk, sums } of chunks) {
      signal?.throwIfAborted();
      await sums.add(rowsOf(x, chunk), range);
    }
  }
  const out = new Float32Array(x.shape[0]!);
  for (const { chunk, sums } of chunks) out.set(sums.targetLogProbs(), chunk.start);
  return out;
}

async function streamComparison(
  parts: HeadParts,
  reference: HeadState,
  x: F32Tensor,
  { targets, signal }: CompareOptions,
): Promise<Comparison> {
  const rows = x.shape[0]!;
  const ranges = vocabularyRanges(parts);
  const chunks = chunksOf(rows, streamedRows(ranges)).map((chunk) => {
    return { chunk, sums: sumCompared(parts, takeRows(targets ?? new Uint8Array(rows), chunk)) };
  });
  for (const range of ranges) {
    for (const { chunk, sums } of chunks) {
      signal?.throwIfAborted();
      await sums.add(rowsOf(x, chunk), await referenceRange(reference, chunk, range), range);
    }
  }
  const [kl, own, theirs] = [new Float32Array(rows), new Float32Array(rows), new Float32Array(rows)];
  for (const { chunk, sums } of chunks) {
    const result = sums.result();
    kl.set(result.kl, chunk.start);
    own.set(result.own, chunk.start);
    theirs.set(result.reference, chunk.start);
  }
  return targets ? { kl, targetLogProbs: { reference: theirs, own } } : { kl };
}

/** The reference's logits of some rows and entries, or its log-probabilities, which differ from them by a constant. */
async function referenceRange(
  { engine, x, held }: HeadState,
  chunk: Chunk,
  range: VocabularyRange,
): Promise<F32Tensor> {
  if (!held) return engine.partialLogits(rowsOf(x, chunk), range);
  const width = range.to - range.from;
  const part = f32Tensor([chunk.size, width]);
  for (let row = 0; row < chunk.rows; row++) {
    const at = (chunk.start + row) * held.shape[1]!;
    part.data.set(held.data.subarray(at + range.from, at + range.to), row * width);
  }
  return part;
}

function takeRows(values: ArrayLike<number>, { start, rows }: Chunk): number[] {
  return Array.from({ length: rows }, (_, i) => values[start + i]!);
}

async function compareRows(
  parts: HeadParts,
  reference: HeadState,
  x: F32Tensor,
  options: CompareOptions,
): Promise<Comparison> {
  if (isStreamed(parts)) return streamComparison(parts, reference, x, options);
  const { model, programs, weights } = parts;
  const { targets, signal } = options;
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
