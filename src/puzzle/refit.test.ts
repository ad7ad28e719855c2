import { describe, expect, test } from "vitest";
import { createRng } from "../base/index.js";
import { f32Tensor, maxAbsDifference } from "../tensor/index.js";
import { emptyMoments, type Moments, normalisedError, refitTowards, selectInputs } from "./refit.js";
import { randomMatrix } from "./testing.js";

/** Moments of given rows: x [N, n], y [N, m]. */
function momentsOf(x: number[][], y: number[][]): Moments {
  const moments = emptyMoments(x[0]!.length, y[0]!.length);
  x.forEach((row, r) => {
    row.forEach((a, i) => {
      for (let j = 0; j < row.length; j++) moments.gram[i * moments.n + j]! += a * row[j]!;
      y[r]!.forEach((b, o) => {
        moments.cross[i * moments.m + o]! += a * b;
      });
    });
    moments.targetSquares += y[r]!.reduce((sum, b) => sum + b * b, 0);
  });
  return moments;
}

const rows = (seed: string, count: number, width: number): number[][] => {
  const rng = createRng(seed);
  return Array.from({ length: count }, () => Array.from({ length: width }, rng.normal));
};
const apply = (x: number[][], w: Float32Array, out: number): number[][] =>
  x.map((row) => Array.from({ length: out }, (_, o) => row.reduce((sum, a, i) => sum + a * w[o * row.length + i]!, 0)));

describe("refit", () => {
  test("one input, one output, by hand", () => {
    // x = 1, 2; y = 3, 5: G = 5, C = 13. lambda = 0.2 * 5 = 1, w0 = 1: (13 + 1) / (5 + 1) = 7/3.
    const fitted = refitTowards(f32Tensor([1, 1], [1]), momentsOf([[1], [2]], [[3], [5]]), { ridge: 0.2 });
    expect(fitted.data[0]).toBeCloseTo(7 / 3, 6);
  });

  test("outputs that are linear in the inputs are recovered", () => {
    const truth = randomMatrix("truth", [3, 5]);
    const x = rows("x", 40, 5);
    const fitted = refitTowards(f32Tensor([3, 5]), momentsOf(x, apply(x, truth.data, 3)), { ridge: 1e-9 });
    expect(maxAbsDifference(fitted.data, truth.data)).toBeLessThan(1e-5);
  });

  test("a start that is exact already stays, whatever the ridge", () => {
    const truth = randomMatrix("truth", [3, 5]);
    const x = rows("x", 40, 5);
    const fitted = refitTowards(truth, momentsOf(x, apply(x, truth.data, 3)), { ridge: 10 });
    expect(maxAbsDifference(fitted.data, truth.data)).toBeLessThan(1e-6);
  });

  test("directions that the text never excites keep the start", () => {
    const start = f32Tensor([1, 2], [0.5, -2]);
    const fitted = refitTowards(
      start,
      momentsOf(
        [
          [1, 0],
          [2, 0],
        ],
        [[1], [2]],
      ),
      { ridge: 1e-6 },
    );
    expect(fitted.data[0]).toBeCloseTo(1, 4);
    expect(fitted.data[1]).toBe(-2);
  });

  test("silent inputs leave the start, NaN is refused", () => {
    const start = f32Tensor([1, 1], [4]);
    expect(refitTowards(start, momentsOf([[0]], [[1]])).data[0]).toBe(4);
    expect(() => refitTowards(start, momentsOf([[Number.NaN]], [[1]]))).toThrow(/NaN or infinite/);
  });

  test("the error from sums equals the error from rows, and a refit never raises it", () => {
    const x = rows("x", 30, 6);
    const y = rows("y", 30, 2);
    const moments = momentsOf(x, y);
    const start = randomMatrix("start", [2, 6]);
    const direct = (w: Float32Array) => {
      const squares = apply(x, w, 2).flatMap((row, r) => row.map((value, o) => (value - y[r]![o]!) ** 2));
      return squares.reduce((a, b) => a + b, 0) / y.flat().reduce((sum, b) => sum + b * b, 0);
    };
    expect(normalisedError(start, moments)).toBeCloseTo(direct(start.data), 6);
    for (const ridge of [1e-4, 1e-2, 1, 100]) {
      const fitted = refitTowards(start, moments, { ridge });
      expect(normalisedError(fitted, moments)).toBeLessThanOrEqual(normalisedError(start, moments));
    }
  });

  test("a choice of inputs has the moments of those inputs alone", () => {
    const x = rows("x", 10, 4);
    const y = rows("y", 10, 2);
    const chosen = selectInputs(momentsOf(x, y), [2, 0]);
    const direct = momentsOf(
      x.map((row) => [row[2]!, row[0]!]),
      y,
    );
    expect([chosen.gram, chosen.cross]).toEqual([direct.gram, direct.cross]);
  });
});
