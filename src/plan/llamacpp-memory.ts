/**
 * @module What llama.cpp needs to run a file: weights and key-value cache to the byte, compute buffers as an estimate, on
 * the GPU and beside it when some layers stay on the CPU.
 */
import { type FileType, type FileTypeOptions, tensorBytes, typedTensors } from "./file-types.js";
import { type CacheType, kvCacheBytesByLayer } from "./kv-cache.js";
import type { ModelShape } from "./model-shape.js";

export interface LlamaCppUse extends FileTypeOptions {
  type: FileType;
  /** Tokens of one sequence; llama.cpp rounds up to 256. Defaults to 8192. */
  context?: number;
  /** Sequences held at once. Defaults to 1. */
  batch?: number;
  /** Of the keys and values. Defaults to `f16`. */
  keys?: CacheType;
  values?: CacheType;
  /** Defaults to true. */
  flashAttention?: boolean;
  /** Layers on the GPU, the last ones; the head goes with the last. Defaults to all. */
  gpuLayers?: number;
}

/** Bytes in one memory. */
export interface MemoryShare {
  weights: number;
  kvCache: number;
  /** An estimate: intermediate results of one micro-batch of 512 tokens. */
  compute: number;
  total: number;
}

export interface LlamaCppMemory {
  gpu: MemoryShare;
  /** The embedding table, which is looked up on the CPU, and what of the layers is not on the GPU. */
  ram: MemoryShare;
  gpuLayers: number;
}

const contextStep = 256;
const microBatch = 512;

/** What each part of a model takes, wherever it lies. */
export interface MemoryParts {
  /** By layer. */
  layers: { weights: number; kvCache: number }[];
  /** Looked up, always on the CPU. */
  embedding: number;
  /** Last norm, head and rotary divisors: beside the last layer. A tied embedding is there a second time. */
  head: number;
  compute: number;
  tied: boolean;
}

export function memoryParts(shape: ModelShape, use: Omit<LlamaCppUse, "gpuLayers">): MemoryParts {
  const tokens = tokensHeld(use);
  const layers = kvCacheBytesByLayer(shape, use).map((bytes) => ({ weights: 0, kvCache: tokens * bytes }));
  const parts = { layers, embedding: 0, head: 0, compute: computeBytes(shape, use), tied: shape.tiedEmbeddings };
  for (const tensor of typedTensors(shape, use.type, use)) {
    const bytes = tensorBytes(tensor);
    if (tensor.layer !== undefined) layers[tensor.layer]!.weights += bytes;
    else if (tensor.role === "embedding") parts.embedding = bytes;
    else parts.head += bytes;
  }
  return parts;
}

/** Divides a model between GPU and CPU as llama.cpp does with `--n-gpu-layers`. */
export function llamaCppMemory(shape: ModelShape, use: LlamaCppUse): LlamaCppMemory {
  return divideMemory(memoryParts(shape, use), use.gpuLayers);
}

/** The last `gpuLayers` layers (all unless told otherwise) and the head on the GPU. */
export function divideMemory(parts: MemoryParts, gpuLayers = parts.layers.length): LlamaCppMemory {
  const first = Math.max(0, parts.layers.length - gpuLayers);
  const gpu = share(parts.layers.slice(first));
  const ram = share(parts.layers.slice(0, first));
  const last = gpuLayers > 0 ? gpu : ram;
  ram.weights += parts.embedding;
  last.weights += parts.head + (parts.tied && gpuLayers > 0 ? parts.embedding : 0);
  last.compute = parts.compute;
  for (const side of [gpu, ram]) side.total = side.weights + side.kvCache + side.compute;
  return { gpu, ram, gpuLayers: parts.layers.length - first };
}

function share(layers: MemoryParts["layers"]): MemoryShare {
  const sum = (of: (layer: MemoryParts["layers"][number]) => number) => layers.reduce((a, layer) => a + of(layer), 0);
  return { weights: sum(({ weights }) => weights), kvCache: sum(({ kvCache }) => kvCache), compute: 0, total: 0 };
}

/** Tokens that the cache has room for. */
export function tokensHeld({ context = 8192, batch = 1 }: Pick<LlamaCppUse, "context" | "batch">): number {
  return batch * Math.ceil(context / contextStep) * contextStep;
}

/**
 * An estimate of the compute buffer: the largest of logits, feed-forward and (without flash attention) attention scores of
 * a micro-batch, its mask, and four arrays of hidden states.
 */
function computeBytes(shape: ModelShape, use: LlamaCppUse): number {
  const { flashAttention = true } = use;
  const tokens = tokensHeld({ ...use, batch: 1 });
  const widths = shape.blocks.map(({ ffn }) =>
    ffn.kind === "swiglu" ? 2 * ffn.width * (shape.experts?.used ?? 1) : 0,
  );
  const widest = Math.max(shape.vocabSize, flashAttention ? 0 : shape.heads * tokens, ...widths);
  return microBatch * (4 * widest + (flashAttention ? 2 : 4) * tokens + 16 * shape.hiddenSize);
}
