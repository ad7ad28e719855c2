import { EspalierError } from "../base/index.js";

/** Element types that host tensors can hold. Graphs compute in f32, i64, i32 and bool, and read i8 and u8. */
export type DType = "f32" | "f16" | "bf16" | "f64" | "i64" | "i32" | "i8" | "u8" | "bool";

/** Sizes of the axes, outermost first; `[]` is a scalar. */
export type Shape = readonly number[];

/** Storage of each element type; halves are kept as raw 16-bit patterns. */
export interface DataByDType {
  f32: Float32Array;
  f16: Uint16Array;
  bf16: Uint16Array;
  f64: Float64Array;
  i64: BigInt64Array;
  i32: Int32Array;
  i8: Int8Array;
  u8: Uint8Array;
  bool: Uint8Array;
}

export type TensorData = DataByDType[DType];

/** A dense row-major array in main memory. `data` may be a view of a larger buffer. */
export interface HostTensor {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly data: TensorData;
}

/** A host tensor known to be f32. */
export interface F32Tensor extends HostTensor {
  readonly dtype: "f32";
  readonly data: Float32Array;
}

const bytesByDType = {
  f32: 4,
  f16: 2,
  bf16: 2,
  f64: 8,
  i64: 8,
  i32: 4,
  i8: 1,
  u8: 1,
  bool: 1,
} as const satisfies Record<DType, number>;

/** Bytes of one element. */
export function bytesOf(dtype: DType): number {
  return bytesByDType[dtype];
}

/** Number of elements of a shape; 1 for a scalar. */
export function sizeOf(shape: Shape): number {
  let size = 1;
  for (const dim of shape) size *= dim;
  return size;
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dim, i) => dim === b[i]);
}

/** `f32[2, 3]`, as graphs and errors print it. */
export function formatType(dtype: DType, shape: Shape): string {
  return `${dtype}[${shape.join(", ")}]`;
}

/** Wraps `data`, zeros when absent. @throws EspalierError when the length does not fit the shape. */
export function f32Tensor(
  shape: Shape,
  data: Float32Array | readonly number[] = new Float32Array(sizeOf(shape)),
): F32Tensor {
  return checked({ dtype: "f32", shape, data: data instanceof Float32Array ? data : Float32Array.from(data) });
}

/** 64-bit integers (token ids, positions) from ordinary numbers. */
export function i64Tensor(shape: Shape, data: BigInt64Array | ArrayLike<number>): HostTensor {
  if (data instanceof BigInt64Array) return checked({ dtype: "i64", shape, data });
  const wide = new BigInt64Array(data.length);
  for (let i = 0; i < data.length; i++) wide[i] = BigInt(data[i]!);
  return checked({ dtype: "i64", shape, data: wide });
}

/** Zeros of any element type. */
export function zerosTensor(dtype: DType, shape: Shape): HostTensor {
  return { dtype, shape, data: allocate(dtype, sizeOf(shape)) };
}

export function allocate<D extends DType>(dtype: D, length: number): DataByDType[D] {
  return allocators[dtype](length);
}

const allocators: { readonly [D in DType]: (length: number) => DataByDType[D] } = {
  f32: (n) => new Float32Array(n),
  f16: (n) => new Uint16Array(n),
  bf16: (n) => new Uint16Array(n),
  f64: (n) => new Float64Array(n),
  i64: (n) => new BigInt64Array(n),
  i32: (n) => new Int32Array(n),
  i8: (n) => new Int8Array(n),
  u8: (n) => new Uint8Array(n),
  bool: (n) => new Uint8Array(n),
};

function checked<T extends HostTensor>(tensor: T): T {
  if (tensor.data.length === sizeOf(tensor.shape)) return tensor;
  throw new EspalierError({
    where: "tensor",
    expected: `${sizeOf(tensor.shape)} elements for ${formatType(tensor.dtype, tensor.shape)}`,
    found: `${tensor.data.length}`,
  });
}
