/**
 * @module Symmetric positive definite systems too large for float64 loops: Cholesky by tiles of 512 x 512, with the
 * products in ONNX Runtime. Lower tiles only, in f32; what is factored and inverted within a tile is float64.
 *
 * The error is that of f32 in a system whose condition the ridge bounds. Refits solve for the change to the start, not
 * for the matrix itself, so that it is the change that has this error (`solve-wide` in `moments.ts`).
 */
import { cholesky, f32Tensor } from "../tensor/index.js";
import type { Product } from "./products.js";

/** Rows and columns of a tile. */
export const tileSize = 512;

/** Cholesky factor L of a matrix: tiles below the diagonal, and in their place on it the inverses of L's own. */
export interface TileFactor {
  /** Rows of the matrix. */
  n: number;
  /** Tiles along one side. */
  count: number;
  tiles: Float32Array[];
}

/** Place of tile (i, j), i >= j. */
function at(i: number, j: number): number {
  return (i * (i + 1)) / 2 + j;
}

const square = [tileSize, tileSize];

/** @throws EspalierError when the matrix (lower triangle of `gram` [n, n], plus `ridge`) is not positive definite */
export async function factorTiles(
  product: Product,
  gram: Float32Array | Float64Array,
  n: number,
  ridge: number,
): Promise<TileFactor> {
  const count = Math.ceil(n / tileSize);
  const tiles = cutTiles(gram, n, ridge);
  let spare = new Float32Array(tileSize * tileSize);
  const replace = async (place: number, run: (into: Float32Array) => Promise<unknown>) => {
    await run(spare);
    [spare, tiles[place]] = [tiles[place]! as Float32Array<ArrayBuffer>, spare];
  };
  const tile = (place: number) => f32Tensor(square, tiles[place]!);
  for (let k = 0; k < count; k++) {
    for (let j = 0; j < k; j++) {
      for (let i = k; i < count; i++) {
        const options = { transposeB: true, alpha: -1, plus: tile(at(i, k)) };
        await replace(at(i, k), (into) => product(tile(at(i, j)), tile(at(k, j)), { ...options, into }));
      }
    }
    tiles[at(k, k)] = invertedFactor(tiles[at(k, k)]!);
    for (let i = k + 1; i < count; i++) {
      await replace(at(i, k), (into) => product(tile(at(i, k)), tile(at(k, k)), { transposeB: true, into }));
    }
  }
  return { n, count, tiles };
}

/** The lower tiles; beyond the matrix's end an identity. */
function cutTiles(gram: Float32Array | Float64Array, n: number, ridge: number): Float32Array[] {
  const tiles: Float32Array[] = [];
  for (let i = 0; i * tileSize < n; i++) {
    for (let j = 0; j <= i; j++) {
      const tile = new Float32Array(tileSize * tileSize);
      for (let r = 0; r < tileSize; r++) {
        const row = i * tileSize + r;
        if (row < n)
          tile.set(gram.subarray(row * n + j * tileSize, row * n + Math.min(n, (j + 1) * tileSize)), r * tileSize);
        if (i === j) tile[r * tileSize + r]! += row < n ? ridge : 1;
      }
      tiles.push(tile);
    }
  }
  return tiles;
}

/** Inverse of the Cholesky factor of one tile. */
function invertedFactor(tile: Float32Array): Float32Array {
  return Float32Array.from(invertLower(cholesky(new Float64Array(tile), tileSize), tileSize));
}

/** Inverse of a lower triangular matrix, row by row. */
export function invertLower(lower: Float64Array, n: number): Float64Array {
  const inverse = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    const row = inverse.subarray(i * n, i * n + i + 1);
    row[i] = 1;
    for (let k = 0; k < i; k++) {
      const factor = lower[i * n + k]!;
      for (let j = 0; j <= k; j++) row[j]! -= factor * inverse[k * n + j]!;
    }
    const pivot = lower[i * n + i]!;
    for (let j = 0; j <= i; j++) row[j]! /= pivot;
  }
  return inverse;
}

/** X of (L L^T) X = right [n, m]. */
export async function solveTiles(
  product: Product,
  { n, count, tiles }: TileFactor,
  right: Float32Array,
  m: number,
): Promise<Float32Array> {
  const blocks = Array.from({ length: count }, (_, i) => {
    const block = new Float32Array(tileSize * m);
    block.set(right.subarray(i * tileSize * m, Math.min(n, (i + 1) * tileSize) * m));
    return block;
  });
  let spare = new Float32Array(tileSize * m);
  const tile = (i: number, j: number) => f32Tensor(square, tiles[at(i, j)]!);
  const block = (i: number) => f32Tensor([tileSize, m], blocks[i]!);
  const replace = async (i: number, run: (into: Float32Array) => Promise<unknown>) => {
    await run(spare);
    [spare, blocks[i]] = [blocks[i]!, spare];
  };
  for (let i = 0; i < count; i++) {
    for (let j = 0; j < i; j++) {
      await replace(i, (into) => product(tile(i, j), block(j), { alpha: -1, plus: block(i), into }));
    }
    await replace(i, (into) => product(tile(i, i), block(i), { into }));
  }
  for (let i = count - 1; i >= 0; i--) {
    for (let j = i + 1; j < count; j++) {
      const options = { transposeA: true, alpha: -1, plus: block(i) };
      await replace(i, (into) => product(tile(j, i), block(j), { ...options, into }));
    }
    await replace(i, (into) => product(tile(i, i), block(i), { transposeA: true, into }));
  }
  const solved = new Float32Array(n * m);
  blocks.forEach((values, i) => {
    solved.set(values.subarray(0, Math.min(tileSize, n - i * tileSize) * m), i * tileSize * m);
  });
  return solved;
}

/**
 * The inverse of L L^T, [size, size] with `size` the rows of all tiles; beyond the matrix's end an identity. Uses up
 * the factor.
 */
export async function invertTiles(product: Product, { count, tiles }: TileFactor): Promise<Float32Array> {
  await invertInPlace(product, count, tiles);
  const size = count * tileSize;
  const inverse = new Float32Array(size * size);
  const tile = (i: number, j: number) => f32Tensor(square, tiles[at(i, j)]!);
  let [sum, spare] = [new Float32Array(tileSize * tileSize), new Float32Array(tileSize * tileSize)];
  for (let i = 0; i < count; i++) {
    for (let j = 0; j <= i; j++) {
      sum.fill(0);
      for (let k = i; k < count; k++) {
        const plus = f32Tensor(square, sum);
        await product(tile(k, i), tile(k, j), { transposeA: true, plus, into: spare });
        [sum, spare] = [spare, sum];
      }
      placeTile(inverse, size, sum, i, j);
    }
  }
  return inverse;
}

/** L becomes its inverse: columns from the last to the first, each from its foot up. */
async function invertInPlace(product: Product, count: number, tiles: Float32Array[]): Promise<void> {
  const tile = (i: number, j: number) => f32Tensor(square, tiles[at(i, j)]!);
  let [sum, spare] = [new Float32Array(tileSize * tileSize), new Float32Array(tileSize * tileSize)];
  for (let j = count - 1; j >= 0; j--) {
    for (let i = count - 1; i > j; i--) {
      sum.fill(0);
      for (let k = j + 1; k <= i; k++) {
        await product(tile(i, k), tile(k, j), { plus: f32Tensor(square, sum), into: spare });
        [sum, spare] = [spare, sum];
      }
      const result = new Float32Array(tileSize * tileSize);
      await product(f32Tensor(square, sum), tile(j, j), { alpha: -1, into: result });
      tiles[at(i, j)] = result;
    }
  }
}

/** Puts a tile and its mirror image into a symmetric matrix. */
function placeTile(matrix: Float32Array, size: number, tile: Float32Array, i: number, j: number): void {
  for (let r = 0; r < tileSize; r++) {
    const row = tile.subarray(r * tileSize, (r + 1) * tileSize);
    matrix.set(row, (i * tileSize + r) * size + j * tileSize);
    if (i === j) continue;
    for (let c = 0; c < tileSize; c++) matrix[(j * tileSize + c) * size + i * tileSize + r] = row[c]!;
  }
}
