/**
 * @module Tokens a second of a server with continuous batching (TensorRT-LLM, vLLM) by tensor parallelism: a roofline of
 * prompt and steps, whose batch is what the memory has room for.
 */
import { EspalierError } from "../base/index.js";
import { activeParameters } from "./active-parameters.js";
import type { Gpu } from "./gpus.js";
import { kvCacheBytesPerToken } from "./kv-cache.js";
import { type ModelShape, shapeParameters } from "./model-shape.js";

/** Number types that servers load weights in. */
export const serverTypes = { bf16: 2, fp8: 1, int4: 0.5 + 2 / 128 } as const;
export type ServerType = keyof typeof serverTypes;

export interface ServerUse {
  /** Of the weights; products are in FP8 for `fp8`, else in 16 bits. `int4`: AWQ or GPTQ, a 16-bit scale for 128. */
  type: ServerType;
  /** Tokens of a prompt. */
  input: number;
  /** Tokens generated after it. */
  output: number;
  /** Bytes of one cached number. Defaults to 1 for `fp8`, else 2. */
  kvBytes?: number;
  /** Largest number of sequences at once. Defaults to 512. */
  maxBatch?: number;
}

export interface ServerSpeed {
  /** GPUs that hold one copy of the model together. */
  tensorParallel: number;
  /** Sequences at once. */
  batch: number;
  /** Tokens generated, all sequences together. */
  tokensPerSecondPerGpu: number;
  weightBytesPerGpu: number;
}

/**
 * Fitted to the twelve figures of arXiv:2411.19146, table 2 (Nemotron-51B and Llama 3.1 70B on H100, FP8, TensorRT-LLM),
 * which it meets within 26 %: a fit to few figures of one engine and one card, no law.
 */
const fitted = {
  /** Of the dense tensor rate. */
  compute: 0.8,
  /** Of the bandwidth. */
  bandwidth: 0.6,
  /** Of the memory: weights and cache. */
  memory: 0.885,
  /** Of the tensor rate of one GPU that each of several keeps. */
  parallelCompute: 0.6,
  /** Seconds of a step beside its work, for each layer. */
  secondsPerLayer: 5e-5,
};

/** The fastest tensor parallelism of 1, 2, 4 and 8 for each GPU's share; undefined where none holds the model. */
export function bestServerSpeed(shape: ModelShape, use: ServerUse, gpu: Gpu): ServerSpeed | undefined {
  const speeds = [1, 2, 4, 8]
    .filter((count) => dividesHeads(shape, count))
    .flatMap((count) => serverSpeed(shape, use, gpu, count) ?? []);
  return speeds.sort((a, b) => b.tokensPerSecondPerGpu - a.tokensPerSecondPerGpu)[0];
}

/** Query heads are dealt out whole; key/value heads too, or copied where there are fewer of them than GPUs. */
export function dividesHeads({ heads, blocks }: ModelShape, count: number): boolean {
  const groups = blocks.flatMap(({ attention }) => (attention.kind === "gqa" ? [attention.kvHeads] : []));
  return heads % count === 0 && groups.every((kvHeads) => kvHeads % count === 0 || count % kvHeads === 0);
}

/** Undefined where the model and one sequence do not fit. Throws for a GPU whose tensor rate is not known. */
export function serverSpeed(
  shape: ModelShape,
  use: ServerUse,
  gpu: Gpu,
  tensorParallel: number,
): ServerSpeed | undefined {
  const { input, output, type, maxBatch = 512, kvBytes = type === "fp8" ? 1 : 2 } = use;
  const weights = shapeParameters(shape) * serverTypes[type];
  const kvPerToken = (kvCacheBytesPerToken(shape) / 2) * kvBytes;
  const room = tensorParallel * gpu.memoryBytes * fitted.memory - weights;
  // Sequences are at all stages at once: on average half of the output is there.
  const held = input + output / 2;
  const batch = Math.min(maxBatch, Math.floor(room / (kvPerToken * held)));
  if (batch < 1) return undefined;
  const rate =
    tensorRate(gpu, type) * fitted.compute * tensorParallel * (tensorParallel > 1 ? fitted.parallelCompute : 1);
  const flops = 2 * activeParameters(shape);
  const perPosition =
    4 * shape.heads * shape.headDim * shape.blocks.filter(({ attention }) => attention.kind === "gqa").length;
  const prompt = (flops * input + (perPosition * input ** 2) / 2) / rate;
  const read = (weights + batch * kvPerToken * held) / (tensorParallel * gpu.bandwidth * fitted.bandwidth);
  const step = (batch * (flops + perPosition * held)) / rate + read + fitted.secondsPerLayer * shape.blocks.length;
  const secondsPerSequence = prompt + (output * step) / batch;
  return {
    tensorParallel,
    batch,
    tokensPerSecondPerGpu: output / secondsPerSequence / tensorParallel,
    weightBytesPerGpu: weights / tensorParallel,
  };
}

function tensorRate(gpu: Gpu, type: ServerType): number {
  const { fp8, fp16 } = gpu.tensorFlops ?? {};
  const rate = type === "fp8" ? fp8 : fp16;
  if (rate !== undefined) return rate;
  throw new EspalierError({
    where: `GPU ${gpu.name}`,
    expected: `a rate of ${type === "fp8" ? "FP8" : "16-bit"} products`,
    found: "none in the catalogue",
    fix: type === "fp8" && fp16 !== undefined ? "ask for --server-type bf16" : "ask for another GPU",
    exitCode: 2,
  });
}
