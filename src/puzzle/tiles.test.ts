import { afterAll, beforeAll, expect, test } from "vitest";
import { createRuntime, type Runtime } from "../runtime/index.js";
import { maxAbsDifference, solveRidge } from "../tensor/index.js";
import { createMatrixKernels } from "./moments.js";
import { createProducts } from "./products.js";
import { emptyMoments, type Moments, normalisedError, refitTowards, wideInputs } from "./refit.js";
import { errorOf, refit } from "./refit-wide.js";
import { randomMatrix } from "./testing.js";
import { factorTiles, invertTiles, solveTiles } from "./tiles.js";

let runtime: Runtime;
beforeAll(async () => {
  runtime = await createRuntime();
});
afterAll(() => runtime.dispose());

/** Sum of x x^T over rows whose inputs differ in size by a factor of a hundred. */
async function gramOf(n: number, rows: number): Promise<Float32Array> {
  const x = randomMatrix(`x ${n}`, [rows, n]);
  x.data.forEach((value, i) => {
    x.data[i] = value * 10 ** ((2 * (i % n)) / n - 1);
  });
  return (await createProducts(runtime)(x, x, { transposeA: true })).data;
}

test("systems over several tiles are solved as in float64, padded to whole tiles", async () => {
  const [n, m] = [1100, 7];
  const product = createProducts(runtime);
  const gram = await gramOf(n, 1500);
  const right = randomMatrix("right", [n, m]).data;
  const ridge = gram[0]!;
  const exact = solveRidge(new Float64Array(gram), new Float64Array(right), { n, m, ridge });
  const largest = exact.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const factor = await factorTiles(product, gram, n, ridge);
  expect(maxAbsDifference(await solveTiles(product, factor, right, m), exact) / largest).toBeLessThan(1e-4);

  const size = 1536;
  const inverse = await invertTiles(product, factor);
  expect(inverse).toHaveLength(size * size);
  for (const row of [0, 511, 512, 1099]) {
    let sum = 0;
    for (let k = 0; k < n; k++) {
      const entry = gram[Math.max(k, 700) * n + Math.min(k, 700)]! + (k === 700 ? ridge : 0);
      sum += inverse[row * size + k]! * entry;
    }
    expect(sum).toBeCloseTo(row === 700 ? 1 : 0, 3);
    expect(inverse[row * size + 3]).toBe(inverse[3 * size + row]);
  }
});

test("a matrix that is not positive definite is refused", async () => {
  const gram = new Float32Array(600 * 600);
  await expect(factorTiles(createProducts(runtime), gram, 600, -1)).rejects.toThrow("positive definite");
});

test("wide sums are those of all batches, the last stripe narrower", async () => {
  const [n, m, rows] = [wideInputs + 52, 3, 6];
  const kernels = createMatrixKernels(runtime);
  const [sums, gram] = [kernels.moments(n, m), kernels.gram(n)];
  const x = randomMatrix("batch", [rows, n]);
  const [after, before] = [randomMatrix("after", [rows, m]), randomMatrix("before", [rows, m])];
  for (let batch = 0; batch < 2; batch++) {
    await sums.add(x, after, before);
    await gram.add(x);
  }
  const twice = (value: (row: number) => number) =>
    2 * x.data.slice(0, rows).reduce((sum, _, row) => sum + value(row), 0);
  for (const [i, j] of [
    [0, 0],
    [511, n - 1],
    [n - 1, 512],
  ] as const) {
    const expected = twice((row) => x.data[row * n + i]! * x.data[row * n + j]!);
    expect(sums.moments.gram[i * n + j]).toBeCloseTo(expected, 4);
    expect(gram.gram[i * n + j]).toBe(sums.moments.gram[i * n + j]);
    const wanted = (row: number) => after.data[row * m + 1]! - before.data[row * m + 1]!;
    expect(sums.moments.cross[i * m + 1]).toBeCloseTo(
      twice((row) => x.data[row * n + i]! * wanted(row)),
      4,
    );
    expect(gram.absolute[i]).toBeCloseTo(
      twice((row) => Math.abs(x.data[row * n + i]!)),
      4,
    );
  }
  expect(gram.rows).toBe(2 * rows);
  const squares = after.data.reduce((sum, value, i) => sum + (value - before.data[i]!) ** 2, 0);
  expect(sums.moments.targetSquares).toBeCloseTo(2 * squares, 4);
});

test("a wide refit equals the one in float64", async () => {
  const [n, m, rows] = [wideInputs, 5, 300];
  const product = createProducts(runtime);
  const x = randomMatrix("inputs", [rows, n]);
  const y = randomMatrix("outputs", [rows, m]);
  const moments: Moments = {
    ...emptyMoments(n, m),
    gram: (await product(x, x, { transposeA: true })).data,
    cross: (await product(x, y, { transposeA: true })).data,
    targetSquares: y.data.reduce((sum, value) => sum + value * value, 0),
  };
  const start = randomMatrix("start", [m, n]);
  const fitted = await refit(product, start, moments, { ridge: 1e-2 });
  const exact = refitTowards(start, moments, { ridge: 1e-2 });
  // The weights differ by 3e-4 of their size, which costs nothing: the optimum is flat.
  expect(maxAbsDifference(fitted.data, exact.data)).toBeLessThan(2e-3);
  expect(normalisedError(fitted, moments)).toBeCloseTo(normalisedError(exact, moments), 6);
  for (const weight of [start, fitted]) {
    const expected = normalisedError(weight, moments);
    expect(Math.abs((await errorOf(product, weight, moments)) - expected)).toBeLessThan(1e-4 * Math.max(1, expected));
  }
  const silent = { ...moments, gram: new Float32Array(n * n), cross: new Float32Array(n * m) };
  expect((await refit(product, start, silent, { ridge: 1e-2 })).data).toEqual(start.data);
}, 30_000);
