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

/** The 97.5 % point of the normal distribution. */
const z975 = 1.959963984540054;

/**
 * Wilson's score interval (95 %) of a share (JASA 22, 1927): unlike that of a mean it has a width where all agree, and
 * stays between 0 and 1.
 */
export function shareInterval(outcomes: readonly boolean[]): Interval {
  const n = outcomes.length;
  const share = outcomes.filter(Boolean).length / n;
  const z2 = z975 ** 2;
  const centre = (share + z2 / (2 * n)) / (1 + z2 / n);
  const half = (z975 / (1 + z2 / n)) * Math.sqrt((share * (1 - share)) / n + z2 / (4 * n * n));
  // Both ends are exact where none or all are so, which rounding would miss.
  return { mean: share, low: share === 0 ? 0 : centre - half, high: share === 1 ? 1 : centre + half, n };
}

/**
 * The interval (95 %) of the difference a - b of two shares over the same things: Newcombe's method 10 (Statistics in
 * Medicine 17, 1998), which joins both Wilson intervals by the correlation of the outcomes.
 */
export function pairedShareInterval(a: readonly boolean[], b: readonly boolean[]): Interval {
  const [first, second] = [shareInterval(a), shareInterval(b)];
  const difference = first.mean - second.mean;
  const phi = correlation(a, b);
  const join = (x: number, y: number) => Math.sqrt(Math.max(0, x * x - 2 * phi * x * y + y * y));
  return {
    mean: difference,
    low: difference - join(first.mean - first.low, second.high - second.mean),
    high: difference + join(first.high - first.mean, second.mean - second.low),
    n: a.length,
  };
}

/** Phi of the table of both outcomes, brought towards 0 by half an n where it is above. */
function correlation(a: readonly boolean[], b: readonly boolean[]): number {
  const n = a.length;
  const count = (x: boolean, y: boolean) => a.filter((value, i) => value === x && b[i] === y).length;
  const [both, onlyA, onlyB, none] = [count(true, true), count(true, false), count(false, true), count(false, false)];
  const margins = (both + onlyA) * (onlyB + none) * (both + onlyB) * (onlyA + none);
  if (margins === 0) return 0;
  const product = both * none - onlyA * onlyB;
  return (product > 0 ? Math.max(0, product - n / 2) : product) / Math.sqrt(margins);
}

const t975 = [
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131, 2.12, 2.11,
  2.101, 2.093, 2.086, 2.08, 2.074, 2.069, 2.064, 2.06, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/** The 97.5 % point of Student's t: a table to 30 degrees of freedom, then the Cornish-Fisher expansion (error < 1e-4). */
export function studentT975(degrees: number): number {
  if (degrees <= 30) return t975[degrees - 1]!;
  const z = z975;
  const first = (z ** 3 + z) / (4 * degrees);
  const second = (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * degrees ** 2);
  return z + first + second;
}
