import { EspalierError } from "../base/index.js";

/**
 * Symmetric positive definite systems in float64, row-major, for the closed-form refits.
 *
 * Everything is expressed through one kernel, `C -= A B^T`, whose inner loop runs along contiguous memory in
 * both operands and keeps a 2 x 4 tile of sums in registers.
 */
const blockRows = 32;

/**
 * Solves `(gram + ridge I) X = right` for X.
 *
 * @param gram [n, n], symmetric (the lower triangle is read); not changed
 * @param right [n, m]; not changed
 * @param ridge added to the diagonal. Defaults to 0
 * @returns X, [n, m]
 * @throws EspalierError when the matrix is not positive definite, with the row at which that shows
 */
export function solveRidge(
  gram: Float64Array,
  right: Float64Array,
  { n, m, ridge = 0 }: { n: number; m: number; ridge?: number },
): Float64Array {
  const lower = cholesky(gram, n, ridge);
  const columns = transpose64(right, n, m); // [m, n]: each right-hand side contiguous
  solveLower(lower, columns, n, m);
  solveUpper(transpose64(lower, n, n), columns, n, m);
  return transpose64(columns, m, n);
}

/** `solveRidge` without a ridge. */
export function solveSpd(gram: Float64Array, right: Float64Array, size: { n: number; m: number }): Float64Array {
  return solveRidge(gram, right, size);
}

/** Lower triangular L with `L L^T = gram + ridge I`; zeros above the diagonal. @throws as {@link solveRidge} */
export function cholesky(gram: Float64Array, n: number, ridge = 0): Float64Array {
  const lower = new Float64Array(n * n);
  let scale = 0;
  for (let i = 0; i < n; i++) {
    lower.set(gram.subarray(i * n, i * n + i + 1), i * n);
    lower[i * n + i]! += ridge;
    scale = Math.max(scale, Math.abs(lower[i * n + i]!));
  }
  const tiny = scale * n * 2 ** -52;
  for (let start = 0; start < n; start += blockRows) {
    const end = Math.min(start + blockRows, n);
    // Left-looking: bring the block columns up to date with all columns before them, then factor inside the block.
    subtractProduct(lower, { from: start, to: n }, lower, { from: start, to: end }, { from: 0, to: start }, n);
    for (let j = start; j < end; j++) factorColumn(lower, n, start, j, tiny);
  }
  clearAbove(lower, n);
  return lower;
}

/** Finishes column j below and on the diagonal, given that columns before `start` are subtracted already. */
function factorColumn(lower: Float64Array, n: number, start: number, j: number, tiny: number): void {
  const rowJ = j * n;
  let pivot = lower[rowJ + j]!;
  for (let k = start; k < j; k++) pivot -= lower[rowJ + k]! ** 2;
  if (!(pivot > tiny)) throw notPositiveDefinite(j, n, pivot);
  const root = Math.sqrt(pivot);
  lower[rowJ + j] = root;
  for (let i = j + 1; i < n; i++) {
    const rowI = i * n;
    let sum = lower[rowI + j]!;
    for (let k = start; k < j; k++) sum -= lower[rowI + k]! * lower[rowJ + k]!;
    lower[rowI + j] = sum / root;
  }
}

function notPositiveDefinite(row: number, n: number, pivot: number): EspalierError {
  return new EspalierError({
    where: `Cholesky of a ${n} x ${n} matrix, row ${row}`,
    expected: "a positive definite matrix",
    found: Number.isNaN(pivot) ? "NaN" : `pivot ${pivot.toExponential(2)}`,
    fix: "raise the ridge, or give more calibration rows",
  });
}

/** In place L Y^T = columns^T: forward substitution for every row of `columns` [m, n]. */
function solveLower(lower: Float64Array, columns: Float64Array, n: number, m: number): void {
  for (let start = 0; start < n; start += blockRows) {
    const end = Math.min(start + blockRows, n);
    subtractProduct(columns, { from: 0, to: m }, lower, { from: start, to: end }, { from: 0, to: start }, n);
    for (let r = 0; r < m; r++) {
      for (let i = start; i < end; i++) {
        let sum = columns[r * n + i]!;
        for (let k = start; k < i; k++) sum -= columns[r * n + k]! * lower[i * n + k]!;
        columns[r * n + i] = sum / lower[i * n + i]!;
      }
    }
  }
}

/** In place U X^T = columns^T, backwards. */
function solveUpper(upper: Float64Array, columns: Float64Array, n: number, m: number): void {
  for (let end = n; end > 0; end -= blockRows) {
    const start = Math.max(0, end - blockRows);
    subtractProduct(columns, { from: 0, to: m }, upper, { from: start, to: end }, { from: end, to: n }, n);
    for (let r = 0; r < m; r++) {
      for (let i = end - 1; i >= start; i--) {
        let sum = columns[r * n + i]!;
        for (let k = i + 1; k < end; k++) sum -= columns[r * n + k]! * upper[i * n + k]!;
        columns[r * n + i] = sum / upper[i * n + i]!;
      }
    }
  }
}

interface Range {
  from: number;
  to: number;
}

/** `target[r, c] -= sum over k of target[r, k] * factor[c, k]`; both have rows of `n`. */
function subtractProduct(
  target: Float64Array,
  rows: Range,
  factor: Float64Array,
  columns: Range,
  inner: Range,
  n: number,
): void {
  if (inner.to <= inner.from) return;
  const rowsEnd = rows.to - ((rows.to - rows.from) % 2);
  const columnsEnd = columns.to - ((columns.to - columns.from) % 4);
  for (let r = rows.from; r < rowsEnd; r += 2) {
    for (let c = columns.from; c < columnsEnd; c += 4) subtractTile(target, r * n, factor, c, inner, n);
  }
  for (let r = rows.from; r < rows.to; r++) {
    for (let c = r < rowsEnd ? columnsEnd : columns.from; c < columns.to; c++) {
      let sum = 0;
      for (let k = inner.from; k < inner.to; k++) sum += target[r * n + k]! * factor[c * n + k]!;
      target[r * n + c]! -= sum;
    }
  }
}

/** A 2 x 4 tile: six loads for eight multiply-adds, all sums in registers. */
function subtractTile(
  target: Float64Array,
  row0: number,
  factor: Float64Array,
  column: number,
  inner: Range,
  n: number,
): void {
  const row1 = row0 + n;
  const f0 = column * n;
  const f1 = f0 + n;
  const f2 = f1 + n;
  const f3 = f2 + n;
  let s00 = 0;
  let s01 = 0;
  let s02 = 0;
  let s03 = 0;
  let s10 = 0;
  let s11 = 0;
  let s12 = 0;
  let s13 = 0;
  const to = inner.to;
  for (let k = inner.from; k < to; k++) {
    const a0 = target[row0 + k]!;
    const a1 = target[row1 + k]!;
    const b0 = factor[f0 + k]!;
    const b1 = factor[f1 + k]!;
    const b2 = factor[f2 + k]!;
    const b3 = factor[f3 + k]!;
    s00 += a0 * b0;
    s01 += a0 * b1;
    s02 += a0 * b2;
    s03 += a0 * b3;
    s10 += a1 * b0;
    s11 += a1 * b1;
    s12 += a1 * b2;
    s13 += a1 * b3;
  }
  target[row0 + column]! -= s00;
  target[row0 + column + 1]! -= s01;
  target[row0 + column + 2]! -= s02;
  target[row0 + column + 3]! -= s03;
  target[row1 + column]! -= s10;
  target[row1 + column + 1]! -= s11;
  target[row1 + column + 2]! -= s12;
  target[row1 + column + 3]! -= s13;
}

function clearAbove(lower: Float64Array, n: number): void {
  for (let i = 0; i < n; i++) lower.fill(0, i * n + i + 1, (i + 1) * n);
}

function transpose64(source: Float64Array, rows: number, columns: number): Float64Array {
  const target = new Float64Array(rows * columns);
  const tile = 32;
  for (let i0 = 0; i0 < rows; i0 += tile) {
    for (let j0 = 0; j0 < columns; j0 += tile) {
      for (let i = i0; i < Math.min(i0 + tile, rows); i++) {
        for (let j = j0; j < Math.min(j0 + tile, columns); j++) target[j * rows + i] = source[i * columns + j]!;
      }
    }
  }
  return target;
}
