import { createGraph } from "../graph/index.js";
import type { Program, Runtime } from "../runtime/index.js";
import { type F32Tensor, f32Tensor } from "../tensor/index.js";

export interface ProductOptions {
  transposeA?: boolean;
  transposeB?: boolean;
  /** Factor of the product. Defaults to 1. */
  alpha?: number;
  /** Added to the product; of its shape. */
  plus?: F32Tensor;
  /** Receives the result; may not be one of the operands. Defaults to a new array. */
  into?: Float32Array;
}

/** alpha op(a) op(b) + plus of matrices, multiplied by ONNX Runtime in f32. */
export type Product = (a: F32Tensor, b: F32Tensor, options?: ProductOptions) => Promise<F32Tensor>;

/** Products on one runtime; programs are compiled once for each shape. */
export function createProducts(runtime: Runtime): Product {
  const programs = new Map<string, Promise<Program>>();
  return async (a, b, { transposeA = false, transposeB = false, alpha = 1, plus, into } = {}) => {
    const key = `${a.shape} ${b.shape} ${transposeA} ${transposeB} ${alpha} ${plus !== undefined}`;
    const params = { transposeA, transposeB, alpha };
    const program = programs.get(key) ?? compileProduct(runtime, a, b, { ...params, added: plus !== undefined });
    programs.set(key, program);
    const shape = [a.shape[transposeA ? 1 : 0]!, b.shape[transposeB ? 0 : 1]!];
    const product = f32Tensor(shape, into ?? new Float32Array(shape[0]! * shape[1]!));
    await (await program).run({ a, b, ...(plus && { c: plus }) }, { product });
    return product;
  };
}

function compileProduct(
  runtime: Runtime,
  { shape: p }: F32Tensor,
  { shape: q }: F32Tensor,
  { added, ...params }: { transposeA: boolean; transposeB: boolean; alpha: number; added: boolean },
): Promise<Program> {
  const g = createGraph("product");
  const [a, b] = [g.input("a", p), g.input("b", q)];
  const shape = [p[params.transposeA ? 1 : 0]!, q[params.transposeB ? 0 : 1]!];
  g.output("product", added ? g.gemm(a, b, g.input("c", shape), params) : g.matmul(a, b, params));
  return runtime.compile(g);
}

/** Some columns of a matrix. */
export function columnsOf({ data, shape }: F32Tensor, start: number, count: number): F32Tensor {
  const [rows, width] = shape as [number, number];
  const part = new Float32Array(rows * count);
  for (let r = 0; r < rows; r++) part.set(data.subarray(r * width + start, r * width + start + count), r * count);
  return f32Tensor([rows, count], part);
}
