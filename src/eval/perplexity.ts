/**
 * @module Perplexity over non-overlapping windows (as Jelinek et al. 1977 define it: the exponential of the mean
 * negative log-likelihood of a predicted token), and divergence from a parent on the same windows.
 *
 * Departures from llama.cpp's tool, which scores only the second half of every window: every token of a window but its
 * first is predicted, and where the vocabulary asks for a start token that one comes first, so that all text counts.
 */
import { EspalierError, type Interval, meanInterval, type OnEvent } from "../base/index.js";
import { type Engine, scoreSequences } from "../engine/index.js";
import type { Tokenizer } from "../tokenizer/index.js";

export interface PerplexityOptions {
  /** Tokens of a window, start token included. Defaults to 512, or the model's longest context if that is shorter. */
  context?: number;
  /** Take at most this many windows from the start of the text. Defaults to all. */
  maxWindows?: number;
  /** Also measure the divergence from this model, which shares the vocabulary. */
  parent?: Engine;
  /** Tokens that run together. Defaults to 2048. */
  batchTokens?: number;
  onEvent?: OnEvent;
  signal?: AbortSignal;
}

export interface PerplexityResult {
  /** Predicted tokens. */
  tokens: number;
  /** Mean negative log-likelihood, nats a predicted token. */
  nll: number;
  perplexity: number;
  /** Bits for each byte of UTF-8 text, comparable between vocabularies. */
  bitsPerByte: number;
  windows: number;
  context: number;
  /** Mean KL(parent || model), nats a token, with its 95 % interval by window. */
  kl?: Interval;
  /** The parent on the same windows. */
  parent?: { nll: number; perplexity: number };
}

export async function measurePerplexity(
  engine: Engine,
  tokenizer: Tokenizer,
  text: string,
  options: PerplexityOptions = {},
): Promise<PerplexityResult> {
  const { maxPositions, vocabSize } = engine.config;
  const { context = Math.min(512, maxPositions), maxWindows, parent, batchTokens, onEvent, signal } = options;
  checkContext(context, maxPositions);
  if (parent && parent.config.vocabSize !== vocabSize) throw otherVocabulary(vocabSize, parent.config.vocabSize);
  const ids = tokenizer.encode(text, { addSpecial: false });
  const start = tokenizer.addBos ? tokenizer.bosTokenId : undefined;
  const windows = cutWindows(ids, context, start).slice(0, maxWindows);
  if (windows.length === 0) throw textTooShort(ids.length);
  const scores = await scoreSequences(engine, windows, {
    ...(parent && { reference: parent }),
    ...(batchTokens && { batchTokens }),
    ...(signal && { signal }),
    onProgress: (done) =>
      onEvent?.({ event: "progress", stage: "perplexity", done, total: windows.length, unit: "windows" }),
  });
  const tokens = sumOf(scores, (score) => score.tokens);
  const nll = sumOf(scores, (score) => score.nll) / tokens;
  if (!Number.isFinite(nll)) throw notFinite(nll);
  const bytesPerToken = new TextEncoder().encode(text).length / ids.length;
  const result = { tokens, nll, perplexity: Math.exp(nll), bitsPerByte: nll / Math.LN2 / bytesPerToken };
  const shape = { windows: windows.length, context };
  if (!parent) return { ...result, ...shape };
  const parentNll = sumOf(scores, (score) => score.referenceNll!) / tokens;
  const kl = meanInterval(scores.map((score) => score.kl!));
  return { ...result, ...shape, kl, parent: { nll: parentNll, perplexity: Math.exp(parentNll) } };
}

/** Windows of `context` ids, each led by `start` where there is one; a last, shorter one needs one prediction. */
export function cutWindows(ids: readonly number[], context: number, start: number | undefined): number[][] {
  const lead = start === undefined ? [] : [start];
  const step = context - lead.length;
  const windows: number[][] = [];
  for (let at = 0; at < ids.length; at += step) windows.push([...lead, ...ids.slice(at, at + step)]);
  return windows.filter(({ length }) => length > 1);
}

function sumOf<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((sum, item) => sum + value(item), 0);
}

function checkContext(context: number, maxPositions: number): void {
  if (Number.isInteger(context) && context >= 2 && context <= maxPositions) return;
  throw new EspalierError({
    where: "context",
    expected: `2 to ${maxPositions} tokens, the longest context of the model`,
    found: `${context}`,
    exitCode: 2,
  });
}

function otherVocabulary(expected: number, found: number): EspalierError {
  return new EspalierError({
    where: "parent",
    expected: `the model's vocabulary of ${expected} tokens`,
    found: `${found} tokens`,
    fix: "divergence needs a parent that shares the vocabulary; compare others by bitsPerByte",
    exitCode: 2,
  });
}

function textTooShort(tokens: number): EspalierError {
  return new EspalierError({
    where: "text",
    expected: "at least one token to predict",
    found: `${tokens} tokens`,
    fix: "give a longer text",
  });
}

function notFinite(found: number): EspalierError {
  return new EspalierError({
    where: "negative log-likelihood",
    expected: "a finite number",
    found: `${found}`,
    fix: "the weights overflow float32 on this text; check where the model comes from",
  });
}
