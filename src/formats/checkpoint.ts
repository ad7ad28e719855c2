/** @module The one view of a checkpoint's tensors that both file formats give, and that both writers take. */
import { EspalierError } from "../base/index.js";

/** Tensors by name, whatever number of files they lie in and whatever type they are stored as. */
export interface TensorFile {
  readonly names: readonly string[];
  /** Type in the file, shape in row-major order and bytes; undefined for an unknown name. */
  info(name: string): TensorInfo | undefined;
  /** Values as f32 in row-major order. */
  read(name: string): Promise<Float32Array>;
  /** Values of the rows (steps along the first axis) from `from` up to, not including, `to`. */
  readRows(name: string, from: number, to: number): Promise<Float32Array>;
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
  /** Some rows, where they can be had alone: a large tensor is then written piece by piece. */
  readRows?(from: number, to: number): Promise<Float32Array>;
}

/** Values that are converted at once: 16 MiB as f32. */
export const pieceElements = 1 << 22;

/** Cuts the first axis of a tensor into ranges of about {@link pieceElements} values, each of whole rows. */
export function rowRanges(shape: readonly number[]): { from: number; to: number }[] {
  const rows = shape[0] ?? 1;
  const step = Math.max(1, Math.floor((pieceElements * rows) / Math.max(1, countElements(shape))));
  return Array.from({ length: Math.ceil(rows / step) }, (_, i) => ({
    from: i * step,
    to: Math.min(rows, (i + 1) * step),
  }));
}

/** A whole tensor out of its rows; what is in memory besides is one range of them as the file has it. */
export async function readByRows(
  shape: readonly number[],
  readRows: (from: number, to: number, into?: Float32Array) => Promise<Float32Array>,
): Promise<Float32Array> {
  const ranges = rowRanges(shape);
  if (ranges.length === 1) return readRows(0, shape[0] ?? 1);
  const values = new Float32Array(countElements(shape));
  const width = values.length / shape[0]!;
  for (const { from, to } of ranges) await readRows(from, to, values.subarray(from * width, to * width));
  return values;
}

/** @throws EspalierError for rows that the tensor does not have */
export function checkRows(where: string, shape: readonly number[], from: number, to: number): void {
  const rows = shape[0] ?? 1;
  if (Number.isInteger(from) && Number.isInteger(to) && 0 <= from && from <= to && to <= rows) return;
  throw new EspalierError({ where, expected: `rows of 0 to ${rows}`, found: `${from} to ${to}` });
}

/** Values of a planned tensor in order, piece by piece where it can be read so, each checked against its shape. */
export async function* plannedPieces(plan: TensorPlan): AsyncGenerator<Float32Array> {
  const { shape } = plan;
  const ranges = plan.readRows ? rowRanges(shape) : [];
  if (ranges.length < 2) {
    yield await readPlanned(plan);
    return;
  }
  for (const { from, to } of ranges) {
    yield await readPlanned({
      name: plan.name,
      shape: [to - from, ...shape.slice(1)],
      read: () => plan.readRows!(from, to),
    });
  }
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
