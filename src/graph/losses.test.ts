import { expect, test } from "vitest";
import { createRng } from "../base/index.js";
import { i64Tensor } from "../tensor/index.js";
import { gradients } from "./autodiff.js";
import { createGraph, type GraphBuilder } from "./builder.js";
import { optimise } from "./passes/index.js";
import { interpret } from "./reference/interpret.js";
import type { Value } from "./types.js";

const [N, V, H] = [7, 11, 4];
const rng = createRng(3);
const normals = (length: number) => Float64Array.from({ length }, () => rng.normal());
const feeds = {
  x: normals(N * H),
  w: normals(V * H),
  tx: normals(N * H),
  tw: normals(V * H),
  weights: [1, 0, 2, 0.5, 1, 1, 0],
};
const targets = [3, 10, 0, 3, 7, 1, 2];

interface Operands {
  x: Value;
  w: Value;
  tx: Value;
  tw: Value;
  weights: Value;
  ids: Value;
}

function run(loss: (g: GraphBuilder, operands: Operands) => Value) {
  const g = createGraph("loss");
  const [x, w] = [g.input("x", [N, H]), g.input("w", [V, H])];
  const [tx, tw] = [g.input("tx", [N, H]), g.input("tw", [V, H])];
  const weights = g.input("weights", [N]);
  const value = loss(g, { x, w, tx, tw, weights, ids: g.constant(i64Tensor([N], targets)) });
  g.output("loss", value);
  gradients(g, value, [x, w]).forEach((gradient, i) => {
    g.output(`d${i}`, gradient);
  });
  const results = interpret(optimise(g), feeds);
  return [...results.loss!.data, ...results.d0!.data, ...results.d1!.data];
}

function expectClose(found: number[], expected: number[]): void {
  expect(found.length).toBe(expected.length);
  found.forEach((value, i) => {
    expect(value).toBeCloseTo(expected[i]!, 12);
  });
}

function weightedMean(g: GraphBuilder, perPosition: Value, weights: Value): Value {
  return g.div(g.sum(g.mul(perPosition, weights)), g.sum(weights));
}

test.each<[number | undefined, number | undefined]>([
  [undefined, undefined],
  [1, undefined],
  [2, 5],
  [3, 11],
  [undefined, 4],
])("cross-entropy in chunks of %s and tiles of %s equals the textbook form", (chunk, tile) => {
  const chunked = run((g, { x, w, ids, weights }) =>
    g.crossEntropy(x, w, ids, weights, { ...(chunk && { chunk }), ...(tile && { tile }) }),
  );
  const plain = run((g, { x, w, ids, weights }) =>
    weightedMean(g, g.neg(g.gatherLast(g.logSoftmax(g.linear(x, w)), ids)), weights),
  );
  expectClose(chunked, plain);
});

test.each([1, 3, undefined])("KL divergence in chunks of %s equals the textbook form", (chunk) => {
  const temperature = 2;
  const chunked = run((g, { x, w, tx, tw, weights }) =>
    g.klDivergence({ hidden: x, head: w }, { hidden: tx, head: tw }, weights, { temperature, ...(chunk && { chunk }) }),
  );
  const plain = run((g, { x, w, tx, tw, weights }) => {
    const student = g.logSoftmax(g.scale(g.linear(x, w), 1 / temperature));
    const teacher = g.logSoftmax(g.scale(g.linear(tx, tw), 1 / temperature));
    return weightedMean(g, g.sum(g.mul(g.exp(teacher), g.sub(teacher, student)), { axes: [1] }), weights);
  });
  expectClose(chunked, plain);
});

test.each<[number | undefined, number | undefined]>([
  [undefined, undefined],
  [3, 4],
])(
  "token log-probabilities in chunks of %s and tiles of %s equal the textbook form, gradients and all",
  (chunk, tile) => {
    // A loss that is not linear in them.
    const lossOf = (g: GraphBuilder, logProbs: Value, weights: Value) =>
      g.sum(g.mul(g.exp(g.scale(logProbs, 0.5)), weights));
    const chunked = run((g, { x, w, ids, weights }) => {
      const { logProbs, entropy } = g.tokenLogProbs(x, w, ids, { ...(chunk && { chunk }), ...(tile && { tile }) });
      return g.add(lossOf(g, logProbs, weights), g.sum(entropy));
    });
    const plain = run((g, { x, w, ids, weights }) => {
      const all = g.logSoftmax(g.linear(x, w));
      const entropy = g.neg(g.sum(g.mul(g.exp(all), all)));
      return g.add(lossOf(g, g.gatherLast(all, ids), weights), g.stopGradient(entropy));
    });
    expectClose(chunked, plain);
  },
);

test("a given denominator replaces the sum of the weights", () => {
  const mean = run((g, { x, w, ids, weights }) => g.crossEntropy(x, w, ids, weights));
  const sum = run((g, { x, w, ids, weights }) => g.crossEntropy(x, w, ids, weights, { denominator: g.scalar(11) }));
  const total = feeds.weights.reduce((a, b) => a + b);
  expectClose(
    sum.map((value) => value * 11),
    mean.map((value) => value * total),
  );
});

test("upstream factors reach the attached gradients", () => {
  const once = run((g, { x, w, ids, weights }) => g.crossEntropy(x, w, ids, weights));
  const halved = run((g, { x, w, ids, weights }) => g.scale(g.crossEntropy(x, w, ids, weights), 0.5));
  expectClose(
    halved,
    once.map((value) => value / 2),
  );
});
