import { expect, test } from "vitest";
import { createGraph, interpret } from "../graph/index.js";
import { f32Tensor } from "../tensor/index.js";
import { clipFactor, constant, cosine, cosineDistance, linear, normalisedError, withWarmUp } from "./index.js";

test("cosine distance of rows: equal, opposite and orthogonal ones, whatever their length", () => {
  const g = createGraph("cosine");
  const [a, b] = [g.input("a", [3, 2]), g.input("b", [3, 2])];
  g.output("d", cosineDistance(g, a, b));
  const { d } = interpret(g, { a: f32Tensor([3, 2], [1, 2, 3, 0, 0, 5]), b: f32Tensor([3, 2], [2, 4, -1, 0, 7, 0]) });
  [0, 2, 1].forEach((value, i) => {
    expect(Number(d!.data[i])).toBeCloseTo(value, 6);
  });
});

test("normalised error: 0 for a copy, 1 for zeros, (10 / 50) in between", () => {
  const error = (child: number[]) => {
    const g = createGraph("error");
    const [p, c] = [g.input("p", [1, 2]), g.input("c", [1, 2])];
    g.output("e", normalisedError(g, p, c));
    return Number(interpret(g, { p: f32Tensor([1, 2], [5, 5]), c: f32Tensor([1, 2], child) }).e!.data[0]);
  };
  expect(error([5, 5])).toBe(0);
  expect(error([0, 0])).toBeCloseTo(1, 6);
  expect(error([4, 8])).toBeCloseTo(0.2, 6);
});

test("schedules", () => {
  expect([0, 5, 10].map((step) => constant()(step, 10))).toEqual([1, 1, 1]);
  expect([0, 5, 10].map((step) => linear()(step, 10))).toEqual([1, 0.5, 0]);
  expect(linear({ floor: 0.2 })(10, 10)).toBeCloseTo(0.2);
  expect(cosine()(0, 10)).toBe(1);
  expect(cosine({ floor: 0.1 })(5, 10)).toBeCloseTo(0.55);
  const warm = withWarmUp(3, linear());
  expect([0, 1, 2, 3, 8].map((step) => warm(step, 13))).toEqual([0.25, 0.5, 0.75, 1, 0.5]);
});

test("clipping shortens long gradients only", () => {
  expect(clipFactor(0.5, 1)).toBe(1);
  expect(clipFactor(4, 1)).toBe(0.25);
});
