/**
 * @module The plain floating-point types that checkpoints store, to and from f32. Everything above this file
 * computes in f32; what a file holds is a matter of the file.
 */
import { EspalierError } from "../base/index.js";
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from "../tensor/index.js";

export type FloatType = "f32" | "f16" | "bf16";

export const floatBytes = { f32: 4, f16: 2, bf16: 2 } as const satisfies Record<FloatType, number>;

/** Little-endian bytes as f32, in `into` if that is given. The result may share the memory of `bytes`. */
export function decodeFloats(type: FloatType, bytes: Uint8Array, into?: Float32Array): Float32Array {
  if (type === "f32") {
    const values = new Float32Array(aligned(bytes, 4), 0, bytes.byteLength / 4);
    into?.set(values);
    return into ?? values;
  }
  const halves = new Uint16Array(aligned(bytes, 2), 0, bytes.byteLength / 2);
  return type === "f16" ? f16ToF32(halves, into) : bf16ToF32(halves, into);
}

/**
 * f32 as little-endian bytes, rounded to nearest even. The result may share the memory of `values`. Throws where a value
 * would become infinite, because one such weight poisons the model.
 */
export function encodeFloats(type: FloatType, values: Float32Array, where: string): Uint8Array {
  checkRange(type, values, where);
  switch (type) {
    case "f32":
      return asBytes(values);
    case "f16":
      return asBytes(f32ToF16(values));
    case "bf16":
      return asBytes(f32ToBf16(values));
  }
}

/** The smallest magnitudes that round to infinity: half a unit above the largest finite numbers. */
const overflow = { f32: Infinity, f16: 65520, bf16: 2 ** 128 - 2 ** 119 } as const satisfies Record<FloatType, number>;

function checkRange(type: FloatType, values: Float32Array, where: string): void {
  if (type === "f32") return;
  let largest = 0;
  for (let i = 0; i < values.length; i++) {
    const magnitude = Math.abs(values[i]!);
    if (magnitude > largest) largest = magnitude;
  }
  if (largest < overflow[type]) return;
  const fix = type === "f16" ? "write bf16 or f32" : "write f32";
  throw new EspalierError({ where, expected: `values below ${overflow[type]} (${type})`, found: `${largest}`, fix });
}

export function asBytes(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

/** Typed arrays need their offset to be a multiple of their size; bytes read from a file start at 0 and are not copied. */
function aligned(bytes: Uint8Array, size: number): ArrayBuffer {
  const whole = bytes.buffer instanceof ArrayBuffer && bytes.byteOffset === 0 && bytes.byteLength % size === 0;
  return whole ? (bytes.buffer as ArrayBuffer) : (bytes.slice().buffer as ArrayBuffer);
}

/** Where the first NaN or infinite value is, or -1. The sum of x * 0 is NaN exactly when there is one. */
export function findNonFinite(values: Float32Array): number {
  const step = 1 << 16;
  for (let start = 0; start < values.length; start += step) {
    const end = Math.min(start + step, values.length);
    let sum = 0;
    for (let i = start; i < end; i++) sum += values[i]! * 0;
    if (sum !== 0) return values.subarray(start, end).findIndex((x) => !Number.isFinite(x)) + start;
  }
  return -1;
}
