/** @module Preference pairs for reward models: read, rendered, and how often a model is right about them. */
import { aggregateReward } from "../../align/index.js";
import { EspalierError, meanInterval, type OnEvent, pairedInterval } from "../../base/index.js";
import {
  type BranchedSample,
  type LengthPolicy,
  limitLength,
  type PreferencePair,
  readPreferencePairs,
  renderPair,
} from "../../data/index.js";
import { type ChatTools, comparedMeasure } from "./common.js";
import type { Measure } from "./method.js";

/** A pair as tokens; its branches are [chosen, rejected]. */
export interface RewardPair {
  sample: BranchedSample;
  /** How much better the chosen answer is, where the data say so. */
  strength: number | undefined;
}

export interface ReadRewardOptions {
  tools: ChatTools;
  length: number;
  overlong: LengthPolicy;
  badLines: "refuse" | "drop";
  /** Of the stage, for messages. */
  where: string;
  onEvent: OnEvent;
}

/** @throws EspalierError for rows that are no pairs, and, with `strengths`, for those without a strength above 0 */
export async function readRewardPairs(
  paths: readonly string[],
  { tools, length, overlong, badLines, where, onEvent, strengths = false }: ReadRewardOptions & { strengths?: boolean },
): Promise<{ pairs: RewardPair[]; notes: string[] }> {
  const lists = await Promise.all(paths.map((path) => readPreferencePairs(path, { bad: badLines, onEvent })));
  const read = lists.flat();
  if (strengths) checkStrengths(read);
  const rendered = read.map((pair) => renderPair(tools.template, tools.tokenizer, pair));
  const limited = limitLength(rendered, { length, policy: overlong, where, onEvent });
  const pairs = limited.samples.map((sample, i) => ({ sample, strength: read[limited.indices[i]!]!.strength }));
  return { pairs, notes: lengthNotes(limited, rendered.length, length, "pairs") };
}

/** What became of samples that were too long, where there were any. */
export function lengthNotes(
  { dropped, truncated }: { dropped: number; truncated: number },
  all: number,
  length: number,
  what: string,
): string[] {
  if (dropped + truncated === 0) return [];
  return [`of ${all} ${what}, ${truncated} were cut to ${length} tokens and ${dropped} left out as too long`];
}

function checkStrengths(pairs: readonly (PreferencePair & { where: string })[]): void {
  const without = pairs.find(({ strength }) => strength === undefined || strength <= 0);
  if (!without) return;
  throw new EspalierError({
    where: without.where,
    expected: "how much better the chosen answer is, in `strength`, `margin` or `preference_strength`",
    found: without.strength === undefined ? "none" : `${without.strength}`,
    fix: "give strengths, or take the objective bradley-terry",
    exitCode: 2,
  });
}

/** Tokens by which the chosen answer is longer. */
export const lengthGap = ({ sample: { branches } }: RewardPair): number =>
  branches[0]!.ids.length - branches[1]!.ids.length;

/** 1 where the chosen answer has more, 1/2 where both have the same, else 0. */
const rightness = (gap: number): number => (gap > 0 ? 1 : gap < 0 ? 0 : 0.5);

/** @param scores attributes by pair, answer and attribute */
export function rightAnswers(scores: readonly number[][][], weights: readonly number[]): number[] {
  return scores.map(([chosen, rejected]) =>
    rightness(aggregateReward(chosen!, weights) - aggregateReward(rejected!, weights)),
  );
}

/** -log sigmoid(reward of chosen - reward of rejected), nats. */
export function pairLosses(scores: readonly number[][][], weights: readonly number[]): number[] {
  return scores.map(([chosen, rejected]) => {
    const gap = aggregateReward(chosen!, weights) - aggregateReward(rejected!, weights);
    return Math.max(-gap, 0) + Math.log1p(Math.exp(-Math.abs(gap)));
  });
}

export interface PairMeasureOptions {
  /** Names the pairs where there are several kinds. Defaults to nothing. */
  of?: string;
  /** Whether each pair was told rightly, by the model that the stage began with. */
  before?: readonly number[] | undefined;
  /** Pairs by which the better one of the two rules about length is chosen. Defaults to those measured. */
  ruleFrom?: readonly RewardPair[];
}

/** Accuracy, and how far it is above always taking the longer, or the shorter, answer. */
export function pairMeasures(
  pairs: readonly RewardPair[],
  after: readonly number[],
  { of = "", before, ruleFrom = pairs }: PairMeasureOptions = {},
): { measures: Measure[]; notes: string[] } {
  if (pairs.length === 0) return { measures: [], notes: [] };
  const name = `preference accuracy${of}`;
  const longerIsBetter = ruleFrom.reduce((sum, pair) => sum + rightness(lengthGap(pair)), 0) >= ruleFrom.length / 2;
  const rule = longerIsBetter ? "longer" : "shorter";
  const ruleRight = pairs.map((pair) => rightness(longerIsBetter ? lengthGap(pair) : -lengthGap(pair)));
  const [own, base, gain] = [meanInterval(after), meanInterval(ruleRight), pairedInterval(after, ruleRight)];
  const told = gain.low > 0 ? "better than" : gain.high < 0 ? "worse than" : "not told apart from";
  return {
    measures: [
      before ? comparedMeasure({ name, better: "up" }, before, after) : { name, better: "up", after: own },
      { name: `${name}, less that of the ${rule} answer`, better: "up", after: gain },
    ],
    notes: [
      `always the longer answer is right for ${percent(longerIsBetter ? base.mean : 1 - base.mean)} of ${pairs.length} pairs${of}, always the shorter for ${percent(longerIsBetter ? 1 - base.mean : base.mean)}; the model, ${percent(own.mean)}, is ${told} the ${rule} one`,
    ],
  };
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
