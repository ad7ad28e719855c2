/**
 * @module Block quantisation of ggml to f32. Each type's layout is stated above its loop; `d` and `m` are f16, `q` are
 * packed integers, low nibble first. Values equal ggml's bit for bit: every product below is exact in float64, so the
 * store to f32 rounds once, as ggml's own arithmetic does.
 */
import { EspalierError } from "../../base/index.js";
import { f16ToF32 } from "../../tensor/index.js";
import { decodeFloats } from "../floats.js";

/** Decodes whole blocks from `q` to `y`. `half` turns f16 bits into numbers. */
type Kernel = (q: Uint8Array, y: Float32Array, half: Float32Array) => void;

/** Values of a tensor's bytes as f32, in `into` if that is given. Throws for a type that cannot be read. */
export function dequantise(
  type: string,
  bytes: Uint8Array,
  elements: number,
  where: string,
  into?: Float32Array,
): Float32Array {
  if (type === "F32") return decodeFloats("f32", bytes, into);
  if (type === "F16") return decodeFloats("f16", bytes, into);
  if (type === "BF16") return decodeFloats("bf16", bytes, into);
  const kernel = kernels[type];
  if (!kernel) {
    throw new EspalierError({
      where,
      expected: `one of the tensor types F32, F16, BF16, ${Object.keys(kernels).join(", ")}`,
      found: type,
      fix: "re-export the model as Q8_0 or F16",
    });
  }
  const values = into ?? new Float32Array(elements);
  kernel(bytes, values, halfTable());
  return values;
}

let table: Float32Array | undefined;

/** Every f16 as a number: 256 KiB, made when first needed, and much quicker than decoding a scale per block. */
function halfTable(): Float32Array {
  table ??= f16ToF32(Uint16Array.from({ length: 65536 }, (_, bits) => bits));
  return table;
}

/** 32 values: d, 16 bytes. Value = d (q - 8); low nibbles hold the first half. */
const q4_0: Kernel = (q, y, half) => {
  for (let at = 0, o = 0; o < y.length; at += 18, o += 32) {
    const d = half[q[at]! | (q[at + 1]! << 8)]!;
    for (let j = 0; j < 16; j++) {
      const byte = q[at + 2 + j]!;
      y[o + j] = ((byte & 15) - 8) * d;
      y[o + j + 16] = ((byte >> 4) - 8) * d;
    }
  }
};

/** 32 values: d, m, 16 bytes. Value = d q + m. */
const q4_1: Kernel = (q, y, half) => {
  for (let at = 0, o = 0; o < y.length; at += 20, o += 32) {
    const d = half[q[at]! | (q[at + 1]! << 8)]!;
    const m = half[q[at + 2]! | (q[at + 3]! << 8)]!;
    for (let j = 0; j < 16; j++) {
      const byte = q[at + 4 + j]!;
      y[o + j] = (byte & 15) * d + m;
      y[o + j + 16] = (byte >> 4) * d + m;
    }
  }
};

/** 32 values: d, 32 fifth bits, 16 bytes. Value = d (q - 16). */
const q5_0: Kernel = (q, y, half) => {
  for (let at = 0, o = 0; o < y.length; at += 22, o += 32) {
    const d = half[q[at]! | (q[at + 1]! << 8)]!;
    const high = q[at + 2]! | (q[at + 3]! << 8) | (q[at + 4]! << 16) | (q[at + 5]! << 24);
    for (let j = 0; j < 16; j++) {
      const byte = q[at + 6 + j]!;
      y[o + j] = (((byte & 15) | (((high >>> j) & 1) << 4)) - 16) * d;
      y[o + j + 16] = (((byte >> 4) | (((high >>> (j + 16)) & 1) << 4)) - 16) * d;
    }
  }
};

/** 32 values: d, m, 32 fifth bits, 16 bytes. Value = d q + m. */
const q5_1: Kernel = (q, y, half) => {
  for (let at = 0, o = 0; o < y.length; at += 24, o += 32) {
    const d = half[q[at]! | (q[at + 1]! << 8)]!;
    const m = half[q[at + 2]! | (q[at + 3]! << 8)]!;
    const high = q[at + 4]! | (q[at + 5]! << 8) | (q[at + 6]! << 16) | (q[at + 7]! << 24);
    for (let j = 0; j < 16; j++) {
      const byte = q[at + 8 + j]!;
      y[o + j] = ((byte & 15) | (((high >>> j) & 1) << 4)) * d + m;
      y[o + j + 16] = ((byte >> 4) | (((high >>> (j + 16)) & 1) << 4)) * d + m;
    }
  }
};

/** 32 values: d, 32 signed bytes. Value = d q. */
const q8_0: Kernel = (q, y, half) => {
  const signed = new Int8Array(q.buffer, q.byteOffset, q.byteLength);
  for (let at = 0, o = 0; o < y.length; at += 34, o += 32) {
    const d = half[q[at]! | (q[at + 1]! << 8)]!;
    for (let j = 0; j < 32; j++) y[o + j] = signed[at + 2 + j]! * d;
  }
};

/**
 * Scale and minimum of sub-block `j` (0 to 7) of Q4_K and Q5_K, six bits each, packed in twelve bytes at `at`: the low
 * six bits of bytes 0-3 and 4-7 for the first four, the nibbles of bytes 8-11 topped up by spare high bits for the rest.
 */
function scaleOf(q: Uint8Array, at: number, j: number): number {
  return j < 4 ? q[at + j]! & 63 : (q[at + j + 4]! & 15) | ((q[at + j - 4]! >> 6) << 4);
}

function minimumOf(q: Uint8Array, at: number, j: number): number {
  return j < 4 ? q[at + j + 4]! & 63 : (q[at + j + 4]! >> 4) | ((q[at + j]! >> 6) << 4);
}

/** 256 values: d, dmin, 12 bytes of scales and minimums, 128 bytes. Value = d scale q - dmin minimum, per 32 values. */
const q4_k: Kernel = (q, y, half) => {
  for (let at = 0, o = 0; o < y.length; at += 144, o += 256) {
    const d = half[q[at]! | (q[at + 1]! << 8)]!;
    const dmin = half[q[at + 2]! | (q[at + 3]! << 8)]!;
    for (let j = 0; j < 8; j += 2) {
      const [d1, m1] = [d * scaleOf(q, at + 4, j), dmin * minimumOf(q, at + 4, j)];
      const [d2, m2] = [d * scaleOf(q, at + 4, j + 1), dmin * minimumOf(q, at + 4, j + 1)];
      const from = at + 16 + 16 * j;
      const to = o + 32 * j;
      for (let i = 0; i < 32; i++) {
        const byte = q[from + i]!;
        y[to + i] = d1 * (byte & 15) - m1;
        y[to + 32 + i] = d2 * (byte >> 4) - m2;
      }
    }
  }
};

/** 256 values: as Q4_K with 32 bytes of fifth bits before the nibbles; bit 2k and 2k + 1 belong to the k-th 64 values. */
const q5_k: Kernel = (q, y, half) => {
  for (let at = 0, o = 0; o < y.length; at += 176, o += 256) {
    const d = half[q[at]! | (q[at + 1]! << 8)]!;
    const dmin = half[q[at + 2]! | (q[at + 3]! << 8)]!;
    for (let j = 0; j < 8; j += 2) {
      const [d1, m1] = [d * scaleOf(q, at + 4, j), dmin * minimumOf(q, at + 4, j)];
      const [d2, m2] = [d * scaleOf(q, at + 4, j + 1), dmin * minimumOf(q, at + 4, j + 1)];
      const from = at + 48 + 16 * j;
      const to = o + 32 * j;
      for (let i = 0; i < 32; i++) {
        const byte = q[from + i]!;
        const high = q[at + 16 + i]! >> j;
        y[to + i] = d1 * ((byte & 15) + ((high & 1) << 4)) - m1;
        y[to + 32 + i] = d2 * ((byte >> 4) + ((high & 2) << 3)) - m2;
      }
    }
  }
};

/** 256 values: 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, d. Value = d scale (q - 32), per 16 values. */
const q6_k: Kernel = (q, y, half) => {
  const signed = new Int8Array(q.buffer, q.byteOffset, q.byteLength);
  for (let at = 0, o = 0; o < y.length; at += 210, o += 256) {
    const d = half[q[at + 208]! | (q[at + 209]! << 8)]!;
    for (let n = 0; n < 2; n++) {
      const [low, high, scale, to] = [at + 64 * n, at + 128 + 32 * n, at + 192 + 8 * n, o + 128 * n];
      for (let i = 0; i < 32; i++) {
        const [a, b, h] = [q[low + i]!, q[low + 32 + i]!, q[high + i]!];
        const s = scale + (i >> 4);
        y[to + i] = d * signed[s]! * (((a & 15) | ((h & 3) << 4)) - 32);
        y[to + 32 + i] = d * signed[s + 2]! * (((b & 15) | ((h & 12) << 2)) - 32);
        y[to + 64 + i] = d * signed[s + 4]! * (((a >> 4) | (h & 48)) - 32);
        y[to + 96 + i] = d * signed[s + 6]! * (((b >> 4) | ((h & 192) >> 2)) - 32);
      }
    }
  }
};

const kernels: Readonly<Record<string, Kernel>> = {
  Q8_0: q8_0,
  Q4_0: q4_0,
  Q4_1: q4_1,
  Q5_0: q5_0,
  Q5_1: q5_1,
  Q4_K: q4_k,
  Q5_K: q5_k,
  Q6_K: q6_k,
};
