/**
 * @module What training a model takes, by method: weights, gradients, AdamW's moments, the values inside the blocks that
 * the backward sweep reads, and the logits of a loss. Counted from shapes as our own training lays them out (docs/train.md):
 * f32, one flat array each for parameters, gradients and both moments, in main memory. Beside it the same for a GPU with
 * weights, gradients and insides in 16 bits and f32 copies for AdamW (arXiv:1710.03740), which is arithmetic alone.
 */
import type { BlockConfig } from "../models/index.js";
import { kvCacheBytesPerToken } from "./kv-cache.js";
import { baseBytes } from "./memory-forecast.js";
import { ggufTensors, type ModelShape, shapeParameters } from "./model-shape.js";

/**
 * `full`: fine-tuning and continued pre-training. `lora`: low-rank matrices beside every matrix of the blocks
 * (arXiv:2106.09685). `distil`, `distil-layered`: a child towards its parent in one program, or half a block at a time.
 * `dpo`: pairs, with the reference's log-probabilities computed before. `reward`: a head of one number. `grpo`: with a
 * frozen reference, and answers sampled by the weights that are trained.
 */
export const trainingMethods = ["full", "lora", "distil", "distil-layered", "dpo", "reward", "grpo"] as const;
export type TrainingMethod = (typeof trainingMethods)[number];

/** `f32`: main memory, as we train. `mixed`: a GPU, bf16 with f32 copies for the optimiser; not measured. */
export type TrainingPrecision = "f32" | "mixed";

export interface TrainingUse {
  /** Sequences of one pass: of `dpo` pairs, of `grpo` answers sampled at once. Defaults to 4. */
  batch?: number;
  /** Tokens of a sequence. Defaults to 256. */
  length?: number;
  /** Of the low-rank matrices. Defaults to 16. */
  rank?: number;
  /** Share of the parent's parameters that a distilled child keeps. Defaults to 0.8. */
  share?: number;
}

/** Bytes at the peak of a step. */
export interface TrainingMemory {
  method: TrainingMethod;
  precision: TrainingPrecision;
  /** Trained and frozen. */
  weightsBytes: number;
  gradientBytes: number;
  /** Both moments, and in `mixed` the f32 copy of the weights. */
  optimiserBytes: number;
  /** Insides of blocks that wait for the backward sweep. */
  activationBytes: number;
  /** Logits of one chunk of positions with what is computed from them, and copies of the head beside its gradient. */
  logitsBytes: number;
  /** What the backward sweep makes inside the largest block, when the logits are free. */
  sweepBytes: number;
  /** Keys and values while answers are sampled; insides and logits are free then. */
  kvCacheBytes: number;
  /** What exists at once, of `f32` with Node and ONNX Runtime themselves: logits or sweep beside insides, or kv cache. */
  totalBytes: number;
  /** A checkpoint beside the one that replaces it, and the result. */
  diskBytes: number;
}

/** Every method in both precisions. */
export function trainingMemory(shape: ModelShape, use: TrainingUse = {}): TrainingMemory[] {
  const { batch = 4, length = 256, rank = 16, share = 0.8 } = use;
  const work = { batch, length, rank, share };
  return trainingMethods.flatMap((method) =>
    (["f32", "mixed"] as const).map((precision) => memoryOf(shape, method, precision, work)),
  );
}

/** What of a method takes memory, in numbers and not yet in bytes. */
interface Held {
  trained: number;
  frozen: number;
  inside: number;
  sweep: number;
  logits: number;
  /** f32 whatever the precision, as a kv cache of 16 bits is not. */
  cached: number;
}

function memoryOf(
  shape: ModelShape,
  method: TrainingMethod,
  precision: TrainingPrecision,
  use: Required<TrainingUse>,
): TrainingMemory {
  const held = heldBy(shape, method, precision, use);
  const [weight, moments] = precision === "f32" ? [4, 8] : [2, 12];
  const weightsBytes = weight * (held.trained + held.frozen);
  const gradientBytes = weight * held.trained;
  const optimiserBytes = moments * held.trained;
  const activationBytes = Math.round(weight * held.inside);
  const logitsBytes = 4 * held.logits;
  const kvCacheBytes = weight * held.cached;
  const sweepBytes = Math.round(weight * held.sweep);
  const work = Math.max(activationBytes + Math.max(logitsBytes, sweepBytes), kvCacheBytes);
  const process = precision === "f32" ? baseBytes : 0;
  return {
    method,
    precision,
    weightsBytes,
    gradientBytes,
    optimiserBytes,
    activationBytes,
    logitsBytes,
    sweepBytes,
    kvCacheBytes,
    totalBytes: process + weightsBytes + gradientBytes + optimiserBytes + work,
    diskBytes: (2 * checkpointBytes + resultBytes) * held.trained,
  };
}

/** f32 parameters and both moments; the model as f32. A number each. */
const [checkpointBytes, resultBytes] = [12, 4];

function heldBy(
  shape: ModelShape,
  method: TrainingMethod,
  precision: TrainingPrecision,
  { batch, length, rank, share }: Required<TrainingUse>,
): Held {
  const parameters = shapeParameters({ ...shape, rotaryFactors: false });
  const rows = batch * length;
  const context: Context = { shape, length, precision };
  const sweep = rows * Math.max(0, ...shape.blocks.map((block) => insideOfBlock(context, block)));
  const whole = { trained: parameters, frozen: 0, cached: 0, sweep };
  const inside = insideOf(context, rows);
  const logits = crossEntropyNumbers(shape, rows, true);
  const child = Math.round(share * parameters);
  const streams = rows * shape.hiddenSize * shape.blocks.length;
  switch (method) {
    case "full":
      return { ...whole, inside, logits };
    case "lora":
      return {
        ...whole,
        trained: adapterParameters(shape, rank),
        frozen: parameters,
        inside: inside + rows * adapterRows(shape, rank),
        logits: crossEntropyNumbers(shape, rows, false),
      };
    case "distil":
      return {
        ...whole,
        trained: child,
        frozen: parameters,
        inside: share * inside + streams,
        logits: divergenceNumbers(shape, rows),
      };
    case "distil-layered":
      return { ...whole, trained: child, frozen: parameters, ...layered(shape, rows, share * inside) };
    case "dpo":
      return { ...whole, inside: 2 * inside, sweep: 2 * sweep, logits: crossEntropyNumbers(shape, 2 * rows, true) };
    case "reward": {
      const head = shape.tiedEmbeddings ? 0 : shape.vocabSize * shape.hiddenSize;
      return { ...whole, trained: parameters - head + shape.hiddenSize, inside, logits: 0 };
    }
    case "grpo":
      return { ...whole, frozen: parameters, inside, logits, cached: rows * cachedNumbers(shape) };
  }
}

interface Context {
  shape: ModelShape;
  length: number;
  precision: TrainingPrecision;
}

function insideOf(context: Context, rows: number): number {
  return context.shape.blocks.reduce((sum, block) => sum + rows * insideOfBlock(context, block), 0);
}

/**
 * Numbers a token. Of either half the stream before it and its norm; of attention the turned queries and keys, the values,
 * the heads' results twice (their order changes) and, without flash attention, the scores; of the feed-forward gate, up,
 * the gate's activation and the product.
 */
function insideOfBlock({ shape, length, precision }: Context, { attention, ffn }: BlockConfig): number {
  const { hiddenSize: H, heads, headDim } = shape;
  const halves = [attention, ffn].filter(({ kind }) => kind !== "none").length;
  const wide = ffn.kind === "swiglu" ? (shape.gated ? 4 : 3) * ffn.width * (shape.experts?.used ?? 1) : 0;
  if (attention.kind !== "gqa") return 2 * H * halves + wide;
  const [q, kv] = [heads * headDim, attention.kvHeads * headDim];
  const own = 3 * q + 2 * kv;
  if (precision === "mixed") return 2 * H * halves + own + wide;
  // Long sequences are cut into chunks of queries, each with a copy of the keys and values that it sees.
  const copies = length > queryChunk ? 2 * q + (2 * kv * seenByChunks(length)) / queryChunk : 0;
  return 2 * H * halves + own + heads * seenByChunks(length) + copies + wide;
}

/** Queries whose scores exist at one time; see models' `attention.ts`. */
const queryChunk = 512;

/** Keys that a query's row of scores has, on average: of a chunk all up to its end. */
function seenByChunks(length: number): number {
  let sum = 0;
  for (let start = 0; start < length; start += queryChunk) {
    const end = Math.min(start + queryChunk, length);
    sum += (end - start) * end;
  }
  return sum / length;
}

/** Numbers that logits of one chunk of positions may have; see graph's `losses.ts`. */
const chunkNumbers = 2 ** 25;

function chunkOf({ vocabSize }: ModelShape, rows: number, numbers: number): number {
  const most = Math.max(1, Math.floor(numbers / vocabSize));
  return Math.ceil(rows / Math.ceil(rows / most));
}

/** Logits and probabilities; where the head is trained, its tiles and its gradient's, which are joined at the end. */
function crossEntropyNumbers(shape: ModelShape, rows: number, trained: boolean): number {
  const head = shape.vocabSize * shape.hiddenSize;
  return 2 * chunkOf(shape, rows, chunkNumbers) * shape.vocabSize + (trained ? 2 : 1) * head;
}

/** Logits and probabilities of both, the difference, and the head's gradient while it is summed. */
function divergenceNumbers(shape: ModelShape, rows: number): number {
  return 5 * chunkOf(shape, rows, chunkNumbers / 2) * shape.vocabSize + shape.vocabSize * shape.hiddenSize;
}

/** Positions whose logits exist at one time, and numbers of insides that are kept; see train's `layered.ts`. */
const [layeredRows, layeredKept] = [256, 2 ** 26];

/** The streams of parent (after each block) and child (before each half), and what is kept. */
function layered(shape: ModelShape, rows: number, inside: number): Pick<Held, "inside" | "logits"> {
  const streams = 3 * rows * shape.hiddenSize * shape.blocks.length;
  return {
    inside: streams + Math.min(layeredKept, inside),
    logits: 5 * Math.min(rows, layeredRows) * shape.vocabSize,
  };
}

function cachedNumbers(shape: ModelShape): number {
  return kvCacheBytesPerToken(shape, { keys: "f32" }) / 4;
}

function blockMatrices(shape: ModelShape) {
  return ggufTensors(shape).filter((tensor) => tensor.layer !== undefined && tensor.role !== "kept");
}

/** Of [out, in] the adapters are [rank, in] and [out, rank]; every expert has its own. */
function adapterParameters(shape: ModelShape, rank: number): number {
  return blockMatrices(shape).reduce((sum, { shape: sizes }) => {
    const [out, inner] = sizes.slice(-2) as [number, number];
    return sum + rank * (out + inner) * (sizes.length > 2 ? sizes[0]! : 1);
  }, 0);
}

/** Numbers between the two adapters of every matrix, a token. */
function adapterRows(shape: ModelShape, rank: number): number {
  return rank * blockMatrices(shape).length * (shape.experts?.used ?? 1);
}
