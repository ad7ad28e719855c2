/** @module The one view of a checkpoint's tensors that both file formats give, and that both writers take. */
import { EspalierError } from "../base/index.js";

/** Tensors by name, whatever number of files they lie in and whatever type they are stored as. */
export interface TensorFile {
  readonly names: readonly string[];
  /** Type in the file, shape in row-major order and bytes; undefined for an unknown name. */
  info(name: string): TensorInfo | undefined;
  /** Values as f32 in row-major order. */
  read(name: string): Promise<Float32Array>;
  close(): Promise<void>;
}

export interface TensorInfo {
  type: string;
  shape: readonly number[];
  byteLength: number;
}

/** One tensor to write. Values are asked for when its turn comes, so that a model never lies in memory whole. */
export interface TensorPlan {
  name: string;
  shape: readonly number[];
  read(): Promise<Float32Array>;
}

export function countElements(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

/** Values of a planned tensor, checked against its shape. */
export async function readPlanned({ name, shape, read }: TensorPlan): Promise<Float32Array> {
  const values = await read();
  const expected = countElements(shape);
  if (values.length === expected) return values;
  throw new EspalierError({
    where: `tensor ${name}`,
    expected: `${expected} values for [${shape}]`,
    found: `${values.length}`,
  });
}
