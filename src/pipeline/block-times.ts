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

/**
 * By how much more time blocks take in the parent itself than in files of copies. What the parent takes more than a model
 * of a few of its blocks rests on many blocks at once, so it is known better than any one of them: it gives the level, the
 * copies the proportions. 1 where the parent is no deeper than the few, or noise leaves nothing.
 *
 * @param halves the copies' times of every half of the few blocks, and of every half of the parent
 */
export function anchorOf(
  { few, whole }: { few: MeasuredTimes; whole: MeasuredTimes },
  halves: readonly (readonly MeasuredTimes[])[],
): { prefill: number; decode: number } {
  const [ofFew, ofWhole] = halves as [MeasuredTimes[], MeasuredTimes[]];
  const factor = (secondsOf: (times: MeasuredTimes) => number[]) => {
    const total = (times: readonly MeasuredTimes[]) => times.flatMap(secondsOf).reduce((sum, value) => sum + value, 0);
    const found = (total([whole]) - total([few])) / (total(ofWhole) - total(ofFew));
    return ofWhole.length > ofFew.length && found > 0 && Number.isFinite(found) ? found : 1;
  };
  return {
    prefill: factor(({ prefill }) => prefill.map(({ seconds }) => seconds.mean)),
    decode: factor(({ decode }) => decode.map(({ seconds }) => seconds.mean)),
  };
}

/** Times of the same points, each kind by its factor. */
export function scaled<Times extends MeasuredTimes>(
  times: Times,
  { prefill, decode }: { prefill: number; decode: number },
): Pick<Times, "prefill" | "decode"> {
  const by = (factor: number, { mean, low, high, n }: Interval): Interval => ({
    mean: factor * mean,
    low: factor * low,
    high: factor * high,
    n,
  });
  return {
    prefill: times.prefill.map((entry) => ({ ...entry, seconds: by(prefill, entry.seconds) })),
    decode: times.decode.map((entry) => ({ ...entry, seconds: by(decode, entry.seconds) })),
  };
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
