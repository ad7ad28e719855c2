/**
 * @module `elimination` of `channel-order.ts` for wide feed-forwards, by blocks: the next channels to lose, at most 128 and
 * a sixteenth of those left, are sought among four times as many that are cheapest now. What the others make up for
 * is brought up to date once for the block, as products of matrices; within the pool every loss counts at once. Differs
 * from the exact order only where a channel outside the pool would have become cheaper than one in it.
 */
import { cholesky, type F32Tensor, f32Tensor } from "../tensor/index.js";
import { eliminateAll, rankByScore } from "./channel-order.js";
import { columnsOf, type Product } from "./products.js";
import { factorTiles, invertLower, invertTiles, tileSize } from "./tiles.js";

export interface PoolOptions {
  /** Channels. */
  n: number;
  /** Outputs. */
  m: number;
  /** lambda as a share of the mean diagonal of the Gram matrix. */
  ridge: number;
  /** Channels from which on the exact order is quick. Defaults to 512. */
  exactBelow?: number;
}

/** Rows and columns in front are alive or dead; dead ones have been lost or are padding. */
interface State {
  /** Inverse Hessian, [size, size]. */
  inverse: Float32Array;
  /** Refitted output weights, [size, m]. */
  weights: Float32Array;
  /** The channel of each row, or -1 for a dead one. */
  channels: Int32Array;
  size: number;
  m: number;
}

/** As `rankByElimination`; `gram` [n, n], `weights` [n, m]. */
export async function rankByPools(
  product: Product,
  gram: Float32Array | Float64Array,
  weights: Float32Array,
  { n, m, ridge, exactBelow = 512 }: PoolOptions,
): Promise<Int32Array> {
  let diagonal = 0;
  for (let i = 0; i < n; i++) diagonal += gram[i * n + i]! / n;
  if (diagonal === 0) return rankByScore(new Float64Array(n));
  const inverse = await invertTiles(product, await factorTiles(product, gram, n, ridge * diagonal));
  let state = startState(inverse, weights, n, m);
  const order = new Int32Array(n);
  let alive = n;
  while (alive > exactBelow) {
    const losses = Math.min(128, 2 ** Math.max(0, Math.floor(Math.log2(alive / 16))));
    const lost = await cheapestInPool(product, state, losses);
    for (const row of lost) order[--alive] = state.channels[row]!;
    await loseAll(product, state, lost);
    const fitting = Math.max(1, Math.ceil(alive / tileSize)) * tileSize;
    if (fitting <= 0.85 * state.size) state = compacted(state, fitting);
  }
  const last = finish(state, alive);
  order.set(last);
  return order;
}

function startState(inverse: Float32Array, weights: Float32Array, n: number, m: number): State {
  const size = Math.ceil(n / tileSize) * tileSize;
  const padded = new Float32Array(size * m);
  padded.set(weights);
  const channels = Int32Array.from({ length: size }, (_, i) => (i < n ? i : -1));
  return { inverse, weights: padded, channels, size, m };
}

function aliveRows({ channels }: State): number[] {
  return [...channels.keys()].filter((row) => channels[row]! >= 0);
}

/** The channels to lose next, in the order of their loss. */
async function cheapestInPool(product: Product, state: State, losses: number): Promise<number[]> {
  const { inverse, size, m, weights } = state;
  const costs = new Float64Array(size);
  const rows = aliveRows(state);
  for (const row of rows) {
    let squares = 0;
    for (let k = row * m; k < (row + 1) * m; k++) squares += weights[k]! * weights[k]!;
    costs[row] = squares / inverse[row * size + row]!;
  }
  const candidates = rows.sort((a, b) => costs[a]! - costs[b]! || a - b).slice(0, 4 * losses);
  const chosen = gatherRows(weights, m, candidates);
  const overlaps = await product(chosen, chosen, { transposeB: true });
  return eliminateWithin(gatherSquare(inverse, size, candidates), new Float64Array(overlaps.data), losses).map(
    (place) => candidates[place]!,
  );
}

/**
 * Greedy losses among a few channels, from their part H of the inverse and the products K_ij = w_i . w_j, both [c, c].
 * With h and k the columns of the lost channel l, f = h / h_l and g = k - k_l f / 2: H -= f h^T and K -= f g^T + g f^T.
 * Only the diagonals are brought up to date; a column is when its channel is lost.
 */
function eliminateWithin(inverse: Float64Array, overlaps: Float64Array, losses: number): number[] {
  const c = Math.sqrt(inverse.length);
  const [h, k] = [diagonalOf(inverse, c), diagonalOf(overlaps, c)];
  const past: Loss[] = [];
  const alive = new Set(h.keys());
  while (past.length < losses) {
    let [lost, least] = [-1, Number.POSITIVE_INFINITY];
    for (const i of alive) if (k[i]! / h[i]! < least) [lost, least] = [i, k[i]! / h[i]!];
    alive.delete(lost);
    const loss = loseOne(inverse, overlaps, past, lost);
    for (let i = 0; i < c; i++) {
      h[i]! -= loss.f[i]! * loss.column[i]!;
      k[i]! -= 2 * loss.f[i]! * loss.g[i]!;
    }
    past.push(loss);
  }
  return past.map(({ lost }) => lost);
}

interface Loss {
  lost: number;
  /** h of the text above. */
  column: Float64Array;
  f: Float64Array;
  g: Float64Array;
}

function loseOne(inverse: Float64Array, overlaps: Float64Array, past: readonly Loss[], lost: number): Loss {
  const c = Math.sqrt(inverse.length);
  const column = inverse.slice(lost * c, (lost + 1) * c);
  const g = overlaps.slice(lost * c, (lost + 1) * c);
  for (const { f, column: h, g: k } of past) {
    const [fl, hl, kl] = [f[lost]!, h[lost]!, k[lost]!];
    for (let i = 0; i < c; i++) {
      column[i]! -= hl * f[i]!;
      g[i]! -= fl * k[i]! + kl * f[i]!;
    }
  }
  const pivot = column[lost]!;
  const half = g[lost]! / 2;
  const f = column.map((value) => value / pivot);
  for (let i = 0; i < c; i++) g[i]! -= half * f[i]!;
  return { lost, column, f, g };
}

function diagonalOf(matrix: Float64Array, c: number): Float64Array {
  return Float64Array.from({ length: c }, (_, i) => matrix[i * c + i]!);
}

/**
 * With H_LL = C C^T, B = C^-1 H_L: and V = C^-1 W_L: H -= B^T B and W -= B^T V. Rows of lost channels become zero.
 */
async function loseAll(product: Product, state: State, lost: readonly number[]): Promise<void> {
  const { inverse, weights, channels, size, m } = state;
  const p = lost.length;
  const factor = invertLower(cholesky(gatherSquare(inverse, size, lost), p), p);
  const c = f32Tensor([p, p], Float32Array.from(factor));
  const b = await product(c, gatherRows(inverse, size, lost));
  const v = await product(c, gatherRows(weights, m, lost));
  const spare = new Float32Array(tileSize * Math.max(size, m));
  for (let start = 0; start < size; start += tileSize) {
    const part = columnsOf(b, start, tileSize);
    await subtract(product, { part, from: b, target: inverse, width: size, start, spare });
    await subtract(product, { part, from: v, target: weights, width: m, start, spare });
  }
  for (const row of lost) channels[row] = -1;
}

/** Rows of `target` from `start` -= part^T from. */
async function subtract(
  product: Product,
  {
    part,
    from,
    target,
    width,
    start,
    spare,
  }: Record<"part" | "from", F32Tensor> & Record<"target" | "spare", Float32Array> & Record<"width" | "start", number>,
): Promise<void> {
  const rows = target.subarray(start * width, (start + tileSize) * width);
  const into = spare.subarray(0, rows.length);
  await product(part, from, { transposeA: true, alpha: -1, plus: f32Tensor([tileSize, width], rows), into });
  rows.set(into);
}

function gatherRows(matrix: Float32Array, width: number, rows: readonly number[]): F32Tensor {
  const gathered = new Float32Array(rows.length * width);
  rows.forEach((row, i) => {
    gathered.set(matrix.subarray(row * width, (row + 1) * width), i * width);
  });
  return f32Tensor([rows.length, width], gathered);
}

function gatherSquare(matrix: Float32Array, width: number, rows: readonly number[]): Float64Array {
  const c = rows.length;
  const gathered = new Float64Array(c * c);
  for (let i = 0; i < c; i++) for (let j = 0; j < c; j++) gathered[i * c + j] = matrix[rows[i]! * width + rows[j]!]!;
  return gathered;
}

/** The same state in fewer rows: dead ones go, up to a multiple of a tile. Moves in place, so that nothing is held twice. */
function compacted(state: State, size: number): State {
  const { inverse, weights, channels, m } = state;
  const rows = aliveRows(state);
  const kept = new Int32Array(size).fill(-1);
  for (const [to, from] of rows.entries()) {
    // Rows and columns move forward only: what is overwritten has been read.
    for (let k = 0; k < rows.length; k++) inverse[to * size + k] = inverse[from * state.size + rows[k]!]!;
    weights.copyWithin(to * m, from * m, (from + 1) * m);
    kept[to] = channels[from]!;
  }
  for (let row = 0; row < size; row++) {
    inverse.fill(0, row * size + (row < rows.length ? rows.length : 0), (row + 1) * size);
  }
  weights.fill(0, rows.length * m, size * m);
  return { inverse: inverse.subarray(0, size * size), weights: weights.subarray(0, size * m), channels: kept, size, m };
}

/** The last channels, by the exact order in float64. */
function finish(state: State, alive: number): Int32Array {
  const rows = aliveRows(state);
  const places = eliminateAll({
    inverse: gatherSquare(state.inverse, state.size, rows),
    weights: new Float64Array(gatherRows(state.weights, state.m, rows).data),
    channels: Int32Array.from(rows, (row) => state.channels[row]!),
    n: alive,
    m: state.m,
  });
  return places;
}
