import { expect, test } from "vitest";
import { caseFeeds, gradientCases } from "../../../test/support/operator-cases.js";
import { f32Tensor, i64Tensor } from "../../tensor/index.js";
import { gradients } from "../autodiff.js";
import { createGraph, type GraphBuilder } from "../builder.js";
import { digestGraph, printGraph } from "../print.js";
import { interpret } from "../reference/interpret.js";
import { optimise } from "./index.js";

/** The lines of the optimised graph after its inputs, without indentation. */
function optimised(build: (g: GraphBuilder) => void): string[] {
  const g = createGraph("test");
  build(g);
  const lines = printGraph(optimise(g)).trimEnd().split("\n");
  return lines.map((line) => line.trim()).filter((line) => !/^(graph|input)/.test(line));
}

test("equal expressions are computed once, constants merged, dead code dropped", () => {
  const lines = optimised((g) => {
    const x = g.input("x", [2]);
    g.exp(x);
    const once = g.add(x, g.constant(f32Tensor([2], [1, 2])));
    const again = g.add(g.constant(f32Tensor([2], [1, 2])), x);
    g.output("y", g.mul(once, again));
  });
  expect(lines).toEqual([
    "#0: f32[2] = {1, 2}",
    "%0: f32[2] = add(x, #0)",
    "%1: f32[2] = mul(%0, %0)",
    "output y = %1",
  ]);
});

test("constants are folded", () => {
  const lines = optimised((g) => {
    const x = g.input("x", [2]);
    g.output("y", g.add(x, g.exp(g.sub(g.scalar(1), g.scalar(1)))));
  });
  expect(lines).toEqual(["#0: f32[] = {1}", "%0: f32[2] = add(x, #0)", "output y = %0"]);
});

test("neutral elements, double moves and factors collapse", () => {
  const lines = optimised((g) => {
    const x = g.input("x", [2, 3]);
    const same = g.neg(g.neg(g.add(g.mul(x, g.scalar(1)), g.fill([3], 0))));
    const moved = g.transpose(g.transpose(g.reshape(g.reshape(same, [6]), [3, 2]), [1, 0]), [1, 0]);
    g.output("y", g.scale(g.mul(moved, g.scalar(2)), 3));
    g.output("z", g.transpose(g.reshape(x, [2, 1, 3]), [1, 0, 2]));
  });
  expect(lines).toEqual([
    "%0: f32[3, 2] = reshape(x) {shape: [3, 2]}",
    "%1: f32[3, 2] = scale(%0) {factor: 6}",
    "%2: f32[1, 2, 3] = reshape(x) {shape: [1, 2, 3]}",
    "output y = %1",
    "output z = %2",
  ]);
});

test("sums of products are accumulated in the product", () => {
  const lines = optimised((g) => {
    const [x, w, v] = [g.input("x", [2, 3]), g.input("w", [4, 3]), g.input("v", [4, 3])];
    g.output("y", g.scale(g.add(g.linear(x, w), g.linear(x, v)), 1));
    g.output("z", g.scale(g.linear(x, w, g.input("b", [4])), 1));
  });
  expect(lines).toEqual([
    "%0: f32[2, 4] = matmul(x, w) {transposeB: true, alpha: 1}",
    "%1: f32[2, 4] = gemm(x, v, %0) {transposeB: true, alpha: 1}",
    "%2: f32[2, 4] = gemm(x, w, b) {transposeB: true, alpha: 1}",
    "output y = %1",
    "output z = %2",
  ]);
});

test("products take transposed operands as they lie", () => {
  const lines = optimised((g) => {
    const [x, w] = [g.input("x", [3, 2]), g.input("w", [3, 4])];
    g.output("y", g.matmul(g.transpose(x, [1, 0]), w));
    const [a, b] = [g.input("a", [5, 2, 3]), g.input("b", [5, 4, 3])];
    g.output("z", g.matmul(a, g.transpose(b, [0, 2, 1]), { alpha: 2 }));
  });
  expect(lines.slice(0, 2)).toEqual([
    "%0: f32[2, 4] = matmul(x, w) {transposeA: true, alpha: 1}",
    "%1: f32[5, 2, 4] = matmul(a, b) {transposeB: true, alpha: 2}",
  ]);
});

test("after waits for what is computed, and for nothing else", () => {
  const lines = optimised((g) => {
    const x = g.input("x", [2]);
    const [kept, dropped] = [g.exp(x), g.tanh(x)];
    g.output("y", g.neg(g.after(x, [kept, dropped])));
    g.output("kept", kept);
    g.output("z", g.abs(g.after(x, [dropped])));
  });
  expect(lines).toEqual([
    "%0: f32[2] = exp(x)",
    "%1: f32[2] = after(x, %0)",
    "%2: f32[2] = neg(%1)",
    "%3: f32[2] = abs(x)",
    "output y = %2",
    "output kept = %0",
    "output z = %3",
  ]);
});

test("a product that something else reads is not swallowed", () => {
  const lines = optimised((g) => {
    const [x, w] = [g.input("x", [2, 3]), g.input("w", [2, 3])];
    const product = g.linear(x, w);
    g.output("y", g.add(product, g.input("r", [2, 2])));
    g.output("z", g.exp(product));
  });
  expect(lines.filter((line) => line.includes("gemm"))).toEqual([]);
});

test("tied embeddings: the rows of the lookup are added to the head's gradient in one scatter", () => {
  const lines = optimised((g) => {
    const table = g.input("table", [5, 2]);
    const ids = g.constant(i64Tensor([3], [0, 1, 0]));
    const loss = g.crossEntropy(g.embedding(table, ids), table, ids, g.fill([3], 1));
    g.output("d", gradients(g, loss, [table])[0]!);
  });
  expect(lines.filter((line) => line.includes("scatterAdd"))).toHaveLength(1);
  expect(lines.filter((line) => line.includes("withGradient"))).toEqual([]);
});

test.each(Object.entries(gradientCases))("%s: passes keep values", (name, operatorCase) => {
  const g = createGraph(name);
  const xs = operatorCase.shapes.map((shape, i) => g.input(`x${i}`, shape));
  const y = operatorCase.build(g, xs);
  g.output("y", y);
  gradients(g, y.shape.length === 0 ? y : g.sum(g.exp(y)), xs).forEach((gradient, i) => {
    g.output(`d${i}`, gradient);
  });
  const feeds = caseFeeds(operatorCase);
  const before = interpret(g, feeds);
  const after = interpret(optimise(g), feeds);
  for (const [output, { data }] of Object.entries(before)) {
    data.forEach((value, i) => {
      // Folded constants are rounded to f32.
      expect(Math.abs(after[output]!.data[i]! - value)).toBeLessThan(1e-6 * (1 + Math.abs(value)));
    });
  }
});

test("the text form and digest do not depend on ids, and see constants", () => {
  const build = (constant: number, dead: boolean) => {
    const g = createGraph("digest");
    const x = g.input("x", [2]);
    if (dead) g.fill([1], 0);
    g.output("y", g.mul(x, g.constant(f32Tensor([2], [constant, 1]))));
    return optimise(g);
  };
  expect(digestGraph(build(2, true))).toBe(digestGraph(build(2, false)));
  expect(digestGraph(build(2, false))).not.toBe(digestGraph(build(3, false)));
  expect(optimise(build(2, false))).toEqual(build(2, false));
});
