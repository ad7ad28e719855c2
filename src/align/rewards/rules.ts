/** @module Rewards that are rules about the text: constraints, format, length, repetition. */
import { EspalierError } from "../../base/index.js";
import { meetsConstraint } from "../../data/index.js";
import { type RewardFunction, type RewardItem, ruleReward } from "./types.js";

export interface ConstraintsRewardOptions {
  /** `all`: 1 if every constraint is met, else 0; `share`: the share of those met. Defaults to `share`. */
  count?: "all" | "share";
}

/** The item's own constraints; `null` where it has none. */
export function constraintsReward({ count = "share" }: ConstraintsRewardOptions = {}): RewardFunction {
  return ruleReward("constraints", ({ answer, constraints = [] }) => {
    if (constraints.length === 0) return null;
    const met = constraints.filter((constraint) => meetsConstraint(answer, constraint)).length;
    if (count === "share") return met / constraints.length;
    return met === constraints.length ? 1 : 0;
  });
}

export interface FormatRewardOptions {
  /** Defaults to `<think>`. */
  open?: string;
  /** Defaults to `</think>`. */
  close?: string;
  /** The prompt ends with `open`, so that the answer has `close` alone. Defaults to false. */
  opened?: boolean;
}

/**
 * 1 where thoughts stand where they should, else 0 (Llama-Nemotron, arXiv:2505.00949, section 5): with thinking, one pair
 * of tags at the start and an answer behind it; without, no tag. `null` where the item does not say.
 */
export function formatReward({
  open = "<think>",
  close = "</think>",
  opened = false,
}: FormatRewardOptions = {}): RewardFunction {
  return ruleReward("format", ({ answer, thinking }) => {
    if (thinking === undefined) return null;
    const [before, ...after] = answer.split(close);
    const tags = answer.split(open).length - 1;
    if (!thinking) return tags === 0 && after.length === 0 ? 1 : 0;
    const starts = opened ? tags === 0 : tags === 1 && before!.trimStart().startsWith(open);
    return starts && after.length === 1 && after[0]!.trim() !== "" ? 1 : 0;
  });
}

export interface LengthRewardOptions {
  unit: "tokens" | "words" | "characters";
  /** Shortest length of full score. Defaults to 0. */
  min?: number;
  /** Longest length of full score. */
  max: number;
  /** Distance from the band at which the score, falling in a line, has come to 0. Defaults to `max` / 2. */
  margin?: number;
}

/** 1 within a band of lengths, falling to 0 outside. */
export function lengthReward({ unit, min = 0, max, margin = max / 2 }: LengthRewardOptions): RewardFunction {
  if (!(min <= max && margin > 0)) throw badBand(min, max, margin);
  return ruleReward("length", (item) => {
    const length = lengthOf(item, unit);
    const distance = Math.max(min - length, length - max, 0);
    return Math.max(0, 1 - distance / margin);
  });
}

export interface OverlongPenaltyOptions {
  /** Tokens that generation is cut at. */
  max: number;
  /** Tokens before `max` over which the penalty grows. */
  buffer: number;
  /** Size of the full penalty. Defaults to 1. */
  penalty?: number;
}

/** Soft overlong punishment of DAPO (arXiv:2503.14476, eq. 13): 0 up to max - buffer, then in a line to -penalty at max. */
export function overlongPenalty({ max, buffer, penalty = 1 }: OverlongPenaltyOptions): RewardFunction {
  return ruleReward("overlong", (item) => {
    const over = lengthOf(item, "tokens") - (max - buffer);
    return over > 0 ? (-over / buffer) * penalty : 0;
  });
}

function lengthOf({ answer, tokens }: RewardItem, unit: LengthRewardOptions["unit"]): number {
  if (unit === "characters") return answer.length;
  if (unit === "words") return wordsOf(answer).length;
  if (tokens !== undefined) return tokens;
  throw new EspalierError({ where: "length reward", expected: "the number of the answer's tokens", found: "none" });
}

function badBand(min: number, max: number, margin: number): EspalierError {
  return new EspalierError({
    where: "length reward",
    expected: "min <= max and a margin above 0",
    found: `min ${min}, max ${max}, margin ${margin}`,
    exitCode: 2,
  });
}

function wordsOf(text: string): string[] {
  return text.toLowerCase().match(/[\p{L}\p{N}_']+/gu) ?? [];
}

export interface RepetitionPenaltyOptions {
  /** Words of a run. Defaults to 3. */
  n?: number;
  /** Score where all runs but one repeat. Defaults to -1. */
  worst?: number;
}

/** `worst` times the share of runs of `n` words that occurred before in the answer; 0 where none did. */
export function repetitionPenalty({ n = 3, worst = -1 }: RepetitionPenaltyOptions = {}): RewardFunction {
  return ruleReward("repetition", ({ answer }) => {
    const share = repeatedShare(wordsOf(answer), n);
    return share === 0 ? 0 : worst * share;
  });
}

/** Share of the runs of `n` neighbours that occurred before; 0 where there is no run. */
export function repeatedShare(items: ArrayLike<string | number>, n: number): number {
  const runs = items.length - n + 1;
  if (runs <= 0) return 0;
  const list = Array.from(items);
  const known = new Set<string>();
  for (let i = 0; i < runs; i++) known.add(list.slice(i, i + n).join("\u0000"));
  return 1 - known.size / runs;
}
