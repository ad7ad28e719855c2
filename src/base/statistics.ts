/** A mean with its 95 % interval. */
export interface Interval {
  mean: number;
  low: number;
  high: number;
  /** How many independent values it rests on. */
  n: number;
}

export function mean(values: readonly number[]): number {
  let sum = 0;
  for (const value of values) sum += value;
  return sum / values.length;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Student's t interval (95 %) of the mean; one value alone has no width to state, so its interval is infinite. */
export function meanInterval(values: readonly number[]): Interval {
  const n = values.length;
  const centre = mean(values);
  if (n < 2) return { mean: centre, low: Number.NEGATIVE_INFINITY, high: Number.POSITIVE_INFINITY, n };
  const variance = values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (n - 1);
  const half = studentT975(n - 1) * Math.sqrt(variance / n);
  return { mean: centre, low: centre - half, high: centre + half, n };
}

/** The interval of the mean difference a - b over the same sequences. */
export function pairedInterval(a: readonly number[], b: readonly number[]): Interval {
  return meanInterval(a.map((value, i) => value - b[i]!));
}

const t975 = [
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131, 2.12, 2.11,
  2.101, 2.093, 2.086, 2.08, 2.074, 2.069, 2.064, 2.06, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/** The 97.5 % point of Student's t: a table to 30 degrees of freedom, then the Cornish-Fisher expansion (error < 1e-4). */
export function studentT975(degrees: number): number {
  if (degrees <= 30) return t975[degrees - 1]!;
  const z = 1.959963984540054;
  const first = (z ** 3 + z) / (4 * degrees);
  const second = (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * degrees ** 2);
  return z + first + second;
}
