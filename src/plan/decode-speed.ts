/**
 * @module Tokens a second of one sequence in llama.cpp, as a band. A step reads every weight that it uses and the
 * key-value cache once, so that bandwidth bounds it; how near an engine comes depends on the card and on how much work it
 * is to unpack a type.
 */

import { type FileType, tensorBytes, typedTensors } from "./file-types.js";
import { kvCacheBytesPerToken } from "./kv-cache.js";
import { type LlamaCppUse, tokensHeld } from "./llamacpp-memory.js";
import type { ModelShape } from "./model-shape.js";

/** Tokens a second. */
export interface SpeedBand {
  low: number;
  expected: number;
  /** No program is faster: bytes over bandwidth. */
  bound: number;
}

/** Bytes that a step reads with a full cache. Of experts, those that one token goes through; of the embedding, one row. */
export function bytesReadPerStep(shape: ModelShape, use: LlamaCppUse): { weights: number; kvCache: number } {
  const { count, used } = shape.experts ?? { count: 1, used: 1 };
  const weights = typedTensors(shape, use.type, use).map((tensor) => {
    if (tensor.role === "embedding" && !shape.tiedEmbeddings) return 0;
    return tensor.shape.length === 3 ? (tensorBytes(tensor) * used) / count : tensorBytes(tensor);
  });
  const kvCache = tokensHeld({ ...use, batch: 1 }) * kvCacheBytesPerToken(shape, use);
  return { weights: weights.reduce((a, b) => a + b, 0), kvCache };
}

/**
 * Shares of the bandwidth that F16 reaches. Seen: 0.48 of 1008 GB/s with Q4_0 (RTX 3090 Ti, llama.cpp #4812, 2024-01), 0.62
 * of 1792 GB/s with Q4_K_M (RTX 5090, 2026-06), 0.82 of 819 GB/s (M3 Ultra, mlx-examples #1371); over the type's own
 * efficiency below, 0.6 to 0.83.
 */
const efficiency = { low: 0.6, expected: 0.8 };

/**
 * Tokens a second of Llama 3.1 8B by type on one card, from the table of llama.cpp's quantise tool (v0.5.0): with the bytes
 * that each reads they say how much of F16's bandwidth a type keeps.
 */
const seen: Partial<Record<FileType, number>> = {
  F16: 29.17,
  Q8_0: 50.93,
  Q6_K: 58.67,
  Q5_K_M: 67.23,
  Q5_K_S: 69.53,
  Q4_K_M: 71.93,
  Q4_K_S: 76.71,
  IQ4_NL: 76.63,
  IQ4_XS: 77.51,
  Q3_K_L: 69.38,
  Q3_K_M: 71.68,
  Q3_K_S: 69.84,
  IQ3_M: 70.15,
  IQ3_S: 69.31,
  IQ3_XS: 71.67,
  IQ3_XXS: 73.95,
  Q2_K: 79.85,
  Q2_K_S: 90.01,
  IQ2_M: 74.44,
  IQ2_S: 77.3,
  IQ2_XS: 78.04,
  IQ2_XXS: 79.86,
  IQ1_M: 72.92,
  IQ1_S: 79.73,
};

/** Types that the table has no row for, by one that is unpacked alike. */
const alike: Partial<Record<FileType, FileType>> = {
  F32: "F16",
  BF16: "F16",
  Q5_1: "Q5_K_S",
  Q5_0: "Q5_K_S",
  Q4_1: "Q4_K_S",
  Q4_0: "Q4_K_S",
  TQ2_0: "Q2_K_S",
  TQ1_0: "Q2_K_S",
};

const llama8b: ModelShape = {
  architecture: "llama",
  vocabSize: 128256,
  hiddenSize: 4096,
  heads: 32,
  headDim: 128,
  tiedEmbeddings: false,
  attentionBias: false,
  attentionOutputBias: false,
  mlpBias: false,
  maxPositions: 131072,
  blocks: Array.from({ length: 32 }, () => ({
    attention: { kind: "gqa", kvHeads: 8 },
    ffn: { kind: "swiglu", width: 14336 },
  })),
  gated: true,
  normBias: false,
  headNorms: false,
  rotaryFactors: true,
};

/** Bandwidth that a type reaches over that of F16: 1 for F16 itself, less for types that take work to unpack. */
export function typeEfficiency(type: FileType): number {
  const row = seen[type] === undefined ? alike[type]! : type;
  const rate = (of: FileType) => seen[of]! * bytesReadPerStep(llama8b, { type: of, imatrix: true, context: 0 }).weights;
  return rate(row) / rate("F16");
}

/**
 * The band at a bandwidth, in bytes a second: of one GPU, or of several alike that hold the layers in turn, for a token
 * passes through them one after the other.
 */
export function decodeSpeed(shape: ModelShape, use: LlamaCppUse): (bandwidth: number) => SpeedBand {
  const { weights, kvCache } = bytesReadPerStep(shape, use);
  const share = typeEfficiency(use.type);
  return (bandwidth) => {
    const bound = bandwidth / (weights + kvCache);
    return { low: efficiency.low * share * bound, expected: efficiency.expected * share * bound, bound };
  };
}
