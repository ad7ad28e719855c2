import { expect, test } from "vitest";
import { createRng } from "../base/index.js";
import { i64Tensor, sizeOf } from "../tensor/index.js";
import { gradients } from "./autodiff.js";
import { createGraph, type GraphBuilder } from "./builder.js";
import { ops } from "./ops/index.js";
import type { OpKind } from "./ops/params.js";
import { optimise } from "./passes/index.js";
import { interpret } from "./reference/interpret.js";
import type { Value } from "./types.js";

interface Case {
  /** Shapes of the f32 operands; all are differentiated. */
  shapes: readonly (readonly number[])[];
  /** Values are drawn from [low, high]. Defaults to [-2, 2]. */
  range?: readonly [number, number];
  build: (g: GraphBuilder, xs: Value[]) => Value;
}

const ids = (g: GraphBuilder, values: number[], shape = [values.length]) => g.constant(i64Tensor(shape, values));
const positive = [0.5, 2] as const;
const angles = (g: GraphBuilder, shape: number[], f: (x: number) => number) =>
  g.constant({
    dtype: "f32",
    shape,
    data: Float32Array.from({ length: sizeOf(shape) }, (_, i) => f(0.4 + 0.7 * i)),
  });

const product = (transposeA: boolean, transposeB: boolean, batch: number[]): Case => ({
  shapes: [
    [...batch, ...(transposeA ? [3, 2] : [2, 3])],
    [...batch, ...(transposeB ? [4, 3] : [3, 4])],
  ],
  build: (g, [a, b]) => g.matmul(a!, b!, { transposeA, transposeB, alpha: 0.7 }),
});

const attentionCase = (build: (g: GraphBuilder, q: Value, k: Value, v: Value) => Value): Case => ({
  shapes: [
    [2, 4, 3, 4],
    [2, 2, 3, 4],
    [2, 2, 3, 4],
  ],
  build: (g, [q, k, v]) => build(g, q!, k!, v!),
});

/** At least one case for each differentiable operator; names begin with the operator. */
const cases: Record<string, Case> = {
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
    g.attention(q, k, v, { mask: g.packedMask(ids(g, [0, 0, 1, 0, 1, 1], [2, 3])) }),
  ),
  "attention, no mask, scaled": attentionCase((g, q, k, v) => g.attention(q, k, v, { scale: 0.3 })),
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

test.each(Object.entries(cases))("%s: gradient equals central differences", (name, { shapes, range, build }) => {
  const { analytic, numeric } = bothGradients({ shapes, build, ...(range && { range }) }, name);
  analytic.forEach((value, i) => {
    expect(Math.abs(value - numeric[i]!), `element ${i}: ${value} against ${numeric[i]}`).toBeLessThan(
      2e-7 * (1 + Math.abs(value)),
    );
  });
});

test("every operator has a gradient case or says why it has no gradient", () => {
  const tested = new Set(Object.keys(cases).map((name) => name.split(",")[0]));
  const untested = (Object.keys(ops) as OpKind[]).filter(
    (kind) => typeof ops[kind].grad === "function" && !tested.has(kind),
  );
  expect(untested).toEqual([]);
});

function bothGradients({ shapes, range = [-2, 2], build }: Case, name: string) {
  const g = createGraph(name);
  const xs = shapes.map((shape, i) => g.input(`x${i}`, shape));
  const y = build(g, xs);
  // A loss with a different slope at each output element.
  const slopes = angles(g, [...y.shape], (t) => Math.sin(3 * t) + 0.2);
  const loss = y.shape.length === 0 ? y : g.sum(g.mul(y, slopes));
  g.output("loss", loss);
  const found = gradients(g, loss, xs);
  found.forEach((gradient, i) => {
    expect(gradient.shape).toEqual(shapes[i]);
    g.output(`d${i}`, gradient);
  });
  const rng = createRng(7);
  const feeds: Record<string, Float64Array> = {};
  shapes.forEach((shape, i) => {
    feeds[`x${i}`] = Float64Array.from({ length: sizeOf(shape) }, () => range[0] + (range[1] - range[0]) * rng.next());
  });
  const graph = optimise(g);
  const results = interpret(graph, feeds);
  const analytic = shapes.flatMap((_, i) => [...results[`d${i}`]!.data]);
  const numeric = shapes.flatMap((_, i) =>
    centralDifferences(feeds, `x${i}`, () => interpret(graph, feeds).loss!.data[0]!),
  );
  return { analytic, numeric };
}

function centralDifferences(feeds: Record<string, Float64Array>, name: string, loss: () => number): number[] {
  const step = 1e-5;
  const x = feeds[name]!;
  return Array.from(x, (value, i) => {
    x[i] = value + step;
    const above = loss();
    x[i] = value - step;
    const below = loss();
    x[i] = value;
    return (above - below) / (2 * step);
  });
}
