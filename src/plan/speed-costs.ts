/**
 * @module Seconds of a model as sums over its blocks, from measured sub-blocks. Every cost is in seconds and less is
 * better, so that a search can bound it from above: a rate of at least 40 tokens a second is a time of at most 1/40 s.
 */
import { EspalierError } from "../base/index.js";
import type { BlockConfig, FfnConfig } from "../models/index.js";
import { type CostTable, type MeasuredTimes, type SubBlock, subBlockId } from "./cost-table.js";
import type { LinearCost } from "./costs.js";

/** How a model is used: prompts of `input` tokens, then `output` tokens each, `batch` sequences at once. */
export interface Scenario {
  input: number;
  output: number;
  batch: number;
}

export const speedCostNames = ["prefill", "decode", "throughput", "latency"] as const;
export type SpeedCostName = (typeof speedCostNames)[number];

/**
 * Seconds, all linear in the blocks:
 * - `prefill`: one prompt of `input` tokens;
 * - `decode`: one step, which gives every sequence a token, the mean over the depths input ... input + output;
 * - `latency`: from the prompts to the last token: the batch's prompts one after the other, then `output` steps;
 * - `throughput`: `latency` by generated token.
 */
export type SpeedCosts = Record<SpeedCostName, LinearCost>;

/** Costs of a scenario. `where` names the file of costs in errors. */
export function speedCosts(table: CostTable, scenario: Scenario, where = "costs"): SpeedCosts {
  const { input, output, batch } = scenario;
  const lookup = createLookup(table, scenario, where);
  const prefill = linear(lookup, (times) => prefillSeconds(times, input, where));
  const decode = linear(lookup, (times) => decodeSeconds(times, scenario, where));
  const latency = combine(prefill, batch, decode, output);
  return { prefill, decode, latency, throughput: combine(latency, 1 / (batch * output), decode, 0) };
}

type Evaluate = (times: MeasuredTimes) => number;
interface Lookup {
  fixed: MeasuredTimes;
  filler: MeasuredTimes;
  seconds(half: SubBlock, evaluate: Evaluate): number;
}

function linear({ fixed, filler, seconds }: Lookup, evaluate: Evaluate): LinearCost {
  const byHalf = new Map<string, number>();
  const half = (asked: SubBlock): number => {
    const key = `${asked.part} ${subBlockId(asked)}`;
    // Noise may leave less than nothing; a block that saves time by being there would mislead every search.
    if (!byHalf.has(key)) byHalf.set(key, Math.max(0, seconds(asked, evaluate)));
    return byHalf.get(key)!;
  };
  return {
    fixed: evaluate(fixed),
    block: ({ attention, ffn }) =>
      half({ part: "attention", config: attention }) +
      half({ part: "ffn", config: ffn }) +
      fillers({ attention, ffn }) * Math.max(0, evaluate(filler)),
  };
}

/** A linear feed-forward is held as a linear attention, and an attention without feed-forward is given one of zeros. */
function fillers({ attention, ffn }: BlockConfig): number {
  const alone = attention.kind !== "none" && ffn.kind !== "swiglu" ? 1 : 0;
  return alone + (ffn.kind === "linear" ? 1 : 0);
}

function combine(a: LinearCost, timesA: number, b: LinearCost, timesB: number): LinearCost {
  return {
    fixed: timesA * a.fixed + timesB * b.fixed,
    block: (block) => timesA * a.block(block) + timesB * b.block(block),
  };
}

function createLookup(table: CostTable, scenario: Scenario, where: string): Lookup {
  const found = new Map(table.shapes.map((shape) => [`${shape.part} ${subBlockId(shape)}`, shape as MeasuredTimes]));
  const widths = table.shapes
    .flatMap(({ part, config, ...times }) =>
      part === "ffn" && config.kind === "swiglu" ? [{ width: config.width, times: times as MeasuredTimes }] : [],
    )
    .concat({ width: fillerWidth, times: table.filler })
    .sort((a, b) => a.width - b.width);
  return {
    fixed: table.fixed,
    filler: table.filler,
    seconds(half, evaluate) {
      if (half.config.kind === "none") return 0;
      const times = found.get(`${half.part} ${subBlockId(half)}`);
      if (times && half.config.kind === "swiglu")
        return steadied(widths, { width: half.config.width, times }, evaluate);
      if (times) return evaluate(times);
      const between = half.config.kind === "swiglu" && betweenWidths(widths, half.config, evaluate);
      if (between) return between;
      throw missing(where, `the ${half.part} half "${subBlockId(half)}"`, [...found.keys()].join(", "), scenario);
    },
  };
}

/** Width of the feed-forward of zeros. */
const fillerWidth = 32;

/** A width that was not measured: on the line between its neighbours, of which the lowest is nothing at no width. */
function betweenWidths(
  widths: readonly Width[],
  { width }: Extract<FfnConfig, { kind: "swiglu" }>,
  evaluate: Evaluate,
): number | undefined {
  const measured = widths.map(({ width: x, times }) => ({ x, y: steadied(widths, { width: x, times }, evaluate) }));
  return interpolate([{ x: 0, y: 0 }, ...measured], width);
}

interface Width {
  width: number;
  times: MeasuredTimes;
}

/**
 * A measured width where all widths together say no more of it than noise: if the line through all of them, by least
 * squares weighted with their intervals, passes through its own interval, the value on the line, else its own. Differences
 * of decoding steps are small, and their noise would be multiplied by the layers.
 */
function steadied(widths: readonly Width[], { width, times }: Width, evaluate: Evaluate): number {
  const own = evaluate(times);
  const points = widths.map((each) => ({
    x: each.width,
    y: evaluate(each.times),
    spread: spreadOf(each.times, evaluate),
  }));
  const spread = spreadOf(times, evaluate);
  if (points.length < 4 || points.some((point) => !(point.spread > 0))) return own;
  const onLine = weightedLine(points)(width);
  return Math.abs(onLine - own) <= spread ? onLine : own;
}

/** Half of the 95 % interval of the value. */
function spreadOf({ prefill, decode }: MeasuredTimes, evaluate: Evaluate): number {
  const half = <Point extends { seconds: { low: number; high: number } }>(point: Point) => ({
    ...point,
    seconds: { ...point.seconds, mean: (point.seconds.high - point.seconds.low) / 2 },
  });
  return evaluate({ prefill: prefill.map(half), decode: decode.map(half) });
}

function weightedLine(points: readonly { x: number; y: number; spread: number }[]): (x: number) => number {
  const sum = (value: (point: (typeof points)[number]) => number) =>
    points.reduce((total, point) => total + value(point) / point.spread ** 2, 0);
  const weight = sum(() => 1);
  const [centre, level] = [sum(({ x }) => x) / weight, sum(({ y }) => y) / weight];
  const slope = sum(({ x, y }) => (x - centre) * (y - level)) / sum(({ x }) => (x - centre) ** 2);
  return (x) => level + slope * (x - centre);
}

function prefillSeconds({ prefill }: MeasuredTimes, input: number, where: string): number {
  const seconds = interpolate(
    prefill.map(({ tokens, seconds }) => ({ x: tokens, y: seconds.mean })),
    input,
  );
  if (seconds !== undefined) return seconds;
  const found = prefill.map(({ tokens }) => tokens).join(", ");
  throw missing(where, `prompts of ${input} tokens`, `${found} tokens`, { input });
}

/** The mean of a line, or of lines joined at measured depths, over input ... input + output. */
function decodeSeconds({ decode }: MeasuredTimes, { input, output, batch }: Scenario, where: string): number {
  const points = decode
    .filter((point) => point.batch === batch)
    .map(({ depth, seconds }) => ({ x: depth, y: seconds.mean }));
  const [start, end] = [input, input + output];
  const inner = points.map(({ x }) => x).filter((x) => x > start && x < end);
  const stops = [start, ...inner.sort((a, b) => a - b), end];
  const values = stops.map((x) => interpolate(points, x));
  if (values.some((value) => value === undefined)) {
    const found = decode.map((point) => `depth ${point.depth} in batches of ${point.batch}`);
    throw missing(where, `decoding at depths ${start} to ${end} in batches of ${batch}`, found.join(", "), {
      input,
      output,
      batch,
    });
  }
  const area = stops.slice(1).reduce((sum, x, i) => sum + ((values[i]! + values[i + 1]!) / 2) * (x - stops[i]!), 0);
  return area / (end - start);
}

/** The value at `at` on the lines that join the points; undefined outside of them. */
function interpolate(points: readonly { x: number; y: number }[], at: number): number | undefined {
  const sorted = [...points].sort((a, b) => a.x - b.x);
  const exact = sorted.find(({ x }) => x === at);
  if (exact) return exact.y;
  const next = sorted.findIndex(({ x }) => x > at);
  if (next < 1) return undefined;
  const [a, b] = [sorted[next - 1]!, sorted[next]!];
  return a.y + ((b.y - a.y) * (at - a.x)) / (b.x - a.x);
}

function missing(where: string, what: string, found: string, asked: Partial<Scenario>): EspalierError {
  const options = Object.entries(asked).map(([name, value]) => ` --${name} ${value}`);
  return new EspalierError({
    where,
    expected: what,
    found,
    fix: `measure it: espalier measure MODEL${options.join("")} --json`,
    exitCode: 2,
  });
}

/** A bound on a speed: so many times the parent's, a rate in tokens a second, or seconds. */
export type SpeedBudget = { cost: SpeedCostName } & (
  | { timesParent: number }
  | { tokensPerSecond: number }
  | { seconds: number }
);

export function isSpeedCost(name: string): name is SpeedCostName {
  return (speedCostNames as readonly string[]).includes(name);
}

/** Reads the value of `decode=1.5x`, `prefill=150%`, `throughput=40`, `decode=40tok/s`, `latency=2s`, `latency=80%`. */
export function parseSpeedBudget(cost: SpeedCostName, value: string): SpeedBudget {
  const match = /^(\d+(?:\.\d+)?)\s*(%|x|s|ms|tok\/s|t\/s)?$/i.exec(value.trim());
  const amount = Number(match?.[1]);
  if (!match || amount === 0) throw badSpeedBudget(cost, value);
  const unit = match[2]?.toLowerCase();
  if (unit === "%" || unit === "x") return shareBudget(cost, value, unit === "%" ? amount / 100 : amount);
  if (cost !== "latency") {
    if (unit === "s" || unit === "ms") throw badSpeedBudget(cost, value);
    return { cost, tokensPerSecond: amount };
  }
  if (unit !== "s" && unit !== "ms") throw badSpeedBudget(cost, value);
  return { cost, seconds: unit === "ms" ? amount / 1000 : amount };
}

/** Rates of at least the parent's, or a latency of at most the parent's: anything else bounds nothing. */
function shareBudget(cost: SpeedCostName, value: string, timesParent: number): SpeedBudget {
  if (cost === "latency" ? timesParent <= 1 : timesParent >= 1) return { cost, timesParent };
  throw badSpeedBudget(cost, value);
}

function badSpeedBudget(cost: SpeedCostName, value: string): EspalierError {
  const latency = cost === "latency";
  return new EspalierError({
    where: "--budget",
    expected: latency
      ? "seconds, or a share of the parent's of at most 1x"
      : "tokens a second, or at least 1x of the parent's",
    found: `"${cost}=${value}"`,
    fix: latency ? "for example latency=2s or latency=80%" : `for example ${cost}=1.5x or ${cost}=40tok/s`,
    exitCode: 2,
  });
}

/** The most seconds that the budget allows, in the cost's own unit. `parent`: the parent's total of that cost. */
export function speedBound(budget: SpeedBudget, parent: number, { input, batch }: Scenario): number {
  if ("seconds" in budget) return budget.seconds;
  if ("timesParent" in budget)
    return budget.cost === "latency" ? budget.timesParent * parent : parent / budget.timesParent;
  return tokensOf(budget.cost, { input, batch }) / budget.tokensPerSecond;
}

/** The cost as people read it: tokens a second, or for `latency` seconds. */
export function shownSpeed(cost: SpeedCostName, seconds: number, scenario: Scenario): number {
  return cost === "latency" ? seconds : tokensOf(cost, scenario) / seconds;
}

/** Tokens that the cost's seconds give. A decoding rate is that of one sequence. */
function tokensOf(cost: SpeedCostName, { input }: Pick<Scenario, "input" | "batch">): number {
  return cost === "prefill" ? input : 1;
}
