/** @module From timed files to the seconds of one copy of a sub-block: which points are timed, and their differences. */
import { type Interval, meanInterval } from "../base/index.js";
import type { DecodePoint, TimeSamples } from "../llamacpp/index.js";
import type { CostTable, MeasuredTimes, Scenario } from "../plan/index.js";
import type { Unit } from "./block-files.js";

/** The points of all scenarios, each once. */
export function pointsOf(unit: Unit, scenarios: readonly Scenario[]): { prefill: number[]; decode: DecodePoint[] } {
  const prefill = [...new Set(scenarios.map(({ input }) => input))];
  const decode = new Map<string, DecodePoint>();
  for (const scenario of scenarios) {
    for (const point of depthsOf(unit, scenario)) decode.set(`${point.batch} ${point.depth}`, point);
  }
  return { prefill, decode: [...decode.values()] };
}

export function depthsOf({ readsCache }: Unit, { input, output, batch }: Scenario): DecodePoint[] {
  const depths = readsCache ? [input, input + output] : [input];
  return depths.map((depth) => ({ batch, depth }));
}

/** Seconds of a copy, or of the whole: many less few, round by round. */
export function timesOf(unit: Unit, scenarios: readonly Scenario[], samples: readonly TimeSamples[]): MeasuredTimes {
  const { prefill, decode } = pointsOf(unit, scenarios);
  const each = (rounds: readonly (readonly number[])[]) => meanInterval(perCopy(rounds, unit.copies));
  return {
    prefill: prefill.map((tokens, i) => ({ tokens, seconds: each(samples.map((file) => file.prefill[i]!)) })),
    decode: decode.map((point, i) => ({ ...point, seconds: each(samples.map((file) => file.decode[i]!)) })),
  };
}

/** Rounds of one copy: the first file less the second, by the copies between them. */
export function perCopy(files: readonly (readonly number[])[], copies: number): number[] {
  const [many, few] = files;
  return few ? many!.map((seconds, round) => (seconds - few[round]!) / copies) : [...many!];
}

/** What to tell about a table before it decides anything: times that are not clearly above nothing. */
export function doubtsOf({ shapes }: CostTable): string[] {
  const wide = ({ mean, high, low }: Interval) => high - low > mean;
  const doubtful = shapes
    .filter(({ prefill, decode }) => [...prefill, ...decode].some(({ seconds }) => wide(seconds)))
    .map(({ part, id }) => `${part} ${id}`);
  if (doubtful.length === 0) return [];
  return [
    `intervals as wide as the times themselves: ${doubtful.join(", ")}; was the machine busy? measure again with more --repeats`,
  ];
}

/** a - factor * (b + c + ...), point by point; the intervals of independent means add as squares. */
export function subtract(a: MeasuredTimes, others: readonly MeasuredTimes[], factor = 1): MeasuredTimes {
  const less = (value: Interval, taken: readonly Interval[]): Interval => {
    const mean = taken.reduce((rest, other) => rest - factor * other.mean, value.mean);
    const halves = [halfWidth(value), ...taken.map((other) => factor * halfWidth(other))];
    const half = Math.hypot(...halves);
    return { mean, low: mean - half, high: mean + half, n: Math.min(value.n, ...taken.map(({ n }) => n)) };
  };
  return {
    prefill: a.prefill.map((entry, i) => ({
      ...entry,
      seconds: less(
        entry.seconds,
        others.map(({ prefill }) => prefill[i]!.seconds),
      ),
    })),
    decode: a.decode.map((entry, i) => ({
      ...entry,
      seconds: less(
        entry.seconds,
        others.map(({ decode }) => decode[i]!.seconds),
      ),
    })),
  };
}

function halfWidth({ low, high }: Interval): number {
  return (high - low) / 2;
}
