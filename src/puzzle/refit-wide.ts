/**
 * @module Closed-form refits of wide matrices: the system of `refit.ts`, solved for the change D = W^T - W0^T,
 * (X^T X + lambda I) D = X^T Y - X^T X W0^T, by tiles in f32. As the right-hand side is what the start lacks, the
 * rounding is that of the change, and inputs that are all zero leave the start as it is.
 */
import { type F32Tensor, f32Tensor, type HostTensor, transposeMatrix } from "../tensor/index.js";
import type { Product } from "./products.js";
import { asF32, type Moments, meanDiagonal, normalisedError, refitTowards, wideInputs } from "./refit.js";
import { factorTiles, solveTiles } from "./tiles.js";

/** {@link refitTowards} for any width. */
export async function refit(
  product: Product,
  start: HostTensor,
  moments: Moments,
  { ridge }: { ridge: number },
): Promise<F32Tensor> {
  const { n, m } = moments;
  if (n < wideInputs) return refitTowards(start, moments, { ridge });
  const diagonal = meanDiagonal(moments);
  if (diagonal === 0) return f32Tensor([m, n], Float32Array.from(asF32(start)));
  const lacking = await imageOf(product, start, moments);
  for (let i = 0; i < lacking.length; i++) lacking[i] = moments.cross[i]! - lacking[i]!;
  const factor = await factorTiles(product, moments.gram, n, ridge * diagonal);
  const fitted = transposeMatrix(await solveTiles(product, factor, lacking, m), n, m);
  const before = asF32(start);
  for (let i = 0; i < fitted.length; i++) fitted[i]! += before[i]!;
  return f32Tensor([m, n], fitted);
}

/** {@link normalisedError} for any width. */
export async function errorOf(product: Product, weight: HostTensor, moments: Moments): Promise<number> {
  const { cross, targetSquares, n, m } = moments;
  if (n < wideInputs) return normalisedError(weight, moments);
  const image = await imageOf(product, weight, moments);
  const w = asF32(weight);
  let fit = 0;
  for (let i = 0; i < n; i++)
    for (let o = 0; o < m; o++) fit += w[o * n + i]! * (image[i * m + o]! - 2 * cross[i * m + o]!);
  const error = Math.max(0, fit + targetSquares);
  return targetSquares === 0 ? error : error / targetSquares;
}

/** G W^T of a matrix W [m, n], [n, m]. */
async function imageOf(product: Product, weight: HostTensor, { gram, n, m }: Moments): Promise<Float32Array> {
  const g = f32Tensor([n, n], gram instanceof Float32Array ? gram : Float32Array.from(gram));
  return (await product(g, f32Tensor([m, n], asF32(weight)), { transposeB: true })).data;
}
