/**
 * @module In which order feed-forward channels are kept, two ways. Both give one total order, so that narrow variants
 * are prefixes of wide ones.
 *
 * `contribution`: mean |x_i| times the norm of the channel's column in `down_proj` (arXiv:2411.19146, appendix A).
 * Cheap, and blind to channels that can stand in for each other.
 *
 * `elimination`: the channel goes first whose loss costs least once the others are refitted to make up for it: the
 * optimal brain surgeon on whole channels (Hassibi and Stork, 1993; arXiv:2208.11580, eq. 2 and 3). With the Hessian
 * G + lambda I of the ridge refit, losing channel i costs |w_i|^2 / H_ii, where H is the inverse Hessian over the
 * channels still there and w_i the refitted output weights; both are brought up to date after each loss. The sum of
 * these costs is what `refitTowards` is then left with.
 *
 * Departures: from a width of 1024 on the elimination goes by blocks, see `channel-pools.ts`.
 */
import { solveRidge } from "../tensor/index.js";

export type ChannelRanking = "contribution" | "elimination";

/** Channels by falling score; equal scores keep their order. */
export function rankByScore(scores: ArrayLike<number>): Int32Array {
  return Int32Array.from({ length: scores.length }, (_, i) => i).sort((a, b) => scores[b]! - scores[a]! || a - b);
}

/** What the elimination works on; rows move as channels are lost, so that those still there stay in front. */
export interface Elimination {
  /** Inverse Hessian, [n, n]; the first `alive` rows and columns count. */
  inverse: Float64Array;
  /** Refitted output weights, [n, m]. */
  weights: Float64Array;
  /** The channel that each row stands for. */
  channels: Int32Array;
  n: number;
  m: number;
}

/**
 * Channels in the order in which they are worth keeping, by elimination. About n^3 / 3 + n^2 m / 2 multiply-adds.
 *
 * @param gram sum of x x^T over the inputs of `down_proj`, [n, n]
 * @param weights `down_proj` with its inputs first, [n, m]; not changed
 * @param ridge lambda as a share of the mean diagonal of the Gram matrix
 */
export function rankByElimination(
  gram: Float64Array | Float32Array,
  weights: ArrayLike<number>,
  { n, m, ridge }: { n: number; m: number; ridge: number },
): Int32Array {
  let diagonal = 0;
  for (let i = 0; i < n; i++) diagonal += gram[i * n + i]! / n;
  // Channels that are silent on all the text have nothing to tell them apart.
  if (diagonal === 0) return rankByScore(new Float64Array(n));
  const wide = gram instanceof Float64Array ? gram : new Float64Array(gram);
  const inverse = solveRidge(wide, identity(n), { n, m: n, ridge: ridge * diagonal });
  const channels = Int32Array.from({ length: n }, (_, i) => i);
  return eliminateAll({ inverse, weights: Float64Array.from(weights), channels, n, m });
}

/** Loses one channel after the other; what remains is the order. Uses the state up. */
export function eliminateAll(state: Elimination): Int32Array {
  for (let alive = state.n; alive > 1; alive--) {
    swapChannels(state, cheapestChannel(state, alive), alive - 1, alive);
    loseLast(state, alive - 1);
  }
  return state.channels;
}

function identity(n: number): Float64Array {
  const matrix = new Float64Array(n * n);
  for (let i = 0; i < n; i++) matrix[i * n + i] = 1;
  return matrix;
}

function cheapestChannel({ inverse, weights, n, m }: Elimination, alive: number): number {
  let best = 0;
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < alive; i++) {
    let squares = 0;
    for (let at = i * m; at < (i + 1) * m; at++) squares += weights[at]! * weights[at]!;
    const cost = squares / inverse[i * n + i]!;
    if (cost >= least) continue;
    least = cost;
    best = i;
  }
  return best;
}

/** Exchanges two channels' rows and columns among those still there. */
function swapChannels({ inverse, weights, channels, n, m }: Elimination, a: number, b: number, alive: number): void {
  if (a === b) return;
  for (let k = 0; k < alive; k++) swap(inverse, a * n + k, b * n + k);
  for (let k = 0; k < alive; k++) swap(inverse, k * n + a, k * n + b);
  for (let o = 0; o < m; o++) swap(weights, a * m + o, b * m + o);
  swap(channels, a, b);
}

function swap(values: Float64Array | Int32Array, a: number, b: number): void {
  const kept = values[a]!;
  values[a] = values[b]!;
  values[b] = kept;
}

/** Takes channel `lost`, the last one, out of the inverse and shares its work among the channels before it. */
function loseLast({ inverse, weights, n, m }: Elimination, lost: number): void {
  const row = lost * n;
  const pivot = inverse[row + lost]!;
  for (let i = 0; i < lost; i++) {
    const factor = inverse[i * n + lost]! / pivot;
    if (factor === 0) continue;
    for (let k = 0, at = i * n; k < lost; k++) inverse[at + k]! -= factor * inverse[row + k]!;
    for (let o = 0; o < m; o++) weights[i * m + o]! -= factor * weights[lost * m + o]!;
  }
}
