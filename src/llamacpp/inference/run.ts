/** @module One request while it runs: what is evaluated next, what has been generated, and when it is over. */
import { EspalierError } from "../../base/index.js";
import type { Completion, TokenLogprob } from "../inference.js";
import type { NativeSampler } from "../native-context.js";
import { buildGrammar } from "./grammar.js";
import { checkIds, detokenize, type HeldModel } from "./held-model.js";
import type { PlainRequest } from "./protocol.js";
import { samplerConfigOf } from "./sampling.js";
import type { Score } from "./scores.js";
import { createStopFilter, createTextDecoder } from "./text-stream.js";

export interface Run {
  readonly request: PlainRequest;
  /** Prompt and answer so far. */
  readonly ids: number[];
  /** Made when it is first asked for: a request that waits holds no copy of the vocabulary. */
  sampler(): NativeSampler;
  readonly times: RunTimes;
  /** The last token has been chosen, or the request has been aborted. */
  finished: boolean;
  /** Tokens that may still be generated. */
  room(): number;
  /** Takes a token; true where the answer goes on. */
  accept(id: number, score: Score | undefined): boolean;
  /** The score of a token of the prompt. */
  acceptPrompt(position: number, score: Score): void;
  abort(): void;
  /** What became certain since the last call. */
  takePiece(): { text: string; tokens: TokenLogprob[] } | undefined;
  complete(): Completion;
  dispose(): void;
}

/** Milliseconds of `performance.now()`, and counts. */
export interface RunTimes {
  arrived: number;
  admitted: number;
  prompted: number;
  first: number;
  cached: number;
  drafted: number;
  accepted: number;
}

export function createRun(held: HeldModel, request: PlainRequest, ends: ReadonlySet<number>): Run {
  checkRequest(held, request);
  const { prompt, maxTokens, grammar } = request;
  const mostTokens = Math.min(maxTokens, held.contextSize - prompt.length);
  const state = grammar && buildGrammar(held, grammar);
  let sampler: NativeSampler | undefined;
  const ids = [...prompt];
  const answer = createAnswer(held, request);
  const scores: Score[] = [];
  const now = performance.now();
  const times: RunTimes = { arrived: now, admitted: 0, prompted: 0, first: 0, cached: 0, drafted: 0, accepted: 0 };
  let generated = 0;
  let finish: Completion["finish"] = "length";

  const end = (why: Completion["finish"]) => {
    finish = why;
    answer.end();
    run.finished = true;
  };

  const run: Run = {
    request,
    ids,
    sampler() {
      sampler ??= held.createSampler(samplerConfigOf(request.sampling ?? {}, mostTokens, state));
      return sampler;
    },
    times,
    finished: false,
    room: () => mostTokens - generated,
    accept(id, score) {
      if (generated === 0) times.first = performance.now();
      if (ends.has(id)) end("stop");
      else {
        generated++;
        ids.push(id);
        answer.push(id, score);
        if (answer.stopText() !== undefined) end("stop");
        else if (generated >= mostTokens) end("length");
      }
      return !run.finished;
    },
    acceptPrompt(position, score) {
      scores[position] = score;
    },
    abort() {
      if (!run.finished) end("aborted");
    },
    takePiece: answer.takePiece,
    complete: () => ({
      ...answer.result(),
      ...(request.promptLogprobs !== undefined && { promptTokens: promptTokens(held, prompt, scores) }),
      finish,
      timings: timingsOf(times, prompt.length, generated),
    }),
    dispose: () => sampler?.dispose(),
  };
  return run;
}

/** The text of an answer while it grows, with its tokens. */
function createAnswer(held: HeldModel, { prompt, stop = [] }: PlainRequest) {
  const decoder = createTextDecoder((some) => detokenize(held, some, false), visibleBefore(held, prompt));
  const filter = createStopFilter(stop.filter((text) => text !== ""));
  const tokens: TokenLogprob[] = [];
  let taken = 0;
  return {
    push(id: number, score: Score | undefined) {
      tokens.push(...filter.push({ id, ...score }, decoder.push(id)));
    },
    stopText: () => filter.stopped,
    /** What was held back is part of the answer, unless a stop text was found in it. */
    end() {
      if (filter.stopped === undefined) tokens.push(...filter.end(decoder.end()));
    },
    takePiece() {
      if (taken === tokens.length) return undefined;
      const fresh = tokens.slice(taken);
      taken = tokens.length;
      return { text: fresh.map(({ text }) => text).join(""), tokens: fresh };
    },
    result: () => ({
      text: tokens.map(({ text }) => text).join(""),
      ids: tokens.map(({ id }) => id),
      tokens,
      ...(filter.stopped !== undefined && { stopText: filter.stopped }),
    }),
  };
}

function checkRequest(held: HeldModel, { prompt, maxTokens, sampling }: PlainRequest): void {
  const { gguf, contextSize } = held;
  if (prompt.length === 0) {
    throw new EspalierError({ where: gguf, expected: "a prompt of at least one token", found: "none", exitCode: 2 });
  }
  checkIds(held, prompt, "prompt");
  checkIds(held, Object.keys(sampling?.logitBias ?? {}).map(Number), "logit bias");
  const most = contextSize - (maxTokens > 0 ? 1 : 0);
  if (prompt.length <= most) return;
  throw new EspalierError({
    where: gguf,
    expected: `a prompt of at most ${most} tokens (the context has ${contextSize})`,
    found: `${prompt.length} tokens`,
    fix: "shorten it, or load the model with a larger context",
    exitCode: 2,
  });
}

/** The last token of the prompt, unless it shows nothing: then the answer begins like a text of its own. */
function visibleBefore(held: HeldModel, prompt: readonly number[]): number | undefined {
  const last = prompt.at(-1)!;
  return detokenize(held, [last], false) === "" ? undefined : last;
}

/** Tokens with texts that join to the prompt's text, special tokens spelled out. */
function promptTokens(held: HeldModel, prompt: readonly number[], scores: readonly Score[]): TokenLogprob[] {
  const decoder = createTextDecoder((some) => detokenize(held, some, true));
  const tokens = prompt.map((id, i): TokenLogprob => ({ id, text: decoder.push(id) ?? "", ...scores[i] }));
  tokens.at(-1)!.text += decoder.end();
  return tokens;
}

function timingsOf(times: RunTimes, promptLength: number, generated: number): Completion["timings"] {
  const now = performance.now();
  // A request that was aborted early has not come as far as the later times.
  const admitted = times.admitted || now;
  const prompted = times.prompted || now;
  return {
    promptTokens: promptLength - times.cached,
    cachedTokens: times.cached,
    queueMs: admitted - times.arrived,
    promptMs: prompted - admitted,
    firstTokenMs: (times.first || now) - times.arrived,
    generatedTokens: generated,
    generateMs: now - prompted,
    ...(times.drafted > 0 && { draftedTokens: times.drafted, acceptedTokens: times.accepted }),
  };
}
