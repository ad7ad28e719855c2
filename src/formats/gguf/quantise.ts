/** @module f32 to the types that the writer knows, rounding as llama.cpp's own quantiser does. */
import { f32ToF16 } from "../../tensor/index.js";
import { encodeFloats } from "../floats.js";
import type { WritableType } from "./types.js";

/** Bytes of a tensor in one type. Throws where the type cannot hold a value. */
export function quantise(type: WritableType, values: Float32Array, where: string): Uint8Array {
  if (type === "q8_0") return quantiseQ8_0(values);
  return encodeFloats(type, values, where);
}

/**
 * Blocks of 32: scale = largest magnitude / 127 as f16, then the rounded multiples as signed bytes. Rounding is half away
 * from zero and the multiples are taken of the scale before it became f16, as in ggml.
 */
function quantiseQ8_0(values: Float32Array): Uint8Array {
  const blocks = values.length / 32;
  const bytes = new Uint8Array(blocks * 34);
  const signed = new Int8Array(bytes.buffer);
  const scales = new Float32Array(blocks);
  for (let block = 0; block < blocks; block++) {
    const from = 32 * block;
    let largest = 0;
    for (let i = from; i < from + 32; i++) {
      const magnitude = Math.abs(values[i]!);
      if (magnitude > largest) largest = magnitude;
    }
    const d = Math.fround(largest / 127);
    scales[block] = d;
    const inverse = d === 0 ? 0 : Math.fround(1 / d);
    const to = 34 * block + 2;
    for (let i = 0; i < 32; i++) {
      const scaled = Math.fround(values[from + i]! * inverse);
      signed[to + i] = scaled < 0 ? (scaled - 0.5) | 0 : (scaled + 0.5) | 0;
    }
  }
  const halves = f32ToF16(scales);
  for (let block = 0; block < blocks; block++) {
    bytes[34 * block] = halves[block]! & 255;
    bytes[34 * block + 1] = halves[block]! >> 8;
  }
  return bytes;
}
