/**
 * @module What a model costs to hold, as sums over its blocks: each cost has a part that no choice changes and a part
 * for every block, so that a search can bound it with one linear constraint.
 */
import {
  type BlockConfig,
  blockParameters,
  kvBytesPerToken,
  type ModelConfig,
  modelParameters,
} from "../models/index.js";
import { ggufBlockBytes, ggufFixedBytes, type WeightType } from "./sizes.js";

export interface MemoryOptions {
  /** Number type of the weights. Defaults to "f16". */
  type?: WeightType;
  /** Sequences held at once. Defaults to 1. */
  batch?: number;
  /** Tokens of each sequence. Defaults to 2048. */
  context?: number;
  /** Bytes of one number in the key-value cache. Defaults to 2 (f16, as llama.cpp's own default). */
  kvBytes?: number;
}

/** A cost of a model: `fixed` plus `block` of each of its blocks. */
export interface LinearCost {
  fixed: number;
  block(block: BlockConfig): number;
}

export function parameterCost(config: ModelConfig): LinearCost {
  return {
    fixed: modelParameters({ ...config, blocks: [] }),
    block: (block) => blockParameters(config, block),
  };
}

/**
 * Bytes of weights and key-value cache. Left out: llama.cpp's compute buffers (some hundred MB at most) and what the
 * operating system takes. The cache is that of an engine which gives each layer what its own heads need; llama.cpp
 * does so with flash attention on.
 */
export function memoryCost(config: ModelConfig, options: MemoryOptions = {}): LinearCost {
  const { type = "f16", batch = 1, context = 2048, kvBytes = 2 } = options;
  return {
    fixed: ggufFixedBytes(config, type),
    block: (block) =>
      ggufBlockBytes(config, block, type) + batch * context * kvBytesPerToken({ ...config, blocks: [block] }, kvBytes),
  };
}

export function totalCost(cost: LinearCost, blocks: readonly BlockConfig[]): number {
  return blocks.reduce((total, block) => total + cost.block(block), cost.fixed);
}

export interface ModelMemory {
  weights: number;
  kvCache: number;
  total: number;
}

/** Bytes that a model takes in use; the sum is what a `memory` budget bounds. */
export function modelMemory(config: ModelConfig, options: MemoryOptions = {}): ModelMemory {
  const total = totalCost(memoryCost(config, options), config.blocks);
  const weights = totalCost(memoryCost(config, { ...options, context: 0 }), config.blocks);
  return { weights, kvCache: total - weights, total };
}

export interface Reach {
  /** What the parent takes. */
  parent: number;
  /** The least that any choice takes. */
  least: number;
}

/** Between which totals a budget of this cost says anything. `choices`: the blocks offered at each layer. */
export function reachOf(
  cost: LinearCost,
  parent: readonly BlockConfig[],
  choices: readonly (readonly BlockConfig[])[],
): Reach {
  const least = choices.reduce(
    (total, blocks) => total + Math.min(...blocks.map((block) => cost.block(block))),
    cost.fixed,
  );
  return { parent: totalCost(cost, parent), least };
}
