/**
 * @module Sums of calibration rows. ONNX Runtime multiplies one batch in f32; batches are added in float64, so that the
 * sums do not drift with the number of tokens.
 */
import { createGraph } from "../graph/index.js";
import type { Program, Runtime } from "../runtime/index.js";
import { type F32Tensor, f32Tensor } from "../tensor/index.js";
import { emptyMoments, type Moments } from "./refit.js";
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
  /** Sums with wanted outputs. */
  moments(n: number, m: number): MomentSums;
  /** Sums of the inputs alone. */
  gram(n: number): GramSums;
  dispose(): void;
}

export interface GramSums {
  /** Sum of x x^T, [n, n]. */
  readonly gram: Float64Array;
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
  return {
    async multiply(a, b) {
      const [p, q, r] = [a.shape[0]!, a.shape[1]!, b.shape[1]!];
      const { product } = await (await program(`multiply ${p} ${q} ${r}`, () => compileMultiply(runtime, p, q, r))).run(
        {
          a,
          b,
        },
      );
      return f32Tensor([p, r], product!.data as Float32Array);
    },
    moments(n, m) {
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

function accumulate(sums: Float64Array, batch: Float32Array): void {
  for (let i = 0; i < sums.length; i++) sums[i]! += batch[i]!;
}

function compileMultiply(runtime: Runtime, p: number, q: number, r: number): Promise<Program> {
  const g = createGraph("multiply");
  g.output("product", g.matmul(g.input("a", [p, q]), g.input("b", [q, r])));
  return runtime.compile(g);
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
