import { type Shape, sameShape } from "../../tensor/index.js";
import type { GraphCore } from "../builder.js";
import type { MatmulParams } from "../ops/params.js";
import type { TensorType, Value } from "../types.js";
import { createApply, resolveAxis } from "./apply.js";

export interface ReduceOptions {
  /** Negative axes count from the last. Defaults to all axes. */
  axes?: readonly number[];
  /** Keeps reduced axes with size 1. Defaults to false. */
  keepDims?: boolean;
}

/** A frozen matrix in 8 bits: its entries are those of `matrix` times the steps of their columns. */
export interface Int8Operands {
  /** i8 [K, N] */
  matrix: Value;
  /** f32 [N] */
  steps: Value;
  /** The transposed matrix, rounded by its own columns, for the gradient: i8 [N, K]. */
  back: Value;
  /** f32 [K] */
  backSteps: Value;
}

export function productMethods(core: GraphCore) {
  const { one } = createApply(core);
  const plain = { transposeA: false, transposeB: false, alpha: 1 };
  const matmul = (a: Value, b: Value, options: Partial<MatmulParams> = {}) =>
    one("matmul", [a, b], { ...plain, ...options });
  const gemm = (a: Value, b: Value, c: Value, options: Partial<MatmulParams> = {}) =>
    one("gemm", [a, b, c], { ...plain, ...options });
  return {
    /** alpha op(a) op(b); two axes, or equal batch axes before them. */
    matmul,
    /** alpha op(a) op(b) + c, two axes; c broadcasts. */
    gemm,
    /** x [N, I] with w [O, I] (the layout of checkpoints) and bias [O]: [N, O]. */
    linear: (x: Value, w: Value, bias?: Value) =>
      bias ? gemm(x, w, bias, { transposeB: true }) : matmul(x, w, { transposeB: true }),
    /** x [M, K] with a frozen matrix in 8 bits: [M, N]. */
    int8Linear: (x: Value, { matrix, steps, back, backSteps }: Int8Operands) =>
      one("int8Linear", [x, matrix, steps, back, backSteps], {}),
    /** x [M, K] with a constant matrix in 8 bits: levels u8 [N, blocks, B], steps [N * blocks]; [M, N]. */
    int8BlockLinear: (x: Value, levels: Value, steps: Value) => one("int8BlockLinear", [x, levels, steps], {}),
  };
}

export function reductionMethods(core: GraphCore) {
  const { one, unary } = createApply(core);
  const reduce =
    (kind: "sum" | "mean" | "max") =>
    (x: Value, { axes, keepDims = false }: ReduceOptions = {}) => {
      const all = axes?.map((axis) => resolveAxis(x, axis)) ?? x.shape.map((_, axis) => axis);
      return all.length === 0 ? x : one(kind, [x], { axes: all, keepDims });
    };
  const [sum, reshape] = [reduce("sum"), createReshape(core)];
  return {
    sum,
    mean: reduce("mean"),
    max: reduce("max"),
    /** Sums over the axes along which `shape` was broadcast to x. */
    reduceTo: (x: Value, shape: Shape) => {
      const axes = broadcastAxes(x.shape, shape);
      return reshape(axes.length === 0 ? x : sum(x, { axes }), shape);
    },
    /** Index of the largest entry of the last axis (the first of equals), i64. */
    argMax: unary("argMax"),
  };
}

function broadcastAxes(from: Shape, to: Shape): number[] {
  const extra = from.length - to.length;
  return from.flatMap((dim, axis) => (axis < extra || (to[axis - extra] === 1 && dim !== 1) ? [axis] : []));
}

export function movementMethods(core: GraphCore) {
  const { one } = createApply(core);
  const reshape = createReshape(core);
  return {
    /** One size may be -1. */
    reshape,
    transpose: (x: Value, perm: readonly number[]) =>
      perm.every((axis, i) => axis === i) && perm.length === x.shape.length ? x : one("transpose", [x], { perm }),
    /** Elements start..end (exclusive) of an axis. */
    slice: (x: Value, axis: number, start: number, end: number) => {
      const at = resolveAxis(x, axis);
      return start === 0 && end === x.shape[at] ? x : one("slice", [x], { axis: at, start, end });
    },
    /** Zeros before and after along an axis. */
    pad: (x: Value, axis: number, before: number, after: number) =>
      before === 0 && after === 0 ? x : one("pad", [x], { axis: resolveAxis(x, axis), before, after }),
    concat: (xs: readonly Value[], axis: number) =>
      xs.length === 1 ? xs[0]! : one("concat", xs, { axis: resolveAxis(xs[0]!, axis) }),
    split: (x: Value, axis: number, sizes: readonly number[]): readonly Value[] =>
      sizes.length === 1 ? [x] : core.apply("split", [x], { axis: resolveAxis(x, axis), sizes }),
    expand: (x: Value, shape: Shape) => (sameShape(x.shape, shape) ? x : one("expand", [x], { shape })),
  };
}

function createReshape(core: GraphCore) {
  return (x: Value, shape: Shape) => {
    const resolved = resolveShape(x, shape);
    return sameShape(x.shape, resolved) ? x : createApply(core).one("reshape", [x], { shape: resolved });
  };
}

function resolveShape(x: TensorType, shape: Shape): number[] {
  const known = shape.reduce((product, dim) => (dim === -1 ? product : product * dim), 1);
  const total = x.shape.reduce((product, dim) => product * dim, 1);
  return shape.map((dim) => (dim === -1 ? total / known : dim));
}

export function lookupMethods(core: GraphCore) {
  const { one } = createApply(core);
  const gather = (x: Value, ids: Value, axis = 0) => one("gather", [x, ids], { axis: resolveAxis(x, axis) });
  return {
    gather,
    /** table [V, H], ids of any shape: ids.shape + [H]. */
    embedding: (table: Value, ids: Value) => gather(table, ids, 0),
    /** x [N, V], ids [N]: x[n, ids[n]], [N]. */
    gatherLast: (x: Value, ids: Value) => one("gatherLast", [x, ids], {}),
    /** base [V, H] with updates [N, H] added to the rows ids [N]. */
    scatterAdd: (base: Value, ids: Value, updates: Value) => one("scatterAdd", [base, ids, updates], {}),
    /** base [N, V] with updates [N] added at [n, ids[n]]. */
    scatterLast: (base: Value, ids: Value, updates: Value) => one("scatterLast", [base, ids, updates], {}),
  };
}
