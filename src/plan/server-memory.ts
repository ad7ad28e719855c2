/**
 * @module What servers load: safetensors in BF16, FP8 and INT4, and what each of several GPUs holds of them when every matrix is
 * divided between them (tensor parallelism, as vLLM and TensorRT-LLM do it).
 *
 * FP8: a byte for each weight of a linear layer and two f32 scales, of its weights and of its inputs. AWQ and GPTQ: four bits,
 * and for every 128 inputs of an output a 16-bit scale and a four-bit zero; GPTQ also a 32-bit group number for each input.
 * Embedding, head and norms stay in 16 bits in all of them.
 */
import { kvCacheBytesPerToken } from "./kv-cache.js";
import { ggufTensors, type ModelShape, type PlannedTensor } from "./model-shape.js";
import { dividesHeads } from "./server-speed.js";

export const safetensorsTypes = ["BF16", "FP8", "AWQ", "GPTQ"] as const;
export type SafetensorsType = (typeof safetensorsTypes)[number];

const groupSize = 128;

const linearBytes: Record<SafetensorsType, (outputs: number, inputs: number) => number> = {
  BF16: (outputs, inputs) => 2 * outputs * inputs,
  FP8: (outputs, inputs) => outputs * inputs + 8,
  AWQ: (outputs, inputs) => packedBytes(outputs, inputs),
  GPTQ: (outputs, inputs) => packedBytes(outputs, inputs) + 4 * inputs,
};

function packedBytes(outputs: number, inputs: number): number {
  const groups = Math.ceil(inputs / groupSize);
  return (outputs * inputs) / 2 + groups * outputs * (2 + 0.5);
}

/** Tensor bytes of a safetensors checkpoint, headers left out. */
export function safetensorsBytes(shape: ModelShape, type: SafetensorsType): number {
  return partsOf(shape, type).reduce((sum, { bytes }) => sum + bytes, 0);
}

export interface ParallelShare {
  gpus: number;
  weightBytes: number;
  /** With 16-bit keys and values. */
  kvBytesPerToken: number;
  /** Why the model cannot be divided so; absent where it can. */
  reason?: string;
}

/** What one of `gpus` holds. Norms are on all of them; a key/value head is copied where there are fewer than GPUs. */
export function parallelShare(shape: ModelShape, type: SafetensorsType, gpus: number): ParallelShare {
  const weightBytes = partsOf(shape, type).reduce(
    (sum, { bytes, divided }) => sum + (divided ? Math.ceil(bytes / gpus) : bytes),
    0,
  );
  const share = { gpus, weightBytes, kvBytesPerToken: sharedCache(shape, gpus) };
  return dividesHeads(shape, gpus) ? share : { ...share, reason: headsThatDoNotDivide(shape, gpus) };
}

function partsOf(shape: ModelShape, type: SafetensorsType): { bytes: number; divided: boolean }[] {
  return ggufTensors({ ...shape, rotaryFactors: false }).map((tensor) => ({
    bytes: tensorBytesOf(tensor, type),
    divided: tensor.role !== "kept",
  }));
}

function tensorBytesOf({ role, shape }: PlannedTensor, type: SafetensorsType): number {
  const elements = shape.reduce((a, b) => a * b, 1);
  if (role === "kept" || role === "embedding" || role === "head") return 2 * elements;
  const inputs = shape.at(-1)!;
  return linearBytes[type](elements / inputs, inputs);
}

function sharedCache(shape: ModelShape, gpus: number): number {
  const blocks = shape.blocks.map((block) =>
    block.attention.kind === "gqa"
      ? { ...block, attention: { ...block.attention, kvHeads: Math.max(1, Math.ceil(block.attention.kvHeads / gpus)) } }
      : block,
  );
  return kvCacheBytesPerToken({ ...shape, blocks });
}

function headsThatDoNotDivide({ heads, blocks }: ModelShape, gpus: number): string {
  if (heads % gpus !== 0) return `${heads} query heads do not divide by ${gpus}`;
  const groups = blocks.flatMap(({ attention }, layer) =>
    attention.kind === "gqa" && attention.kvHeads % gpus !== 0 && gpus % attention.kvHeads !== 0
      ? [{ layer, kvHeads: attention.kvHeads }]
      : [],
  );
  const [first] = groups;
  return `${first!.kvHeads} key/value heads of layer ${first!.layer} do not divide by ${gpus}`;
}
