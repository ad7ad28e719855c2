import { createRng } from "../../src/base/index.js";
import { type GraphBuilder, gradients, type Int8Operands, type Value } from "../../src/graph/index.js";
import { buildPackedMask } from "../../src/models/index.js";
import { f32Tensor, i64Tensor, sizeOf } from "../../src/tensor/index.js";

export interface OperatorCase {
  /** Shapes of the f32 operands; all are differentiated. */
  shapes: readonly (readonly number[])[];
  /** Values are drawn from [low, high]. Defaults to [-2, 2]. */
  range?: readonly [number, number];
  build: (g: GraphBuilder, xs: Value[]) => Value;
}

const ids = (g: GraphBuilder, values: number[], shape = [values.length]) => g.constant(i64Tensor(shape, values));
const positive = [0.5, 2] as const;
export const angles = (g: GraphBuilder, shape: number[], f: (x: number) => number) =>
  g.constant({
    dtype: "f32",
    shape,
    data: Float32Array.from({ length: sizeOf(shape) }, (_, i) => f(0.4 + 0.7 * i)),
  });

const product = (transposeA: boolean, transposeB: boolean, batch: number[]): OperatorCase => ({
  shapes: [
    [...batch, ...(transposeA ? [3, 2] : [2, 3])],
    [...batch, ...(transposeB ? [4, 3] : [3, 4])],
  ],
  build: (g, [a, b]) => g.matmul(a!, b!, { transposeA, transposeB, alpha: 0.7 }),
});

const attentionCase = (build: (g: GraphBuilder, q: Value, k: Value, v: Value) => Value): OperatorCase => ({
  shapes: [
    [2, 4, 3, 4],
    [2, 2, 3, 4],
    [2, 2, 3, 4],
  ],
  build: (g, [q, k, v]) => build(g, q!, k!, v!),
});

export function int8Matrix(g: GraphBuilder, inner: number, columns: number): Int8Operands {
  const rng = createRng("int8");
  const levels = Int8Array.from({ length: inner * columns }, () => rng.int(255) - 127);
  return {
    matrix: g.constant({ dtype: "i8", shape: [inner, columns], data: levels }),
    steps: angles(g, [columns], (t) => 0.01 + 0.001 * t),
    back: g.constant({ dtype: "i8", shape: [columns, inner], data: levels.toReversed() }),
    backSteps: angles(g, [inner], (t) => 0.02 + 0.001 * t),
  };
}

/** At least one case for each differentiable operator; names begin with the operator. */
export const gradientCases: Record<string, OperatorCase> = {
  neg: { shapes: [[2, 3]], build: (g, [x]) => g.neg(x!) },
  exp: { shapes: [[2, 3]], build: (g, [x]) => g.exp(x!) },
  log: { shapes: [[2, 3]], range: positive, build: (g, [x]) => g.log(x!) },
  sqrt: { shapes: [[2, 3]], range: positive, build: (g, [x]) => g.sqrt(x!) },
  reciprocal: { shapes: [[2, 3]], range: positive, build: (g, [x]) => g.rsqrt(x!) },
  abs: { shapes: [[2, 3]], build: (g, [x]) => g.abs(x!) },
  sigmoid: { shapes: [[2, 3]], build: (g, [x]) => g.sigmoid(x!) },
  silu: { shapes: [[2, 3]], build: (g, [x]) => g.silu(x!) },
  tanh: { shapes: [[2, 3]], build: (g, [x]) => g.tanh(x!) },
  relu: { shapes: [[2, 3]], build: (g, [x]) => g.relu(x!) },
  "relu, squared": { shapes: [[2, 3]], build: (g, [x]) => g.squaredRelu(x!) },
  softplus: { shapes: [[2, 3]], build: (g, [x]) => g.softplus(x!) },
  "softplus, as logSigmoid": { shapes: [[2, 3]], build: (g, [x]) => g.logSigmoid(x!) },
  scale: { shapes: [[2, 3]], build: (g, [x]) => g.scale(x!, -1.7) },
  addScalar: { shapes: [[2, 3]], build: (g, [x]) => g.square(g.addScalar(x!, 0.3)) },
  clip: { shapes: [[3, 4]], build: (g, [x]) => g.clip(x!, -1, 0.7) },
  add: { shapes: [[2, 3], [3]], build: (g, [a, b]) => g.add(a!, b!) },
  sub: { shapes: [[3], [2, 1]], build: (g, [a, b]) => g.sub(a!, b!) },
  mul: {
    shapes: [
      [2, 3],
      [2, 1],
    ],
    build: (g, [a, b]) => g.mul(a!, b!),
  },
  "mul, scalar": { shapes: [[2, 3], []], build: (g, [a, b]) => g.mul(a!, b!) },
  "mul, by itself": { shapes: [[2, 3]], build: (g, [a]) => g.square(a!) },
  div: {
    shapes: [
      [2, 3],
      [1, 3],
    ],
    range: positive,
    build: (g, [a, b]) => g.div(a!, b!),
  },
  maximum: { shapes: [[2, 3], [3]], build: (g, [a, b]) => g.maximum(a!, b!) },
  minimum: { shapes: [[2, 3], [3]], build: (g, [a, b]) => g.minimum(a!, b!) },
  where: { shapes: [[2, 3], [3]], build: (g, [a, b]) => g.where(g.greater(a!, b!), a!, b!) },
  ...Object.fromEntries(
    [[], [2, 2]].flatMap((batch) =>
      [0, 1, 2, 3].map((bits) => [
        `matmul, rank ${batch.length + 2}, transposes ${bits}`,
        product((bits & 1) === 1, bits > 1, batch),
      ]),
    ),
  ),
  gemm: { shapes: [[3, 2], [4, 2], [4]], build: (g, [x, w, b]) => g.linear(x!, w!, b!) },
  "gemm, full c": {
    shapes: [
      [2, 3],
      [2, 4],
      [3, 4],
    ],
    build: (g, [a, b, c]) => g.gemm(a!, b!, c!, { transposeA: true, alpha: 0.5 }),
  },
  sum: { shapes: [[2, 3, 2]], build: (g, [x]) => g.sum(x!, { axes: [0, 2] }) },
  mean: { shapes: [[2, 3]], build: (g, [x]) => g.mean(x!, { axes: [-1], keepDims: true }) },
  max: { shapes: [[2, 3]], build: (g, [x]) => g.max(x!, { axes: [1] }) },
  reshape: { shapes: [[2, 3]], build: (g, [x]) => g.reshape(x!, [3, -1]) },
  transpose: { shapes: [[2, 3, 4]], build: (g, [x]) => g.transpose(x!, [2, 0, 1]) },
  slice: { shapes: [[2, 5]], build: (g, [x]) => g.slice(x!, 1, 1, 4) },
  pad: { shapes: [[2, 3]], build: (g, [x]) => g.pad(x!, 1, 1, 2) },
  concat: {
    shapes: [
      [2, 3],
      [2, 1],
    ],
    build: (g, xs) => g.concat(xs, 1),
  },
  split: {
    shapes: [[4, 3]],
    build: (g, [x]) => {
      const [a, , c] = g.split(x!, 0, [1, 2, 1]);
      return g.mul(a!, g.exp(c!));
    },
  },
  expand: { shapes: [[3, 1]], build: (g, [x]) => g.expand(x!, [2, 3, 4]) },
  gather: { shapes: [[4, 3]], build: (g, [x]) => g.embedding(x!, ids(g, [1, 3, 1, 0], [2, 2])) },
  "gather, axis 1": { shapes: [[2, 4, 3]], build: (g, [x]) => g.gather(x!, ids(g, [1, 3, 1]), 1) },
  gatherLast: { shapes: [[3, 4]], build: (g, [x]) => g.gatherLast(x!, ids(g, [2, 0, 2])) },
  scatterAdd: {
    shapes: [
      [4, 2],
      [3, 2],
    ],
    build: (g, [base, updates]) => g.scatterAdd(base!, ids(g, [1, 3, 1]), updates!),
  },
  scatterLast: {
    shapes: [[3, 4], [3]],
    build: (g, [base, updates]) => g.scatterLast(base!, ids(g, [1, 3, 1]), updates!),
  },
  softmax: { shapes: [[2, 4]], build: (g, [x]) => g.softmax(x!) },
  logSoftmax: { shapes: [[2, 4]], build: (g, [x]) => g.logSoftmax(x!) },
  rmsNorm: { shapes: [[2, 3, 4], [4]], build: (g, [x, w]) => g.rmsNorm(x!, w!, 1e-2) },
  layerNorm: { shapes: [[3, 4], [4], [4]], build: (g, [x, w, b]) => g.layerNorm(x!, w!, b!, 1e-2) },
  "rotary, halves": {
    shapes: [[2, 2, 3, 4]],
    build: (g, [x]) => g.rotary(x!, angles(g, [1, 3, 2], Math.cos), angles(g, [1, 3, 2], Math.sin)),
  },
  "rotary, adjacent, positions per row": {
    shapes: [[2, 2, 3, 4]],
    build: (g, [x]) =>
      g.rotary(x!, angles(g, [2, 3, 2], Math.cos), angles(g, [2, 3, 2], Math.sin), { pairing: "adjacent" }),
  },
  "attention, grouped, causal": attentionCase((g, q, k, v) => g.attention(q, k, v, { causal: true })),
  "attention, grouped, packed": attentionCase((g, q, k, v) =>
    g.attention(q, k, v, { mask: buildPackedMask(g, ids(g, [0, 0, 1, 0, 1, 1], [2, 3])) }),
  ),
  "attention, no mask, scaled": attentionCase((g, q, k, v) => g.attention(q, k, v, { scale: 0.3 })),
  after: { shapes: [[2, 3], [3], []], build: (g, [x, y, z]) => g.after(g.exp(x!), [g.exp(y!), z!]) },
  "withGradient, as crossEntropy": {
    shapes: [
      [5, 3],
      [7, 3],
    ],
    build: (g, [x, w]) => {
      const weights = g.constant({ dtype: "f32", shape: [5], data: Float32Array.of(1, 0, 2, 0.5, 1) });
      return g.crossEntropy(x!, w!, ids(g, [1, 6, 0, 1, 3]), weights, { chunk: 2 });
    },
  },
  "headLogProbs, as tokenLogProbs": {
    shapes: [
      [5, 3],
      [7, 3],
    ],
    build: (g, [x, w]) => g.tokenLogProbs(x!, w!, ids(g, [1, 6, 0, 1, 3]), { chunk: 2, tile: 3 }).logProbs,
  },
  "withGradient, as klDivergence": {
    shapes: [
      [5, 3],
      [7, 3],
    ],
    build: (g, [x, w]) => {
      const teacher = { hidden: angles(g, [5, 4], Math.cos), head: angles(g, [7, 4], Math.sin) };
      const weights = g.constant({ dtype: "f32", shape: [5], data: Float32Array.of(1, 0, 2, 0.5, 1) });
      return g.klDivergence({ hidden: x!, head: w! }, teacher, weights, { chunk: 3, temperature: 1.5 });
    },
  },
};

const both = [
  [2, 3],
  [2, 3],
] as const;

/** Operators without gradient, for comparison of their values alone. */
export const valueCases: Record<string, OperatorCase> = {
  greater: { shapes: both, build: (g, [a, b]) => g.cast(g.greater(a!, b!), "f32") },
  greaterEqual: { shapes: both, build: (g, [a, b]) => g.cast(g.greaterEqual(a!, b!), "i64") },
  less: { shapes: both, build: (g, [a, b]) => g.cast(g.less(a!, b!), "i32") },
  equal: { shapes: both, build: (g, [a, b]) => g.equal(g.maximum(a!, b!), a!) },
  "and, not": { shapes: both, build: (g, [a, b]) => g.and(g.greater(a!, b!), g.not(g.less(a!, g.scalar(0)))) },
  cast: { shapes: [[2, 5]], build: (g, [a]) => g.cast(g.scale(a!, 3), "i64") },
  roundTo: { shapes: [[3, 5]], build: (g, [a]) => g.add(g.roundTo(a!, "f16"), g.roundTo(a!, "bf16")) },
  argMax: { shapes: [[3, 5]], build: (g, [a]) => g.argMax(a!) },
  fill: { shapes: [[3, 1]], build: (g, [a]) => g.sub(g.fill([3, 4], 0.5), a!) },
  stopGradient: { shapes: [[3]], build: (g, [a]) => g.stopGradient(a!) },
  int8Linear: { shapes: [[4, 5]], build: (g, [x]) => g.int8Linear(x!, int8Matrix(g, 5, 3)) },
  "int8Linear, a row of zeros": {
    shapes: [[4, 5]],
    build: (g, [x]) => g.int8Linear(g.mul(x!, g.constant(f32Tensor([4, 1], [1, 0, 3, 1]))), int8Matrix(g, 5, 3)),
  },
  "int8Linear, gradient": {
    shapes: [
      [4, 5],
      [4, 3],
    ],
    build: (g, [x, dy]) => gradients(g, g.sum(g.mul(g.int8Linear(x!, int8Matrix(g, 5, 3)), dy!)), [x!])[0]!,
  },
  // 127 in each block, so that rounding it changes nothing.
  int8BlockLinear: {
    shapes: [[1]],
    build: (g, [a]) => {
      const rng = createRng("blocks");
      const x = Float32Array.from({ length: 3 * 40 }, (_, i) =>
        i % 40 === 3 || i % 40 === 35 ? 127 : rng.int(255) - 127,
      );
      const levels = Uint8Array.from({ length: 5 * 2 * 32 }, () => rng.int(256));
      const product = g.int8BlockLinear(
        g.constant(f32Tensor([3, 40], x)),
        g.constant({ dtype: "u8", shape: [5, 2, 32], data: levels }),
        angles(g, [10], (t) => 1e-4 * (1 + t)),
      );
      return g.mul(product, a!);
    },
  },
  "sum, i64": { shapes: [[3, 2]], build: (g, [a]) => g.sum(g.cast(g.scale(a!, 3), "i64"), { axes: [0] }) },
  "rmsNorm, statistics": {
    shapes: [[2, 3], [3]],
    build: (g, [x, w]) => g.apply("rmsNorm", [x!, w!], { eps: 1e-2 })[1]!,
  },
};

/** Reproducible values for the inputs `x0`, `x1`, ... of a case, exactly representable in f32. */
export function caseFeeds({ shapes, range: [low, high] = [-2, 2] }: OperatorCase): Record<string, Float64Array> {
  const rng = createRng(7);
  const draw = () => Math.fround(low + (high - low) * rng.next());
  return Object.fromEntries(
    shapes.map((shape, i) => [`x${i}`, Float64Array.from({ length: sizeOf(shape) }, draw)] as const),
  );
}
