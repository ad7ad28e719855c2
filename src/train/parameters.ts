import { EspalierError } from "../base/index.js";
import {
  type F32Tensor,
  f32Tensor,
  formatType,
  type HostTensor,
  type Shape,
  sameShape,
  sizeOf,
} from "../tensor/index.js";

export interface ParameterInfo {
  readonly name: string;
  readonly shape: Shape;
}

/** Where a parameter lies in the flat array. */
export interface ParameterPlace extends ParameterInfo {
  readonly offset: number;
  readonly size: number;
}

/**
 * One flat array holds every parameter: matrices first, then vectors, each group in the given order. Gradients and the
 * optimiser's moments have the same layout, so that clipping, updates and checkpoints are passes over flat arrays, and
 * matrices that stand side by side (q, k, v) can be read as one.
 */
export interface ParameterLayout {
  readonly places: readonly ParameterPlace[];
  /** Elements that matrices take; the rest are vectors (norms, biases), which do not decay. */
  readonly matrixSize: number;
  readonly size: number;
}

export interface Parameters {
  readonly layout: ParameterLayout;
  readonly flat: Float32Array;
  /** Views of `flat`, by name. */
  readonly tensors: Readonly<Record<string, F32Tensor>>;
}

export function createLayout(infos: readonly ParameterInfo[]): ParameterLayout {
  const matrices = infos.filter(({ shape }) => shape.length > 1);
  const vectors = infos.filter(({ shape }) => shape.length <= 1);
  const places: ParameterPlace[] = [];
  let offset = 0;
  const place = ({ name, shape }: ParameterInfo) => {
    const size = sizeOf(shape);
    places.push({ name, shape, offset, size });
    offset += size;
  };
  matrices.forEach(place);
  const matrixSize = offset;
  vectors.forEach(place);
  return { places, matrixSize, size: offset };
}

/** All zeros until values are copied into the tensors. */
export function createParameters(infos: readonly ParameterInfo[]): Parameters {
  const layout = createLayout(infos);
  const flat = new Float32Array(layout.size);
  return { layout, flat, tensors: viewsOf(layout, flat) };
}

export function viewsOf({ places }: ParameterLayout, flat: Float32Array): Record<string, F32Tensor> {
  return Object.fromEntries(
    places.map(({ name, shape, offset, size }) => [name, f32Tensor(shape, flat.subarray(offset, offset + size))]),
  );
}

/** Copies values into the flat array, one tensor at a time. */
export async function loadParameters(
  { layout, tensors }: Parameters,
  read: (name: string) => Promise<HostTensor> | HostTensor,
): Promise<void> {
  for (const { name, shape } of layout.places) {
    const tensor = await read(name);
    if (tensor.dtype !== "f32" || !sameShape(tensor.shape, shape)) {
      const found = formatType(tensor.dtype, tensor.shape);
      throw new EspalierError({ where: `parameter ${name}`, expected: formatType("f32", shape), found });
    }
    tensors[name]!.data.set(tensor.data as Float32Array);
  }
}
