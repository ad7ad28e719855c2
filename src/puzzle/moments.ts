/**
 * @module Sums of calibration rows. ONNX Runtime multiplies one batch in f32; batches are added in float64, so that the
 * sums do not drift with the number of tokens. Sums over 2048 inputs and more are f32, where a batch of thousands of
 * tokens adds one rounding, and are made some rows at a time.
 */
import { createGraph } from "../graph/index.js";
import type { Program, Runtime } from "../runtime/index.js";
import { type F32Tensor, f32Tensor, type HostTensor } from "../tensor/index.js";
import { rankByElimination } from "./channel-order.js";
import { rankByPools } from "./channel-pools.js";
import { columnsOf, createProducts, type Product } from "./products.js";
import { asF32, emptyMoments, emptySums, type Moments, type Sums, wideInputs } from "./refit.js";
import { errorOf, refit } from "./refit-wide.js";
import type { Multiply } from "./variants.js";

/** Sums over rows that arrive batch by batch. */
export interface MomentSums {
  readonly moments: Moments;
  /** Sum of |x_i| of each input. */
  readonly absolute: Float64Array;
  /** Adds rows of inputs [rows, n] with their wanted outputs `after - before` [rows, m]. */
  add(inputs: F32Tensor, after: F32Tensor, before: F32Tensor): Promise<void>;
}

/** Matrix work of the closed forms on one runtime; programs are compiled once for each shape. */
export interface MatrixKernels {
  multiply: Multiply;
  /** x + inputs weight^T: the stream x [rows, m] past a matrix [m, n] that reads inputs [rows, n]. */
  addImage(x: F32Tensor, inputs: F32Tensor, weight: HostTensor): Promise<F32Tensor>;
  /** `refitTowards` of any width. */
  refit(start: HostTensor, moments: Moments, ridge: number): Promise<F32Tensor>;
  /** `normalisedError` of any width. */
  errorOf(weight: HostTensor, moments: Moments): Promise<number>;
  /** `rankByElimination`, by blocks where the channels are many. */
  rank(gram: Sums, weights: Float32Array, size: { n: number; m: number; ridge: number }): Promise<Int32Array>;
  /** Sums with wanted outputs. */
  moments(n: number, m: number): MomentSums;
  /** Sums of the inputs alone. */
  gram(n: number): GramSums;
  dispose(): void;
}

export interface GramSums {
  /** Sum of x x^T, [n, n]. */
  readonly gram: Sums;
  readonly absolute: Float64Array;
  rows: number;
  add(inputs: F32Tensor): Promise<void>;
}

export function createMatrixKernels(runtime: Runtime): MatrixKernels {
  const programs = new Map<string, Promise<Program>>();
  const program = (key: string, build: () => Promise<Program>): Promise<Program> => {
    const found = programs.get(key) ?? build();
    programs.set(key, found);
    return found;
  };
  const momentProgram = (rows: number, n: number, m: number) =>
    program(`moments ${rows} ${n} ${m}`, () => compileMoments(runtime, rows, n, m));
  const product = createProducts(runtime);
  return {
    multiply: (a, b) => product(a, b),
    addImage: (x, inputs, weight) =>
      product(inputs, f32Tensor(weight.shape, asF32(weight)), { transposeB: true, plus: x }),
    refit: (start, moments, ridge) => refit(product, start, moments, { ridge }),
    errorOf: (weight, moments) => errorOf(product, weight, moments),
    async rank(gram, weights, size) {
      if (size.n >= wideInputs) return rankByPools(product, gram, weights, size);
      return rankByElimination(gram, weights, size);
    },
    moments(n, m) {
      if (n >= wideInputs) return wideMoments(product, n, m);
      const sums = { moments: emptyMoments(n, m), absolute: new Float64Array(n) };
      return {
        ...sums,
        async add(inputs, after, before) {
          const rows = inputs.shape[0]!;
          const batch = await (await momentProgram(rows, n, m)).run({ inputs, after, before });
          accumulate(sums.moments.gram, batch.gram!.data as Float32Array);
          accumulate(sums.moments.cross, batch.cross!.data as Float32Array);
          accumulate(sums.absolute, batch.absolute!.data as Float32Array);
          sums.moments.targetSquares += (batch.squares!.data as Float32Array)[0]!;
        },
      };
    },
    gram(n) {
      if (n >= wideInputs) return wideGram(product, n);
      const sums: GramSums = {
        gram: new Float64Array(n * n),
        absolute: new Float64Array(n),
        rows: 0,
        async add(inputs) {
          const rows = inputs.shape[0]!;
          const compiled = await program(`gram ${rows} ${n}`, () => compileGram(runtime, rows, n));
          const batch = await compiled.run({ inputs });
          accumulate(sums.gram, batch.gram!.data as Float32Array);
          accumulate(sums.absolute, batch.absolute!.data as Float32Array);
          sums.rows += rows;
        },
      };
      return sums;
    },
    dispose: () => programs.clear(),
  };
}

function accumulate(sums: Sums, batch: Float32Array): void {
  for (let i = 0; i < sums.length; i++) sums[i]! += batch[i]!;
}

/** Rows of a wide sum that are made at once. */
const stripe = 512;

/** sums [n, k] += inputs^T outputs, some rows of them at a time. */
async function addProduct(product: Product, sums: Sums, inputs: F32Tensor, outputs: F32Tensor): Promise<void> {
  const n = inputs.shape[1]!;
  const k = outputs.shape[1]!;
  const into = new Float32Array(Math.min(stripe, n) * k);
  for (let from = 0; from < n; from += stripe) {
    const count = Math.min(stripe, n - from);
    const part = into.subarray(0, count * k);
    await product(columnsOf(inputs, from, count), outputs, { transposeA: true, into: part });
    accumulate(sums.subarray(from * k, (from + count) * k), part);
  }
}

function wideGram(product: Product, n: number): GramSums {
  const sums: GramSums = {
    gram: emptySums(n, n * n),
    absolute: new Float64Array(n),
    rows: 0,
    async add(inputs) {
      await addProduct(product, sums.gram, inputs, inputs);
      addAbsolute(sums.absolute, inputs.data);
      sums.rows += inputs.shape[0]!;
    },
  };
  return sums;
}

function wideMoments(product: Product, n: number, m: number): MomentSums {
  const moments = emptyMoments(n, m);
  const absolute = new Float64Array(n);
  return {
    moments,
    absolute,
    async add(inputs, after, before) {
      const wanted = f32Tensor(
        after.shape,
        after.data.map((value, i) => value - before.data[i]!),
      );
      await addProduct(product, moments.gram, inputs, inputs);
      await addProduct(product, moments.cross, inputs, wanted);
      addAbsolute(absolute, inputs.data);
      for (const value of wanted.data) moments.targetSquares += value * value;
    },
  };
}

function addAbsolute(sums: Float64Array, values: Float32Array): void {
  for (let i = 0, column = 0; i < values.length; i++) {
    sums[column]! += Math.abs(values[i]!);
    if (++column === sums.length) column = 0;
  }
}

function compileGram(runtime: Runtime, rows: number, n: number): Promise<Program> {
  const g = createGraph("gram");
  const x = g.input("inputs", [rows, n]);
  g.output("gram", g.matmul(x, x, { transposeA: true })); // [n, n]
  g.output("absolute", g.sum(g.abs(x), { axes: [0] })); // [n]
  return runtime.compile(g);
}

function compileMoments(runtime: Runtime, rows: number, n: number, m: number): Promise<Program> {
  const g = createGraph("moments");
  const x = g.input("inputs", [rows, n]);
  const y = g.sub(g.input("after", [rows, m]), g.input("before", [rows, m]));
  g.output("gram", g.matmul(x, x, { transposeA: true })); // [n, n]
  g.output("cross", g.matmul(x, y, { transposeA: true })); // [n, m]
  g.output("absolute", g.sum(g.abs(x), { axes: [0] })); // [n]
  g.output("squares", g.sum(g.square(y), { axes: [0, 1] })); // []
  return runtime.compile(g);
}
