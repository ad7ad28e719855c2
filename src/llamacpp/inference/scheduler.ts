/**
 * @module Continuous batching: every step evaluates one batch, made of the next token of each answer and of as much of
 * the waiting prompts as still fits.
 */
import type { Completion } from "../inference.js";
import { createSequenceCache, type SequenceCache } from "./cache.js";
import type { Drafter } from "./drafter.js";
import { batchSize, detokenize, endIdsOf, type HeldModel } from "./held-model.js";
import type { PlainRequest } from "./protocol.js";
import { createRun, type Run } from "./run.js";
import { createScorer, type Score, type Scorer } from "./scores.js";

export interface Scheduler {
  /** `onPiece` is called after each step that made text certain. */
  complete(request: PlainRequest, job: Job): Promise<Completion>;
  /** Runs work between two steps, so that two evaluations never share the cores. */
  between<T>(work: () => Promise<T>): Promise<T>;
}

export interface Job {
  onPiece?: (piece: { text: string; tokens: Completion["tokens"][number][] }) => void;
  /** Set by the request: ends it after the step under way. */
  abort?: () => void;
}

/** Bytes of logits that one batch may hold. */
const logitsBatchBytes = 128 * 2 ** 20;
/** Tokens of prompts in a batch that answers wait for: a full batch would make them stutter. */
const promptShare = 128;

interface Waiting {
  run: Run;
  job: Job;
  resolve: (completion: Completion) => void;
  reject: (error: unknown) => void;
}

interface Slot {
  cache: SequenceCache;
  /** By position, as far as the prompts that stand in the cache were scored: questions often share their beginning. */
  scores: Score[];
  /** Likeliest tokens that each of these has. */
  scoredTop: number;
  /** When its last request ended; the oldest cache goes first. */
  usedAt: number;
  active?: Waiting;
}

/** What one slot has in the batch. */
interface Share {
  slot: Slot & { active: Waiting };
  ids: readonly number[];
  proposed: readonly number[];
  /** Offsets in `ids` whose logits are asked for, and where in the batch these are. */
  wanted: readonly number[];
  rows: Uint32Array;
}

export function createScheduler(held: HeldModel, drafter: Drafter | undefined): Scheduler {
  const ends = new Set(endIdsOf(held));
  const scorer = createScorer(held, createTokenText(held));
  const slots = Array.from(
    { length: held.sequences },
    (_, i): Slot => ({
      cache: createSequenceCache(held.ctx, i),
      scores: [],
      scoredTop: 0,
      usedAt: 0,
    }),
  );
  const waiting: Waiting[] = [];
  const chores: (() => Promise<void>)[] = [];
  let turning = false;

  const turn = async () => {
    if (turning) return;
    turning = true;
    while (true) {
      for (const chore of chores.splice(0)) await chore();
      admit(slots, waiting);
      const active = slots.filter(isActive);
      if (active.length === 0 && chores.length === 0) break;
      if (active.length === 0) continue;
      try {
        await step(held, active, { scorer, drafter });
      } catch (error) {
        for (const slot of active) fail(slot, error);
      }
      for (const slot of active) settle(slot);
    }
    turning = false;
  };

  return {
    complete(request, job) {
      return new Promise((resolve, reject) => {
        const run = createRun(held, request, ends);
        job.abort = () => run.abort();
        if (request.aborted) run.abort();
        waiting.push({ run, job, resolve, reject });
        void turn();
      });
    },
    between(work) {
      return new Promise((resolve, reject) => {
        chores.push(() => work().then(resolve, reject));
        void turn();
      });
    },
  };
}

function isActive(slot: Slot): slot is Slot & { active: Waiting } {
  return slot.active !== undefined;
}

/** Gives free slots to the requests that wait, first come first served, each the slot that knows most of its prompt. */
function admit(slots: readonly Slot[], waiting: Waiting[]): void {
  for (const aborted of waiting.filter(({ run }) => run.finished)) {
    waiting.splice(waiting.indexOf(aborted), 1);
    finish(aborted);
  }
  while (waiting.length > 0) {
    const free = slots.filter((slot) => !slot.active);
    if (free.length === 0) return;
    const next = waiting.shift()!;
    const { request, times } = next.run;
    const known = (slot: Slot) => slot.cache.common(request.prompt);
    const slot = free.reduce((best, one) => {
      const gain = known(one) - known(best);
      return gain > 0 || (gain === 0 && one.usedAt < best.usedAt) ? one : best;
    });
    times.cached = slot.cache.cut(reusable(slot, known(slot), request));
    if (times.cached === 0) slot.scores.length = 0;
    reuseScores(slot, next.run);
    times.admitted = performance.now();
    slot.active = next;
  }
}

/** Tokens of the cache that need not be evaluated again. The last one always is: its logits begin the answer. */
function reusable(slot: Slot, known: number, { prompt, promptLogprobs }: PlainRequest): number {
  slot.scores.length = Math.min(slot.scores.length, known);
  if (promptLogprobs === undefined) return Math.min(known, prompt.length - 1);
  // The score of a token needs the logits of the one before it, which are not kept; the scores themselves are.
  if (slot.scoredTop < promptLogprobs) slot.scores.length = 0;
  return Math.max(0, Math.min(known, slot.scores.length) - 1);
}

function reuseScores(slot: Slot, run: Run): void {
  const { promptLogprobs } = run.request;
  if (promptLogprobs === undefined) return;
  slot.scoredTop = promptLogprobs;
  for (let position = 1; position <= run.times.cached; position++) {
    const { logprob, top } = slot.scores[position]!;
    run.acceptPrompt(position, { logprob, top: top.slice(0, promptLogprobs) });
  }
  slot.scores.length = Math.min(slot.scores.length, run.times.cached + 1);
}

async function step(
  held: HeldModel,
  active: readonly (Slot & { active: Waiting })[],
  { scorer, drafter }: { scorer: Scorer; drafter: Drafter | undefined },
): Promise<void> {
  const { ctx } = held;
  const answering = active.filter(({ active: { run } }) => run.times.prompted > 0);
  const proposals = await drafter?.propose(
    answering.map(({ active: { run }, cache }) => ({ run, sequence: cache.sequence })),
  );
  const shares = shareBatch(held, active, proposals);
  ctx.initBatch(shares.reduce((sum, { ids }) => sum + ids.length, 0));
  for (const share of shares) {
    const { cache } = share.slot;
    const ids = Uint32Array.from(share.ids);
    share.rows = ctx.addToBatch(cache.sequence, cache.ids.length, ids, Uint32Array.from(share.wanted));
  }
  await ctx.decodeBatch();
  // What goes wrong while one is read is no fault of the others.
  await Promise.all(shares.map((share) => read(held, share, scorer).catch((error) => fail(share.slot, error))));
}

/** Answers go first, with what is proposed for them; prompts share what is left, the oldest first. */
function shareBatch(
  held: HeldModel,
  active: readonly (Slot & { active: Waiting })[],
  proposals: Map<Run, number[]> | undefined,
): Share[] {
  const shares: Share[] = [];
  const remaining = (slot: Slot & { active: Waiting }) => slot.active.run.ids.slice(slot.cache.ids.length);
  const answering = active.filter(({ active: { run } }) => run.times.prompted > 0);
  for (const slot of answering) {
    const proposed = proposals?.get(slot.active.run) ?? [];
    const ids = [...remaining(slot), ...proposed];
    shares.push({ slot, ids, proposed, wanted: [...ids.keys()], rows: new Uint32Array(0) });
  }
  const used = shares.reduce((sum, { ids }) => sum + ids.length, 0);
  let room = Math.max(held.sequences, batchSize) - used;
  if (answering.length > 0) room = Math.min(room, promptShare);
  let rows = Math.max(1, Math.floor(logitsBatchBytes / (4 * held.vocabSize)));
  const prompts = active.filter(({ active: { run } }) => run.times.prompted === 0);
  for (const slot of prompts.toSorted((a, b) => a.active.run.times.arrived - b.active.run.times.arrived)) {
    const scored = slot.active.run.request.promptLogprobs !== undefined;
    const left = remaining(slot);
    const ids = left.slice(0, scored ? Math.min(room, rows) : room);
    if (ids.length === 0) continue;
    const wanted = scored ? [...ids.keys()] : ids.length === left.length ? [ids.length - 1] : [];
    room -= ids.length;
    if (scored) rows -= ids.length;
    shares.push({ slot, ids, proposed: [], wanted, rows: new Uint32Array(0) });
  }
  return shares;
}

/** Takes what the batch gave to one slot: scores of its prompt, and its next tokens. */
async function read(held: HeldModel, share: Share, scorer: Scorer): Promise<void> {
  const { slot, ids, proposed, wanted, rows } = share;
  const { cache, active } = slot;
  const { run } = active;
  const start = cache.ids.length;
  cache.append(ids);
  if (run.times.prompted === 0) {
    if (run.request.promptLogprobs !== undefined) await readPrompt(slot, start, share, scorer);
    if (cache.ids.length < run.ids.length) return;
    run.times.prompted = performance.now();
    if (run.room() <= 0) {
      run.finished = true;
      return;
    }
  }
  // The last token of what stood and each proposal has a row; a row is read only if all before it agreed.
  const from = wanted.length - 1 - proposed.length;
  run.times.drafted += proposed.length;
  for (let i = 0; i <= proposed.length; i++) {
    const row = rows[from + i]!;
    const id = await held.ctx.sampleToken(row, run.sampler());
    if (run.finished) break;
    if (id < 0) throw new Error("no token was left to choose from");
    const { logprobs } = run.request;
    const score: Score | undefined = logprobs === undefined ? undefined : await scorer.score(row, id, logprobs);
    if (run.finished || !run.accept(id, score) || id !== proposed[i]) break;
    run.times.accepted++;
  }
  // Proposals that did not stand leave the cache; the token chosen last is not in it yet.
  cache.cut(Math.min(cache.ids.length, run.ids.length - (run.finished ? 0 : 1)));
}

async function readPrompt(slot: Share["slot"], start: number, { wanted, rows }: Share, scorer: Scorer) {
  const { run } = slot.active;
  const { prompt, promptLogprobs = 0 } = run.request;
  await Promise.all(
    wanted.map(async (offset, i) => {
      const position = start + offset + 1;
      if (position >= prompt.length) return;
      const score = await scorer.score(rows[i]!, prompt[position]!, promptLogprobs);
      run.acceptPrompt(position, score);
      slot.scores[position] = score;
    }),
  );
}

/** Sends on what the step made certain, and ends what is over. */
function settle(slot: Slot & { active: Waiting }): void {
  const { active } = slot;
  if (!active) return;
  const piece = active.run.takePiece();
  if (piece) active.job.onPiece?.(piece);
  if (!active.run.finished) return;
  release(slot);
  finish(active);
}

function finish({ run, resolve }: Waiting): void {
  resolve(run.complete());
  run.dispose();
}

/** The state of the cache is not known after a failed batch. */
function fail(slot: Slot & { active: Waiting }, error: unknown): void {
  const { active } = slot;
  if (!active) return;
  release(slot);
  slot.cache.cut(0);
  slot.scores.length = 0;
  active.reject(error);
  active.run.dispose();
}

function release(slot: Slot): void {
  slot.usedAt = performance.now();
  delete slot.active;
}

/** Texts of single tokens, as they stand inside a text. */
function createTokenText(held: HeldModel): (id: number) => string {
  const known = new Map<number, string>();
  const anchor = held.model.tokenize("a", false).at(-1);
  const before = anchor === undefined ? [] : [anchor];
  const beforeLength = detokenize(held, before, true).length;
  return (id) => {
    const text = known.get(id) ?? detokenize(held, [...before, id], true).slice(beforeLength);
    known.set(id, text);
    return text;
  };
}
