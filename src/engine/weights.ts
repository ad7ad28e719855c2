import { totalmem } from "node:os";
import { type BlockConfig, blockWeights, headWeightName, layerPrefix, type Model } from "../models/index.js";
import { type F32Tensor, sizeOf } from "../tensor/index.js";

export interface WeightCache {
  /** One tensor by its full name, from memory or from the file. */
  read(name: string): Promise<F32Tensor>;
  /** A layer's weights by short name. They stay in memory at least until another layer is asked for. */
  block(layer: number): Promise<Record<string, F32Tensor>>;
  /** Starts reading a layer, so that the file is read while another layer computes. */
  prefetch(layer: number): void;
  /** Bytes kept for good. */
  heldBytes(): number;
}

/** Bytes that weights may take when nothing is said: a quarter of the memory of this machine or container. */
export function defaultCacheBytes(): number {
  const limit = process.constrainedMemory();
  return Math.floor((limit > 0 ? Math.min(limit, totalmem()) : totalmem()) / 4);
}

/**
 * Weights in memory up to `limitBytes`, besides the layer in use and the next. What is read first stays and the rest is
 * read again each time round: layers are visited in a circle, where keeping those used last would never find anything.
 */
export function createWeightCache({ weights, config }: Model, limitBytes: number): WeightCache {
  const held = new Map<string, Promise<F32Tensor>>();
  const near = new Map<number, Promise<Record<string, F32Tensor>>>();
  let bytes = 0;

  const read = (name: string): Promise<F32Tensor> => {
    const known = held.get(name);
    if (known) return known;
    const reading = weights.read(name) as Promise<F32Tensor>;
    const size = 4 * sizeOf(weights.shapeOf(name));
    if (bytes + size > limitBytes) return reading;
    bytes += size;
    held.set(name, reading);
    // A failed read must not be remembered as the answer.
    reading.catch(() => {
      if (held.delete(name)) bytes -= size;
    });
    return reading;
  };

  const readBlock = async (layer: number, block: BlockConfig) => {
    const names = blockWeights(config, block).map(({ name }) => name);
    const tensors = await Promise.all(names.map((name) => read(layerPrefix(layer) + name)));
    return Object.fromEntries(names.map((name, i) => [name, tensors[i]!]));
  };

  const blockOf = (layer: number): Promise<Record<string, F32Tensor>> => {
    const known = near.get(layer);
    if (known) return known;
    const reading = readBlock(layer, config.blocks[layer]!);
    near.set(layer, reading);
    reading.catch(() => near.delete(layer));
    return reading;
  };

  return {
    read,
    block(layer) {
      const reading = blockOf(layer);
      for (const other of near.keys()) if (other !== layer && other !== layer + 1) near.delete(other);
      return reading;
    },
    prefetch(layer) {
      if (layer < config.blocks.length) blockOf(layer);
    },
    heldBytes: () => bytes,
  };
}

/** The final norm and the head's matrix. */
export async function readHead(cache: WeightCache, model: Model): Promise<{ norm: F32Tensor; head: F32Tensor }> {
  const [norm, head] = await Promise.all([cache.read("model.norm.weight"), cache.read(headWeightName(model.config))]);
  return { norm, head };
}
