import { expect, test } from "vitest";
import { i64Tensor } from "../tensor/index.js";
import { gradients } from "./autodiff.js";
import { createGraph } from "./builder.js";
import { checkGraph } from "./check.js";

const g = createGraph("errors");
const x = g.input("x", [2, 3]);
const w = g.input("w", [4, 5]);
const ids = g.constant(i64Tensor([2], [0, 1]));

const x4 = (length: number) => g.fill([1, 1, length, 2], 0);

test.each([
  ["matmul", () => g.matmul(x, w), /matmul, operand 1: expected an inner axis of 3, found f32\[4, 5\]/],
  ["add", () => g.add(x, w), /add, operand 1: expected axis 0 of 1 or 2, found f32\[4, 5\]/],
  ["add, types", () => g.add(x, ids), /add, operand 1: expected f32, as operand 0, found i64\[2\]/],
  ["exp", () => g.exp(ids), /exp, operand: expected f32, found i64\[2\]/],
  ["reshape", () => g.reshape(x, [4]), /reshape, operand: expected 4 elements for \[4\], found f32\[2, 3\]/],
  ["reshape, rest", () => g.reshape(x, [4, -1]), /reshape, operand: expected 6 elements for \[4, 1.5\]/],
  [
    "causal",
    () => g.attention(x4(3), x4(2), x4(2), { causal: true }),
    /at least 3 keys for as many causal queries, found 2/,
  ],
  ["slice", () => g.slice(x, 1, 1, 4), /slice, operand: expected axis 1 to hold 1..4/],
  ["gather", () => g.gather(x, w), /gather, ids: expected i64 or i32, found f32\[4, 5\]/],
  ["sum", () => g.sum(x, { axes: [2] }), /sum, operand: expected an axis 2/],
  ["rmsNorm", () => g.rmsNorm(x, w, 1e-5), /rmsNorm, weight: expected f32\[3\], found f32\[4, 5\]/],
  ["gemm", () => g.linear(x, g.fill([4, 3], 0), g.fill([3], 0)), /gemm, operand 2/],
  ["concat", () => g.concat([x, w], 0), /concat, operand 1/],
  ["split", () => g.split(x, 1, [1, 1]), /split, operand: expected axis 1 of 2/],
  ["input", () => g.input("x", [1]), /input "x": expected a name of its own/],
  ["input, size", () => g.input("empty", [0, 2]), /positive whole sizes/],
  [
    "attention",
    () => g.attention(g.fill([1, 3, 2, 2], 0), g.fill([1, 2, 2, 2], 0), x),
    /kv heads that divide 3, found 2/,
  ],
  ["gradients", () => gradients(g, x, [x]), /gradients: loss: expected f32\[\], a scalar, found f32\[2, 3\]/],
])("%s names the operand at fault", (_, build, message) => {
  expect(build).toThrow(message);
});

test("a gradient that nothing reaches is zeros, and stopGradient stops", () => {
  const b = createGraph("zeros");
  const a = b.input("a", [2]);
  const c = b.input("c", [2]);
  const loss = b.sum(b.mul(a, b.stopGradient(b.exp(c))));
  const [, toC] = gradients(b, loss, [a, c]);
  expect(b.nodes.find((node) => node.outputs.includes(toC!))).toMatchObject({ kind: "fill", params: { value: 0 } });
});

test("negative axes and -1 sizes are resolved", () => {
  expect(g.sum(x, { axes: [-1] }).shape).toEqual([2]);
  expect(g.mean(x).shape).toEqual([]);
  expect(g.reshape(x, [3, -1]).shape).toEqual([3, 2]);
  expect(g.slice(x, -1, 0, 2).shape).toEqual([2, 2]);
});

test("the checker finds what the builder cannot make", () => {
  const b = createGraph("broken");
  const a = b.input("a", [2]);
  b.output("y", b.exp(a));
  expect(() => checkGraph(b)).not.toThrow();
  expect(() => checkGraph({ ...b, nodes: [] })).toThrow(/internal: graph broken: output y reads value 1 before/);
  expect(() => checkGraph({ ...b, nodes: [...b.nodes, ...b.nodes] })).toThrow(/value 1 is defined twice/);
  const wrong = [{ ...b.nodes[0]!, outputs: [{ id: 1, dtype: "f32", shape: [3] }] }] as never;
  expect(() => checkGraph({ ...b, nodes: wrong })).toThrow(/exp gives f32\[2\], recorded f32\[3\]/);
});
