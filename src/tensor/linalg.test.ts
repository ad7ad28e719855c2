import { expect, test } from "vitest";
import { createRng } from "../base/index.js";
import { cholesky, solveRidge, solveSpd } from "./linalg.js";

test("a system solved by hand", () => {
  // [[4, 2], [2, 5]] = L L^T with L = [[2, 0], [1, 2]]; its determinant is 16, its inverse [[5, -2], [-2, 4]] / 16.
  const gram = Float64Array.of(4, 2, 2, 5);
  expect(cholesky(gram, 2)).toEqual(Float64Array.of(2, 0, 1, 2));
  const x = solveSpd(gram, Float64Array.of(16, 0, 0, 16), { n: 2, m: 2 });
  expect(x).toEqual(Float64Array.of(5, -2, -2, 4));
});

test("the ridge is added to the diagonal and the operands stay as they were", () => {
  const gram = Float64Array.of(1, 0, 0, 3);
  const right = Float64Array.of(6, 12);
  const x = solveRidge(gram, right, { n: 2, m: 1, ridge: 1 });
  expect(x[0]).toBeCloseTo(3, 14);
  expect(x[1]).toBeCloseTo(3, 14);
  expect(gram).toEqual(Float64Array.of(1, 0, 0, 3));
  expect(right).toEqual(Float64Array.of(6, 12));
});

// Sizes around the tile (2, 4) and the block (32).
test.each([1, 3, 31, 32, 33, 70, 129])("residual of a random system of %i", (n) => {
  const m = 7;
  const rng = createRng(n);
  const factor = Float64Array.from({ length: n * n }, () => rng.normal());
  const gram = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      for (let k = 0; k < n; k++) gram[i * n + j]! += factor[i * n + k]! * factor[j * n + k]!;
    }
    gram[i * n + i]! += n;
  }
  const right = Float64Array.from({ length: n * m }, () => rng.normal());
  const x = solveSpd(gram, right, { n, m });
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < m; j++) {
      let sum = 0;
      for (let k = 0; k < n; k++) sum += gram[i * n + k]! * x[k * m + j]!;
      expect(Math.abs(sum - right[i * m + j]!)).toBeLessThan(1e-11);
    }
  }
});

test("what is not positive definite says where", () => {
  expect(() => cholesky(Float64Array.of(1, 2, 2, 1), 2)).toThrow(
    /row 1: expected a positive definite matrix, found pivot -3/,
  );
  expect(() => cholesky(Float64Array.of(1, 1, 1, 1), 2)).toThrow(/raise the ridge/);
  expect(() => cholesky(Float64Array.of(Number.NaN, 0, 0, 1), 2)).toThrow(/row 0: .*found NaN/);
});
