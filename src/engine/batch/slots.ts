/** @module The key and value cache of sequences that decode together: one tensor a layer, a slot for each sequence. */
import { maskedScore } from "../../graph/index.js";
import type { ModelConfig } from "../../models/index.js";
import { type F32Tensor, f32Tensor } from "../../tensor/index.js";

/** Keys and values of one layer, both [width, kvHeads, capacity, headDim]. */
interface LayerSlots {
  kvHeads: number;
  keys: Float32Array;
  values: Float32Array;
}

export interface Slots {
  /** Slots there are. */
  width: number;
  /** Positions that each has room for. */
  capacity: number;
  headDim: number;
  /** `undefined` where a block has no attention of its own positions. */
  layers: (LayerSlots | undefined)[];
}

export function createSlots({ blocks, headDim }: ModelConfig, width: number, capacity: number): Slots {
  const layers = blocks.map(({ attention }) => {
    if (attention.kind !== "gqa") return undefined;
    const size = width * attention.kvHeads * capacity * headDim;
    return { kvHeads: attention.kvHeads, keys: new Float32Array(size), values: new Float32Array(size) };
  });
  return { width, capacity, headDim, layers };
}

const parts = ["keys", "values"] as const;

/** The same contents with room for more positions; `lengths` of the slots in use. */
export function growSlots(config: ModelConfig, slots: Slots, capacity: number, lengths: readonly number[]): Slots {
  const grown = createSlots(config, slots.width, capacity);
  for (const [layer, part, kvHeads] of layersOf(slots)) {
    const [from, to] = [slots.layers[layer]![part], grown.layers[layer]![part]];
    lengths.forEach((length, slot) => {
      for (let row = slot * kvHeads; row < (slot + 1) * kvHeads; row++) {
        const start = row * slots.capacity * slots.headDim;
        to.set(from.subarray(start, start + length * slots.headDim), row * capacity * slots.headDim);
      }
    });
  }
  return grown;
}

/** A sequence goes to another slot, whose own is overwritten. */
export function moveSlot(slots: Slots, from: number, to: number): void {
  for (const [layer, part, kvHeads] of layersOf(slots)) {
    const size = kvHeads * slots.capacity * slots.headDim;
    slots.layers[layer]![part].copyWithin(to * size, from * size, (from + 1) * size);
  }
}

/** Outputs `newKeys.L` and `newValues.L` of a prompt's program go to a slot: its first `count` positions. */
export function writePrompt(
  slots: Slots,
  slot: number,
  fresh: Readonly<Record<string, F32Tensor>>,
  count: number,
): void {
  for (const [layer, part, kvHeads] of layersOf(slots)) {
    const { data, shape } = freshOf(fresh, layer, part);
    for (let head = 0; head < kvHeads; head++) {
      const start = head * shape[2]! * slots.headDim;
      const rows = data.subarray(start, start + count * slots.headDim);
      slots.layers[layer]![part].set(rows, (slot * kvHeads + head) * slots.capacity * slots.headDim);
    }
  }
}

/** Outputs of a step: one position for each of the sequences, written at its length. */
export function writeStep(slots: Slots, fresh: Readonly<Record<string, F32Tensor>>, lengths: readonly number[]): void {
  const { headDim, capacity } = slots;
  for (const [layer, part, kvHeads] of layersOf(slots)) {
    const [{ data }, target] = [freshOf(fresh, layer, part), slots.layers[layer]![part]];
    for (let row = 0; row < lengths.length * kvHeads; row++) {
      const position = lengths[Math.floor(row / kvHeads)]!;
      target.set(data.subarray(row * headDim, (row + 1) * headDim), (row * capacity + position) * headDim);
    }
  }
}

/** Views of the first `width` slots, named as the inputs of a step. */
export function slotInputs(slots: Slots, width: number): Record<string, F32Tensor> {
  const views: Record<string, F32Tensor> = {};
  for (const [layer, part, kvHeads] of layersOf(slots)) {
    const shape = [width, kvHeads, slots.capacity, slots.headDim];
    const size = shape.reduce((a, b) => a * b, 1);
    views[`${part}.${layer}`] = f32Tensor(shape, slots.layers[layer]![part].subarray(0, size));
  }
  return views;
}

/** Added to the scores: zero for the positions written. [width, capacity]; slots out of use see nothing but themselves. */
export function slotMask(width: number, capacity: number, lengths: readonly number[]): F32Tensor {
  const mask = f32Tensor([width, capacity], new Float32Array(width * capacity).fill(maskedScore));
  lengths.forEach((length, slot) => {
    mask.data.fill(0, slot * capacity, slot * capacity + length);
  });
  return mask;
}

function* layersOf({ layers }: Slots): Generator<[layer: number, part: "keys" | "values", kvHeads: number]> {
  for (let layer = 0; layer < layers.length; layer++) {
    const own = layers[layer];
    if (own) for (const part of parts) yield [layer, part, own.kvHeads];
  }
}

function freshOf(fresh: Readonly<Record<string, F32Tensor>>, layer: number, part: "keys" | "values"): F32Tensor {
  return fresh[`${part === "keys" ? "newKeys" : "newValues"}.${layer}`]!;
}
