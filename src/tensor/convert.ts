import { EspalierError } from "../base/index.js";
import { type F32Tensor, f32Tensor, formatType, type HostTensor, sizeOf } from "./types.js";

/** Widens bfloat16 patterns; exact. */
export function bf16ToF32(source: Uint16Array, target: Float32Array = new Float32Array(source.length)): Float32Array {
  const bits = bitsOf(target);
  for (let i = 0; i < source.length; i++) bits[i] = source[i]! << 16;
  return target;
}

/** Rounds to bfloat16, nearest even; NaN stays NaN. */
export function f32ToBf16(source: Float32Array, target = new Uint16Array(source.length)): Uint16Array {
  const bits = bitsOf(source);
  for (let i = 0; i < source.length; i++) target[i] = roundToBf16(bits[i]!);
  return target;
}

/** Widens IEEE half patterns; exact. */
export function f16ToF32(source: Uint16Array, target: Float32Array = new Float32Array(source.length)): Float32Array {
  for (let i = 0; i < source.length; i++) target[i] = halfToNumber(source[i]!);
  return target;
}

/** Rounds to IEEE half, nearest even; beyond 65520 becomes infinity, as hardware does. */
export function f32ToF16(source: Float32Array, target = new Uint16Array(source.length)): Uint16Array {
  const bits = bitsOf(source);
  for (let i = 0; i < source.length; i++) target[i] = roundToHalf(bits[i]!);
  return target;
}

export type HalfType = "f16" | "bf16";

/** The nearest values of a half-precision type, still f32; a new array. */
export function roundHalf(values: Float32Array, type: HalfType): Float32Array {
  return type === "f16" ? f16ToF32(f32ToF16(values)) : bf16ToF32(f32ToBf16(values));
}

/** Any float tensor as f32 (shared when it is f32 already). @throws EspalierError for integer types. */
export function toF32(tensor: HostTensor): F32Tensor {
  const { dtype, shape, data } = tensor;
  if (dtype === "f32") return tensor as F32Tensor;
  if (dtype === "bf16") return f32Tensor(shape, bf16ToF32(data as Uint16Array));
  if (dtype === "f16") return f32Tensor(shape, f16ToF32(data as Uint16Array));
  if (dtype === "f64") return f32Tensor(shape, Float32Array.from(data as Float64Array));
  throw new EspalierError({ where: "tensor", expected: "a float tensor", found: formatType(dtype, shape) });
}

/** Largest |a - b|; NaN anywhere gives NaN, so that a comparison against a tolerance fails. */
export function maxAbsDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) {
    throw new EspalierError({
      where: "tensor comparison",
      expected: `${a.length} elements`,
      found: `${b.length}`,
    });
  }
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs(a[i]! - b[i]!);
    // Infinities of one sign are equal; their difference is not a number.
    if (Number.isNaN(difference) && a[i] !== b[i]) return Number.NaN;
    if (difference > largest) largest = difference;
  }
  return largest;
}

/** Row-major transpose of a matrix [rows, columns], in tiles that stay in cache. */
export function transposeMatrix(source: Float32Array, rows: number, columns: number): Float32Array {
  const target = new Float32Array(sizeOf([rows, columns]));
  const tile = 32;
  for (let i0 = 0; i0 < rows; i0 += tile) {
    for (let j0 = 0; j0 < columns; j0 += tile) {
      const iEnd = Math.min(i0 + tile, rows);
      const jEnd = Math.min(j0 + tile, columns);
      for (let i = i0; i < iEnd; i++) {
        for (let j = j0; j < jEnd; j++) target[j * rows + i] = source[i * columns + j]!;
      }
    }
  }
  return target;
}

function bitsOf(floats: Float32Array): Uint32Array {
  return new Uint32Array(floats.buffer, floats.byteOffset, floats.length);
}

function roundToBf16(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40; // keep NaN a NaN
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

function roundToHalf(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x47800000) return sign | (magnitude > 0x7f800000 ? 0x7e00 : 0x7c00);
  if (magnitude < 0x38800000) {
    // Subnormal halves: adding 0.5 in f32 leaves an ulp of 2^-24, so the hardware rounds to nearest even for us.
    scratchBits[0] = magnitude;
    scratch[0] = scratch[0]! + 0.5;
    return sign | (scratchBits[0]! - 0x3f000000);
  }
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}

function halfToNumber(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >>> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}
