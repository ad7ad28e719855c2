import { afterAll, beforeAll, expect, test } from "vitest";
import { repositoryPath } from "../base/testing.js";
import { bundledTextPath, readDocuments } from "../data/index.js";
import { createEngine } from "../engine/index.js";
import { openModel } from "../models/index.js";
import { createRuntime, type Runtime } from "../runtime/index.js";
import { type F32Tensor, f32Tensor } from "../tensor/index.js";
import { loadTokenizer } from "../tokenizer/index.js";
import { rankByElimination, rankByScore } from "./channel-order.js";
import { rankByPools } from "./channel-pools.js";
import { createProducts } from "./products.js";
import { type Moments, normalisedError, refitTowards, selectInputs } from "./refit.js";
import { randomMatrix } from "./testing.js";
import { transposed } from "./variants.js";

let runtime: Runtime;
beforeAll(async () => {
  runtime = await createRuntime();
});
afterAll(() => runtime.dispose());

test("scores fall, ties keep their order", () => {
  expect([...rankByScore([1, 3, 3, 2])]).toEqual([1, 2, 3, 0]);
});

test("of two channels that always agree, one goes first at no cost", () => {
  // Channels 0 and 1 are equal, 2 is independent and weak. By size 2 would go; but 0 can do the work of 1.
  const gram = Float64Array.of(4, 4, 0, 4, 4, 0, 0, 0, 1);
  const order = rankByElimination(gram, [1, 1, 1], { n: 3, m: 1, ridge: 1e-6 });
  expect(order[2]).not.toBe(2);
  expect(order[0]).not.toBe(2);
});

test("independent channels go by what they contribute", () => {
  // Cost of losing i: w_i^2 G_ii = 1 * 1, 4 * 1, 1 * 9.
  const gram = Float64Array.of(1, 0, 0, 0, 1, 0, 0, 0, 9);
  expect([...rankByElimination(gram, [1, 2, 1], { n: 3, m: 1, ridge: 1e-9 })]).toEqual([2, 1, 0]);
});

test("silent channels keep their order", () => {
  expect([...rankByElimination(new Float64Array(9), [1, 2, 3], { n: 3, m: 1, ridge: 0.01 })]).toEqual([0, 1, 2]);
});

test("the first loss is the one that a refit of all others makes up for best", () => {
  const [n, m, rows] = [6, 3, 40];
  const x = randomMatrix("x", [rows, n]).data;
  const weights = randomMatrix("w", [n, m]).data;
  const moments = exactMoments(x, weights, { n, m, rows });
  const order = rankByElimination(moments.gram, weights, { n, m, ridge: 1e-9 });
  const errors = Array.from({ length: n }, (_, lost) => {
    const kept = Array.from({ length: n }, (_, i) => i).filter((i) => i !== lost);
    const chosen = selectInputs(moments, kept);
    return normalisedError(refitTowards(f32Tensor([m, n - 1]), chosen, { ridge: 1e-9 }), chosen);
  });
  expect(order[n - 1]).toBe(errors.indexOf(Math.min(...errors)));
});

test("eliminated by blocks, nearly the same channels are kept, and are worth as much", async () => {
  const [n, m, rows] = [700, 24, 900];
  const product = createProducts(runtime);
  // Channels in groups that can stand in for each other in part.
  const source = randomMatrix("source", [rows, 160]);
  const mixed = (await product(source, randomMatrix("mix", [160, n]))).data;
  const own = randomMatrix("own", [rows, n]).data;
  const x = f32Tensor(
    [rows, n],
    mixed.map((value, i) => (value + own[i]!) * (1 + ((i * 7) % n) / n)),
  );
  const gram = (await product(x, x, { transposeA: true })).data;
  const weights = randomMatrix("down", [n, m]).data;
  const exact = rankByElimination(gram, weights, { n, m, ridge: 1e-2 });
  const blocked = await rankByPools(product, gram, weights, { n, m, ridge: 1e-2, exactBelow: 64 });
  expect([...blocked].sort((a, b) => a - b)).toEqual(Array.from({ length: n }, (_, i) => i));
  const moments = exactMoments(x.data, weights, { n, m, rows });
  const errorOf = (kept: Int32Array) => {
    const chosen = selectInputs(moments, kept);
    return normalisedError(refitTowards(f32Tensor([m, kept.length]), chosen), chosen);
  };
  for (const width of [600, 350, 175]) {
    const kept = new Set(exact.subarray(0, width));
    const shared = blocked.subarray(0, width).filter((channel) => kept.has(channel)).length;
    // Where channels can stand in for each other in many ways, other choices are worth as much.
    expect(shared / width).toBeGreaterThan(width > 300 ? 0.9 : 0.7);
    expect(errorOf(blocked.subarray(0, width)) / errorOf(exact.subarray(0, width))).toBeLessThan(1.01);
  }
});

test("of a real layer the same channels are kept by blocks as one by one", async () => {
  const model = await openModel(repositoryPath("models/stories260K"));
  const engine = createEngine(runtime, model);
  const tokenizer = loadTokenizer(model.sidecars.tokenizer);
  const text = (await readDocuments(bundledTextPath("train"))).slice(0, 40).join(" ");
  const ids = tokenizer.encode(text).slice(0, 4096);
  const batch = Array.from({ length: 16 }, (_, i) => ids.slice(256 * i, 256 * (i + 1)));
  const x = await engine.embed(batch);
  const { taps } = await engine.runBlock(0, x, { batch: 16, length: 256, taps: true });
  const product = createProducts(runtime);
  const gram = (await product(taps!.ffnHidden!, taps!.ffnHidden!, { transposeA: true })).data;
  const down = (await model.weights.read("model.layers.0.mlp.down_proj.weight")) as F32Tensor;
  const weights = transposed(down).data;
  const [n, m] = [172, 64];
  const exact = rankByElimination(gram, weights, { n, m, ridge: 1e-2 });
  const blocked = await rankByPools(product, gram, weights, { n, m, ridge: 1e-2, exactBelow: 16 });
  for (const width of [129, 86, 43]) {
    expect(new Set(blocked.subarray(0, width))).toEqual(new Set(exact.subarray(0, width)));
  }
  await model.close();
});

/** Moments of y = x W. */
function exactMoments(
  x: Float32Array,
  weights: Float32Array,
  { n, m, rows }: { n: number; m: number; rows: number },
): Moments {
  const gram = new Float64Array(n * n);
  const cross = new Float64Array(n * m);
  let targetSquares = 0;
  for (let r = 0; r < rows; r++) {
    const y = Array.from({ length: m }, (_, o) => {
      let sum = 0;
      for (let i = 0; i < n; i++) sum += x[r * n + i]! * weights[i * m + o]!;
      return sum;
    });
    targetSquares += y.reduce((sum, value) => sum + value * value, 0);
    for (let i = 0; i < n; i++) {
      for (let k = 0; k < n; k++) gram[i * n + k]! += x[r * n + i]! * x[r * n + k]!;
      for (let o = 0; o < m; o++) cross[i * m + o]! += x[r * n + i]! * y[o]!;
    }
  }
  return { gram, cross, targetSquares, n, m };
}
