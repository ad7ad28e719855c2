import type { Interval } from "../base/index.js";

/** 0.03417 -> "0.0342"; three significant digits, no exponent for what a reader meets. */
export function showNumber(value: number, digits = 3): string {
  if (!Number.isFinite(value)) return "-";
  if (value === 0) return "0";
  const magnitude = Math.floor(Math.log10(Math.abs(value)));
  if (magnitude < -4 || magnitude > 8) return value.toExponential(digits - 1);
  return value.toFixed(Math.max(0, digits - 1 - magnitude));
}

/** "0.0342 (0.0310 to 0.0374)". */
export function showInterval({ mean, low, high }: Interval): string {
  const bounds = Number.isFinite(low) && Number.isFinite(high) ? ` (${showNumber(low)} to ${showNumber(high)})` : "";
  return `${showNumber(mean)}${bounds}`;
}

/** 260032 -> "260,032". */
export function showCount(count: number): string {
  return count.toLocaleString("en-US");
}

/** "60.0 %" of the parent. */
export function showShare(value: number, whole: number): string {
  return `${((100 * value) / whole).toFixed(1)} %`;
}
