/** @module Bytes of weights by number type, before any file exists: the shapes say all of it. */
import { resolveTensorType, tensorTypes, type WritableType } from "../formats/index.js";
import {
  type BlockConfig,
  blockWeights,
  layerPrefix,
  type ModelConfig,
  modelWeights,
  type WeightInfo,
} from "../models/index.js";

/** Types that files are written in. */
export const weightTypes = ["f32", "f16", "bf16", "q8_0"] as const satisfies readonly WritableType[];
export type WeightType = (typeof weightTypes)[number];

const ggufAlignment = 32;

/** Bytes of one tensor in a GGUF file of the given type, padding to the next tensor included. */
export function ggufTensorBytes(type: WeightType, shape: readonly number[]): number {
  const resolved = resolveTensorType(type, shape);
  const { block, bytes } = Object.values(tensorTypes).find(({ name }) => name.toLowerCase() === resolved)!;
  const elements = shape.reduce((a, b) => a * b, 1);
  return Math.ceil(((elements / block) * bytes) / ggufAlignment) * ggufAlignment;
}

/** Bytes of one block's tensors in a GGUF file. */
export function ggufBlockBytes(config: ModelConfig, block: BlockConfig, type: WeightType): number {
  return sum(blockWeights(config, block), type);
}

/** Bytes of what is not a block: embedding, last norm, head, rotary factors. */
export function ggufFixedBytes(config: ModelConfig, type: WeightType): number {
  const outside = modelWeights({ ...config, blocks: [] });
  // Llama 3 scaling is stored as one factor per rotary pair.
  const factors =
    config.rope.scaling?.type === "llama3" ? [{ name: "rope_freqs.weight", shape: [config.headDim / 2] }] : [];
  return sum([...outside, ...factors], type);
}

/**
 * Bytes of all tensors of a GGUF file: what the file holds after its header (names, vocabulary, chat template), to the
 * byte. Blocks are counted as they are; an export that has to add a feed-forward of zeros, because llama.cpp drops
 * attention without one, is larger by that.
 */
export function ggufBytes(config: ModelConfig, type: WeightType): number {
  return config.blocks.reduce(
    (bytes, block) => bytes + ggufBlockBytes(config, block, type),
    ggufFixedBytes(config, type),
  );
}

/** Bytes of all tensors of a safetensors checkpoint: every weight in the one type. */
export function hubBytes(config: ModelConfig, type: Exclude<WeightType, "q8_0">): number {
  const elements = modelWeights(config).reduce((count, { shape }) => count + shape.reduce((a, b) => a * b, 1), 0);
  return elements * (type === "f32" ? 4 : 2);
}

/** The largest block's bytes as f32: what one layer takes while it is computed. */
export function largestBlockBytes(config: ModelConfig): number {
  return Math.max(0, ...config.blocks.map((block) => ggufBlockBytes(config, block, "f32")));
}

/** Names of the weights that the type cannot hold and that fall back to another one. */
export function fallbacks(
  config: ModelConfig,
  type: WeightType,
): { name: string; shape: readonly number[]; type: WeightType }[] {
  const blocks = config.blocks.flatMap((block, layer) =>
    blockWeights(config, block).map(({ name, shape }) => ({ name: layerPrefix(layer) + name, shape })),
  );
  return [...modelWeights({ ...config, blocks: [] }), ...blocks]
    .filter(({ shape }) => shape.length > 1)
    .map(({ name, shape }) => ({ name, shape, type: resolveTensorType(type, shape) as WeightType }))
    .filter((weight) => weight.type !== type);
}

function sum(weights: readonly WeightInfo[], type: WeightType): number {
  return weights.reduce((bytes, { shape }) => bytes + ggufTensorBytes(type, shape), 0);
}
