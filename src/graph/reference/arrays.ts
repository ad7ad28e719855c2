import { type Shape, sizeOf } from "../../tensor/index.js";

/** A tensor of the reference interpreter: every element type as float64 (ids and truth values as numbers). */
export interface Array64 {
  readonly shape: Shape;
  readonly data: Float64Array;
}

export function array64(shape: Shape, data: Float64Array = new Float64Array(sizeOf(shape))): Array64 {
  return { shape, data };
}

export function strides(shape: Shape): number[] {
  const result: number[] = shape.map(() => 1);
  for (let axis = shape.length - 2; axis >= 0; axis--) result[axis] = result[axis + 1]! * shape[axis + 1]!;
  return result;
}

/** Offsets into an operand of `shape` for each element of a result of `target`, by NumPy broadcasting. */
function broadcastOffsets(shape: Shape, target: Shape): Int32Array {
  const own = strides(shape);
  const extra = target.length - shape.length;
  const steps = target.map((_, axis) => (axis < extra || shape[axis - extra] === 1 ? 0 : own[axis - extra]!));
  return walk(target, steps);
}

/** For each index of `shape` in row-major order, the sum of index times step. */
export function walk(shape: Shape, steps: readonly number[]): Int32Array {
  const offsets = new Int32Array(sizeOf(shape));
  const index = shape.map(() => 0);
  let offset = 0;
  for (let i = 0; i < offsets.length; i++) {
    offsets[i] = offset;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      offset += steps[axis]!;
      index[axis]!++;
      if (index[axis]! < shape[axis]!) break;
      offset -= steps[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
  return offsets;
}

export function map(x: Array64, f: (value: number) => number): Array64 {
  return array64(x.shape, x.data.map(f));
}

export function zip(shape: Shape, operands: readonly Array64[], f: (...values: number[]) => number): Array64 {
  const offsets = operands.map((operand) => broadcastOffsets(operand.shape, shape));
  const result = array64(shape);
  for (let i = 0; i < result.data.length; i++) {
    result.data[i] = f(...operands.map((operand, which) => operand.data[offsets[which]![i]!]!));
  }
  return result;
}

/** Views the array as [outer, dim, inner] around an axis. */
export function around(shape: Shape, axis: number): { outer: number; dim: number; inner: number } {
  return { outer: sizeOf(shape.slice(0, axis)), dim: shape[axis]!, inner: sizeOf(shape.slice(axis + 1)) };
}

/** Applies `f` to every row of the last axis. */
export function mapRows(x: Array64, f: (row: Float64Array) => ArrayLike<number>): Array64 {
  const width = x.shape.at(-1)!;
  const rows = x.data.length / width;
  const parts = Array.from({ length: rows }, (_, i) => f(x.data.subarray(i * width, (i + 1) * width)));
  const outWidth = parts[0]!.length;
  const result = array64([...x.shape.slice(0, -1), outWidth]);
  parts.forEach((part, i) => {
    result.data.set(part, i * outWidth);
  });
  return result;
}

/** Batched alpha op(a) op(b). */
export function multiply(
  a: Array64,
  b: Array64,
  { transposeA, transposeB, alpha }: { transposeA: boolean; transposeB: boolean; alpha: number },
): Array64 {
  const [a0, a1] = a.shape.slice(-2) as [number, number];
  const [b0, b1] = b.shape.slice(-2) as [number, number];
  const [rows, inner] = transposeA ? [a1, a0] : [a0, a1];
  const columns = transposeB ? b0 : b1;
  const batch = a.shape.slice(0, -2);
  const result = array64([...batch, rows, columns]);
  const [aRow, aInner] = transposeA ? [1, a1] : [a1, 1];
  const [bInner, bColumn] = transposeB ? [1, b1] : [b1, 1];
  for (let n = 0; n < sizeOf(batch); n++) {
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        let sum = 0;
        for (let k = 0; k < inner; k++) {
          sum += a.data[n * a0 * a1 + i * aRow + k * aInner]! * b.data[n * b0 * b1 + k * bInner + j * bColumn]!;
        }
        result.data[n * rows * columns + i * columns + j] = alpha * sum;
      }
    }
  }
  return result;
}
