import { totalmem } from "node:os";
import {
  type BlockConfig,
  blockWeights,
  headWeightName,
  layerPrefix,
  type Model,
  type ModelConfig,
  modelParameters,
  readWeightRows,
} from "../models/index.js";
import { type F32Tensor, f32Tensor, sizeOf } from "../tensor/index.js";

export interface WeightCache {
  /** One tensor by its full name, from memory or from the file. */
  read(name: string): Promise<F32Tensor>;
  /** Rows of a tensor from `from` up to, not including, `to`: a view where the tensor is kept, else read alone. */
  readRows(name: string, from: number, to: number): Promise<F32Tensor>;
  /** Whether the tensor is in memory for good, or will be once it is read. */
  keeps(name: string): boolean;
  /** A layer's weights by short name. They stay in memory at least until another layer is asked for. */
  block(layer: number): Promise<Record<string, F32Tensor>>;
  /** Starts reading a layer that is to be kept, so that the file is read while another layer computes. */
  prefetch(layer: number): void;
  /** Bytes kept for good. */
  heldBytes(): number;
}

/** A quarter of the memory of this machine or container: what weights may take where speed comes before memory. */
export function generousCacheBytes(): number {
  const limit = process.constrainedMemory();
  return Math.floor((limit > 0 ? Math.min(limit, totalmem()) : totalmem()) / 4);
}

/** The largest model, as f32, that is kept in memory when nothing is said. */
const smallModelBytes = 2 ** 30;

/**
 * Bytes that weights may take when nothing is said: all that the model has where that is at most 1 GiB as f32 (a quarter
 * of a billion parameters) and a quarter of the machine, else none. A part would take memory and save little time.
 */
export function defaultCacheBytes(config: ModelConfig): number {
  const whole = 4 * modelParameters(config);
  return whole <= Math.min(smallModelBytes, generousCacheBytes()) ? whole : 0;
}

/**
 * Weights in memory up to `limitBytes`, besides the layer in use. What is read first stays and the rest is read again
 * each time round: layers are visited in a circle, where keeping those used last would never find anything.
 */
export function createWeightCache({ weights, config }: Model, limitBytes: number): WeightCache {
  const held = new Map<string, Promise<F32Tensor>>();
  const near = new Map<number, Promise<Record<string, F32Tensor>>>();
  const keep = createSlab(Math.min(limitBytes, 4 * modelParameters(config)));
  let bytes = 0;
  let lastRows: { key: string; rows: Promise<F32Tensor> } | undefined;

  const sizeInBytes = (name: string) => 4 * sizeOf(weights.shapeOf(name));
  const keeps = (name: string) => held.has(name) || bytes + sizeInBytes(name) <= limitBytes;

  const read = (name: string): Promise<F32Tensor> => {
    const known = held.get(name);
    if (known) return known;
    const reading = weights.read(name) as Promise<F32Tensor>;
    const size = sizeInBytes(name);
    if (bytes + size > limitBytes) return reading;
    bytes += size;
    const keeping = reading.then(keep);
    held.set(name, keeping);
    // A failed read must not be remembered as the answer.
    keeping.catch(() => {
      if (held.delete(name)) bytes -= size;
    });
    return keeping;
  };

  const readRows = async (name: string, from: number, to: number): Promise<F32Tensor> => {
    if (keeps(name)) {
      const { data, shape } = await read(name);
      const width = sizeOf(shape.slice(1));
      return f32Tensor([to - from, ...shape.slice(1)], data.subarray(from * width, to * width));
    }
    const key = `${name} ${from} ${to}`;
    if (lastRows?.key === key) return lastRows.rows;
    lastRows = undefined;
    const rows = readWeightRows(weights, name, from, to);
    // Parent and child of one head, and several batches, ask for the same rows one after the other.
    if (to - from > 1) lastRows = { key, rows };
    return rows;
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

  const namesOf = (layer: number) =>
    blockWeights(config, config.blocks[layer]!).map(({ name }) => layerPrefix(layer) + name);

  return {
    read,
    readRows,
    keeps,
    block(layer) {
      for (const other of near.keys()) if (other !== layer && other !== layer + 1) near.delete(other);
      return blockOf(layer);
    },
    prefetch(layer) {
      // A layer that is not kept would only lie beside the one in use.
      if (layer < config.blocks.length && namesOf(layer).every(keeps)) blockOf(layer);
    },
    heldBytes: () => bytes,
  };
}

/**
 * One block of memory for the weights that stay, which goes back to the machine as a whole: in buffers of their own they
 * lie between activations, and what those leave free stays with the process. Views of larger buffers stay where they are.
 */
function createSlab(bytes: number): (tensor: F32Tensor) => F32Tensor {
  let slab: Float32Array | undefined;
  let used = 0;
  return (tensor) => {
    const { data, shape } = tensor;
    if (data.byteLength < data.buffer.byteLength) return tensor;
    slab ??= new Float32Array(Math.floor(bytes / Float32Array.BYTES_PER_ELEMENT));
    const kept = slab.subarray(used, used + data.length);
    if (kept.length < data.length) return tensor;
    used += data.length;
    kept.set(data);
    return f32Tensor(shape, kept);
  };
}

/** The final norm and the head's matrix. */
export async function readHead(cache: WeightCache, model: Model): Promise<{ norm: F32Tensor; head: F32Tensor }> {
  const [norm, head] = await Promise.all([cache.read("model.norm.weight"), cache.read(headWeightName(model.config))]);
  return { norm, head };
}
