/**
 * @module Several sources of data in one seeded order: shares are kept exactly over every stretch, and the sample of a
 * number is a function of seed and number alone, so that a run resumes by its step.
 */
import { createRng, EspalierError } from "../base/index.js";

export interface BlendSource<T> {
  name: string;
  items: readonly T[];
  /** Share of the samples, relative to the other sources. Defaults to the number of items: each comes as often as any other. */
  weight?: number;
}

export interface Drawn<T> {
  item: T;
  source: string;
  /** Number of the item in its source. */
  index: number;
  /** How often the whole source had come before. */
  pass: number;
}

export interface Blend<T> {
  at(sample: number): Drawn<T>;
  /** Of each source, its share and how many of the first samples come from it. */
  counts(samples: number): { source: string; share: number; samples: number; passes: number }[];
}

export interface BlendOptions {
  seed: number | string;
  /** A new order for every pass through a source. Defaults to true. */
  shuffle?: boolean;
}

/** Least number of samples over which shares hold exactly (up to rounding by one). */
const leastBlock = 64;
const mostBlock = 100_000;

/**
 * Draws from sources by their weights. Samples come in blocks; within a block each source has its share and the order is
 * shuffled, within a source every item comes once per pass.
 */
export function createBlend<T>(sources: readonly BlendSource<T>[], { seed, shuffle = true }: BlendOptions): Blend<T> {
  const shares = sharesOf(sources);
  // Two of the rarest source in a block, so that rounding never asks for less than none.
  const block = Math.max(leastBlock, Math.ceil(2 / Math.min(...shares)));
  checkBlock(block, sources, shares);
  const before = (number: number) => apportion(number * block, shares);
  const orders = sources.map(({ items }, i) => createOrder(items.length, `${seed}/source ${i}`, shuffle));
  const blockAt = remembered((number: number) => {
    const [start, end] = [before(number), before(number + 1)];
    const plain = sources.flatMap((_, i) => Array.from({ length: end[i]! - start[i]! }, () => i));
    const order = createRng(`${seed}/block ${number}`).shuffle(plain);
    const next = [...start];
    return order.map((source) => ({ source, drawn: next[source]!++ }));
  });
  return {
    at(sample) {
      const { source, drawn } = blockAt(Math.floor(sample / block))[sample % block]!;
      const { name, items } = sources[source]!;
      const pass = Math.floor(drawn / items.length);
      const index = orders[source]!(pass)[drawn % items.length]!;
      return { item: items[index]!, source: name, index, pass };
    },
    counts(samples) {
      const whole = before(Math.floor(samples / block));
      for (const { source } of blockAt(Math.floor(samples / block)).slice(0, samples % block)) whole[source]!++;
      return sources.map(({ name, items }, i) => ({
        source: name,
        share: shares[i]!,
        samples: whole[i]!,
        passes: whole[i]! / items.length,
      }));
    },
  };
}

export interface BlendStage<T> {
  name: string;
  /** Samples of the stage. */
  samples: number;
  sources: readonly BlendSource<T>[];
  /** Share of the samples that comes from the sources of the stage before, by their weights there. Defaults to 0. */
  carryOver?: number;
}

export interface StagedBlend<T> {
  /** Samples of all stages. */
  readonly samples: number;
  at(sample: number): Drawn<T> & { stage: string };
  /** First sample of each stage, and what it is made of. */
  readonly stages: readonly { name: string; from: number; blend: Blend<T> }[];
}

/**
 * Stages one after the other, each with its own blend: Nemotron-4 340B (arXiv:2406.11704, section 3.3) trains on code
 * first, then on a general blend of which 2 % is code from the stage before, so that it is not forgotten.
 */
export function createStagedBlend<T>(stages: readonly BlendStage<T>[], options: BlendOptions): StagedBlend<T> {
  if (stages.length === 0) throw blendProblem("stages", "at least one stage", "none");
  let from = 0;
  const built = stages.map((stage, i) => {
    const { name, samples, carryOver = 0 } = stage;
    const carried = i > 0 ? stages[i - 1]!.sources : [];
    if (!Number.isInteger(samples) || samples < 1)
      throw blendProblem(name, "a whole number of samples above 0", `${samples}`);
    if (!(carryOver >= 0 && carryOver < 1))
      throw blendProblem(name, "a carry-over share from 0 to below 1", `${carryOver}`);
    if (carryOver > 0 && i === 0) throw blendProblem(name, "no carry-over in the first stage", `${carryOver}`);
    const sources = [
      ...withShares(stage.sources, 1 - carryOver),
      ...(carryOver > 0 ? withShares(carried, carryOver, " (carried over)") : []),
    ];
    const blend = createBlend(sources, { ...options, seed: `${options.seed}/stage ${i}` });
    const start = from;
    from += samples;
    return { name, from: start, blend };
  });
  return {
    samples: from,
    stages: built,
    at(sample) {
      if (!(sample >= 0 && sample < from)) throw new RangeError(`internal: sample ${sample} of ${from}`);
      const { name, blend, from: start } = built.findLast((stage) => stage.from <= sample)!;
      return { ...blend.at(sample - start), stage: name };
    },
  };
}

function withShares<T>(sources: readonly BlendSource<T>[], total: number, suffix = ""): BlendSource<T>[] {
  const shares = sharesOf(sources);
  return sources.map((source, i) => ({ ...source, name: source.name + suffix, weight: shares[i]! * total }));
}

function sharesOf<T>(sources: readonly BlendSource<T>[]): number[] {
  if (sources.length === 0) throw blendProblem("blend", "at least one source", "none");
  const weights = sources.map(({ name, items, weight = items.length }) => {
    if (items.length === 0) throw blendProblem(name, "at least one item", "none");
    if (!(weight > 0 && Number.isFinite(weight))) throw blendProblem(name, "a weight above 0", `${weight}`);
    return weight;
  });
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

function checkBlock(block: number, sources: readonly { name: string }[], shares: readonly number[]): void {
  if (block <= mostBlock) return;
  const rarest = shares.indexOf(Math.min(...shares));
  throw blendProblem(sources[rarest]!.name, `a share of at least ${2 / mostBlock} of the samples`, `${shares[rarest]}`);
}

function blendProblem(where: string, expected: string, found: string): EspalierError {
  return new EspalierError({ where, expected, found, exitCode: 2 });
}

/** Whole numbers that sum to `total` in proportion to the shares: the largest remainders are rounded up. */
function apportion(total: number, shares: readonly number[]): number[] {
  const exact = shares.map((share) => share * total);
  const counts = exact.map(Math.floor);
  const rest = Math.round(total - counts.reduce((sum, count) => sum + count, 0));
  const byRemainder = exact
    .map((value, i) => [value - counts[i]!, i] as const)
    .sort((a, b) => b[0] - a[0] || a[1] - b[1]);
  for (const [, i] of byRemainder.slice(0, rest)) counts[i]!++;
  return counts;
}

/** The order of each pass through `count` things; one pass is remembered. */
export function createOrder(
  count: number,
  seed: number | string,
  shuffle: boolean,
): (pass: number) => readonly number[] {
  const plain = Array.from({ length: count }, (_, i) => i);
  return remembered((pass) => (shuffle ? createRng(`${seed}/pass ${pass}`).shuffle(plain) : plain));
}

/** Keeps the last result: neighbours are asked for one after the other. */
function remembered<R>(work: (argument: number) => R): (argument: number) => R {
  let last: { argument: number; result: R } | undefined;
  return (argument) => {
    if (last?.argument !== argument) last = { argument, result: work(argument) };
    return last.result;
  };
}
