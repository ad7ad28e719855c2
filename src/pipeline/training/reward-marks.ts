/** @module Marked answers for reward models by regression: read, rendered, and how near a model's predictions are. */
import { type Interval, meanInterval, pairedInterval } from "../../base/index.js";
import { type BranchedSample, limitLength, readLabelledAnswers, renderBranches } from "../../data/index.js";
import { comparedMeasure } from "./common.js";
import type { Measure } from "./method.js";
import { lengthNotes, type ReadRewardOptions } from "./reward-pairs.js";

/** One answer as tokens, and its marks by attribute, undefined where nobody marked it. */
export interface MarkedSample {
  sample: BranchedSample;
  marks: readonly (number | undefined)[];
}

export interface ReadMarksOptions extends ReadRewardOptions {
  attributes: readonly string[];
  range: readonly [low: number, high: number];
}

/** @throws EspalierError for marks out of range and rows without any, each as file:line */
export async function readMarkedSamples(
  paths: readonly string[],
  { tools, length, overlong, badLines, where, onEvent, attributes, range }: ReadMarksOptions,
): Promise<{ marked: MarkedSample[]; notes: string[] }> {
  const options = { attributes, range, bad: badLines, onEvent };
  const read = (await Promise.all(paths.map((path) => readLabelledAnswers(path, options)))).flat();
  const rendered = read.map(({ prompt, response, where: row }) =>
    renderBranches(tools.template, tools.tokenizer, prompt, [response], { where: row }),
  );
  const limited = limitLength(rendered, { length, policy: overlong, where, onEvent });
  const marked = limited.samples.map((sample, i) => ({ sample, marks: read[limited.indices[i]!]!.labels }));
  return { marked, notes: lengthNotes(limited, rendered.length, length, "answers") };
}

/** Mean of those marks that there are. */
export function meanMark({ marks }: MarkedSample): number {
  const given = marks.filter((mark) => mark !== undefined);
  return given.reduce((sum, mark) => sum + mark, 0) / given.length;
}

/** Squared error of each answer, a mean over its marks. @param predictions by answer and attribute */
export function squaredErrors(marked: readonly MarkedSample[], predictions: readonly (readonly number[])[]): number[] {
  return marked.map(({ marks }, i) => {
    const errors = marks.flatMap((mark, a) => (mark === undefined ? [] : [(predictions[i]![a]! - mark) ** 2]));
    return errors.reduce((sum, error) => sum + error, 0) / errors.length;
  });
}

/** Error beside that of the means of the training marks, and the correlation of each attribute. */
export function markMeasures(
  attributes: readonly string[],
  train: readonly MarkedSample[],
  held: readonly MarkedSample[],
  after: readonly (readonly number[])[],
  before?: readonly (readonly number[])[],
): Measure[] {
  if (held.length === 0) return [];
  const means = attributes.map((_, a) => {
    const given = train.flatMap(({ marks }) => marks[a] ?? []);
    return given.reduce((sum, mark) => sum + mark, 0) / Math.max(1, given.length);
  });
  const errors = squaredErrors(held, after);
  const constant = squaredErrors(
    held,
    held.map(() => means),
  );
  const about = { name: "squared error of marks", better: "down" } as const;
  const compared = before
    ? comparedMeasure(about, squaredErrors(held, before), errors)
    : { ...about, after: meanInterval(errors) };
  const gain: Measure = {
    name: "squared error, less that of the mean mark",
    better: "down",
    after: pairedInterval(errors, constant),
  };
  return [compared, gain, ...attributes.flatMap((name, a) => correlationMeasure(name, held, after, a))];
}

function correlationMeasure(
  name: string,
  held: readonly MarkedSample[],
  predictions: readonly (readonly number[])[],
  a: number,
): Measure[] {
  const points = held.flatMap(({ marks }, i) => (marks[a] === undefined ? [] : [[marks[a], predictions[i]![a]!]]));
  const interval = correlation(points as [number, number][]);
  return interval ? [{ name: `correlation with ${name}`, better: "up", after: interval }] : [];
}

/** Pearson's, with the 95 % interval of Fisher's transformation; undefined where it does not exist. */
export function correlation(points: readonly (readonly [x: number, y: number])[]): Interval | undefined {
  const n = points.length;
  if (n < 4) return undefined;
  const [mx, my] = [0, 1].map((i) => points.reduce((sum, point) => sum + point[i]!, 0) / n) as [number, number];
  const sum = (of: (dx: number, dy: number) => number) =>
    points.reduce((total, [x, y]) => total + of(x - mx, y - my), 0);
  const [xx, yy, xy] = [sum((dx) => dx * dx), sum((_, dy) => dy * dy), sum((dx, dy) => dx * dy)];
  if (xx === 0 || yy === 0) return undefined;
  const r = Math.max(-1, Math.min(1, xy / Math.sqrt(xx * yy)));
  const [z, half] = [Math.atanh(r), 1.959963984540054 / Math.sqrt(n - 3)];
  return { mean: r, low: Math.tanh(z - half), high: Math.tanh(z + half), n };
}
