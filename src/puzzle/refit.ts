/**
 * @module Closed-form refits: the last matrix of a sub-block by ridge regression on calibration activations.
 *
 * With inputs X [N, n], wanted outputs Y [N, m] and starting weights W0 [m, n], the refit minimises
 * |X W^T - Y|^2 + lambda |W - W0|^2, so (X^T X + lambda I) W^T = X^T Y + lambda W0^T. The pull is towards the
 * training-free start, not towards zero: directions that the text never excites keep the parent's weights.
 * lambda is a share of the mean diagonal of X^T X, which makes it independent of scale and token count.
 *
 * All that is needed of the text are the sums X^T X and X^T Y, from one pass.
 */
import { EspalierError, internal } from "../base/index.js";
import { type F32Tensor, f32Tensor, type HostTensor, solveRidge } from "../tensor/index.js";

/** Numbers of a large sum: float64, or f32 from a width of {@link wideInputs} on. */
export type Sums = Float64Array | Float32Array;

/** Inputs from which on sums are f32 and are solved and multiplied in ONNX Runtime: see `refit-wide.ts`. */
export const wideInputs = 1024;

/** Sums over calibration rows x [n] (inputs) and y [m] (wanted outputs). */
export interface Moments {
  /** Sum of x x^T, [n, n]. */
  gram: Sums;
  /** Sum of x y^T, [n, m]. */
  cross: Sums;
  /** Sum of |y|^2. */
  targetSquares: number;
  /** Inputs. */
  n: number;
  /** Outputs. */
  m: number;
}

export interface RefitOptions {
  /** lambda as a share of the mean diagonal of the Gram matrix. Defaults to 1e-2. */
  ridge?: number;
}

export const defaultRidge = 1e-2;

export function emptyMoments(n: number, m: number): Moments {
  return { gram: emptySums(n, n * n), cross: emptySums(n, n * m), targetSquares: 0, n, m };
}

/** Zeros for `size` sums over `inputs` inputs. */
export function emptySums(inputs: number, size: number): Sums {
  return inputs < wideInputs ? new Float64Array(size) : new Float32Array(size);
}

/** The refitted matrix [m, n], pulled towards `start` [m, n]. Inputs that are all zero leave `start` as it is. */
export function refitTowards(
  start: HostTensor,
  moments: Moments,
  { ridge = defaultRidge }: RefitOptions = {},
): F32Tensor {
  const { n, m } = moments;
  const weights = asF32(start);
  if (weights.length !== n * m) internal(`refit of [${start.shape}] with moments of ${n} inputs and ${m} outputs`);
  const diagonal = meanDiagonal(moments);
  if (diagonal === 0) return f32Tensor([m, n], Float32Array.from(weights));
  const lambda = ridge * diagonal;
  const right = new Float64Array(moments.cross);
  for (let i = 0; i < n; i++) for (let o = 0; o < m; o++) right[i * m + o]! += lambda * weights[o * n + i]!;
  const solved = solveRidge(wide(moments.gram), right, { n, m, ridge: lambda });
  const fitted = new Float32Array(m * n);
  for (let i = 0; i < n; i++) for (let o = 0; o < m; o++) fitted[o * n + i] = solved[i * m + o]!;
  return f32Tensor([m, n], fitted);
}

function wide(sums: Sums): Float64Array {
  return sums instanceof Float64Array ? sums : new Float64Array(sums);
}

/** Mean square of an input, summed over rows. @throws EspalierError when it is not finite */
export function meanDiagonal({ gram, n }: Pick<Moments, "gram" | "n">): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += gram[i * n + i]!;
  if (!Number.isFinite(sum)) throw notFinite();
  return sum / n;
}

function notFinite(): EspalierError {
  return new EspalierError({
    where: "refit",
    expected: "finite activations",
    found: "NaN or infinite sums over the calibration text",
    fix: "look for broken weights in the parent (`espalier show`)",
  });
}

/** The moments of a choice of inputs, in the order given. */
export function selectInputs(moments: Moments, kept: ArrayLike<number>): Moments {
  const { n, m } = moments;
  const size = kept.length;
  const gram = emptySums(size, size * size);
  const cross = emptySums(size, size * m);
  for (let i = 0; i < size; i++) {
    const row = kept[i]! * n;
    for (let j = 0; j < size; j++) gram[i * size + j] = moments.gram[row + kept[j]!]!;
    cross.set(moments.cross.subarray(kept[i]! * m, (kept[i]! + 1) * m), i * m);
  }
  return { ...moments, gram, cross, n: size };
}

/**
 * |X W^T - Y|^2 / |Y|^2 of a matrix [m, n] on the calibration rows, from the sums alone; the normalised error of
 * block distillation (arXiv:2411.19146, section 3). 0 where the wanted output is zero and met.
 */
export function normalisedError(weight: HostTensor, moments: Moments): number {
  const { gram, cross, targetSquares, n, m } = moments;
  const w = asF32(weight);
  let fit = 0;
  const image = new Float64Array(n);
  for (let o = 0; o < m; o++) {
    const row = w.subarray(o * n, (o + 1) * n);
    image.fill(0);
    for (let i = 0; i < n; i++) {
      const factor = row[i]!;
      const at = i * n;
      for (let j = 0; j < n; j++) image[j]! += factor * gram[at + j]!;
    }
    for (let i = 0; i < n; i++) fit += row[i]! * (image[i]! - 2 * cross[i * m + o]!);
  }
  const error = Math.max(0, fit + targetSquares);
  return targetSquares === 0 ? error : error / targetSquares;
}

export function asF32(tensor: HostTensor): Float32Array {
  if (tensor.dtype !== "f32") internal(`f32 weights expected, found ${tensor.dtype}`);
  return tensor.data as Float32Array;
}
