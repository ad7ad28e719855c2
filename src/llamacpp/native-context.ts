/**
 * @module Batches on node-llama-cpp's own native context (`_ctx`) instead of its `controlledEvaluate`: one call per batch,
 * so that what is timed is llama.cpp and not a queue, and logits come as a flat list, without a Map for each position.
 * The package is pinned exactly; `resolveInternals` says so when an update has moved them.
 */

import { createRng } from "../base/index.js";
import { type LlamaModel, readGgufFileInfo } from "./binding.js";

/** What `_ctx` of a context offers; see AddonContext in node-llama-cpp's `AddonTypes.d.ts`. */
export interface NativeContext {
  initBatch(size: number): void;
  /** Returns where in the batch the asked logits are. */
  addToBatch(sequence: number, firstPosition: number, tokens: Uint32Array, logitIndexes: Uint32Array): Uint32Array;
  decodeBatch(): Promise<void>;
  /** Threads of the evaluations from here on. */
  setThreads(threads: number): void;
  /** Copies the cache of a sequence, cell by cell: sequences of a context share none. */
  copySequenceStateFromOtherSequence(target: number, source: number): Promise<number>;
  disposeSequence(sequence: number): void;
  /** Forgets positions [start, end); false where the cache cannot. */
  removeTokenCellsFromSequence(sequence: number, start: number, end: number): boolean;
  sampleToken(
    batchIndex: number,
    sampler: unknown,
    probabilities: boolean,
    confidence: boolean,
    logits: boolean,
  ): Promise<[token: number, probabilities: undefined, confidence: undefined, logits: number[] | undefined]>;
}

export interface NativeSampler {
  applyConfig(config: { temperature: number }): void;
  dispose(): void;
}

/** The native context and a greedy sampler, which leaves the logits as they are. */
export function resolveInternals(context: unknown, model: unknown): { ctx: NativeContext; sampler: NativeSampler } {
  const { _ctx } = context as { _ctx?: NativeContext };
  const { _llama, _model } = model as {
    _llama?: { _bindings?: { AddonSampler?: new (model: unknown) => NativeSampler } };
    _model?: unknown;
  };
  const Sampler = _llama?._bindings?.AddonSampler;
  if (!_ctx?.initBatch || !_ctx.decodeBatch || !_ctx.sampleToken || !Sampler) {
    throw new Error("internal: this version of node-llama-cpp has moved its native context");
  }
  const sampler = new Sampler(_model);
  sampler.applyConfig({ temperature: 0 });
  return { ctx: _ctx, sampler };
}

/** Evaluates ids[start, end) after what the cache holds; returns where in the batch the logits of `wanted` are. */
export async function decode(
  ctx: NativeContext,
  ids: readonly number[],
  start: number,
  end: number,
  wanted: readonly number[],
  sequence = 0,
): Promise<number[]> {
  ctx.initBatch(end - start);
  const relative = Uint32Array.from(wanted, (position) => position - start);
  const rows = ctx.addToBatch(sequence, start, Uint32Array.from(ids.slice(start, end)), relative);
  await ctx.decodeBatch();
  return [...rows];
}

/** Evaluates one token at the same position of several sequences, all in one batch, with logits for each. */
export async function decodeStep(
  ctx: NativeContext,
  id: number,
  position: number,
  sequences: readonly number[],
): Promise<void> {
  ctx.initBatch(sequences.length);
  for (const sequence of sequences) ctx.addToBatch(sequence, position, Uint32Array.of(id), Uint32Array.of(0));
  await ctx.decodeBatch();
}

/** llama.cpp hands out `token, logit, token, logit, ...` ordered by logit. */
export function copyLogits(pairs: number[] | undefined, into: Float32Array): void {
  if (pairs?.length !== 2 * into.length) {
    throw new Error(`expected ${into.length} logits, found ${(pairs?.length ?? 0) / 2}`);
  }
  for (let i = 0; i < pairs.length; i += 2) into[pairs[i]!] = pairs[i + 1]!;
}

export interface OwnedContext {
  ctx: NativeContext;
  /** Greedy: it leaves the logits as they are. */
  sampler: unknown;
  dispose(): Promise<void>;
}

export async function createContext(
  model: LlamaModel,
  options: { contextSize: number; batchSize: number; threads: number; exact: boolean; sequences?: number },
): Promise<OwnedContext> {
  const { contextSize, batchSize, threads, exact, sequences = 1 } = options;
  const context = await model.createContext({
    contextSize,
    batchSize,
    threads,
    sequences,
    failedCreationRemedy: false,
    ...(exact
      ? { flashAttention: false, experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32" }
      : { flashAttention: "auto" }),
  });
  const { ctx, sampler } = resolveInternals(context, model);
  return {
    ctx,
    sampler,
    async dispose() {
      sampler.dispose();
      await context.dispose();
    },
  };
}

export async function readVocabSize(gguf: string): Promise<number> {
  const { fullTensorInfo } = await readGgufFileInfo(gguf, { logWarnings: false, sourceType: "filesystem" });
  const embedding = fullTensorInfo?.find(({ name }) => name === "token_embd.weight");
  if (!embedding) throw new Error("no token_embd.weight");
  return Number(embedding.dimensions[1]);
}

export function randomIds(count: number, vocabSize: number, seed: number): number[] {
  const rng = createRng(seed);
  return Array.from({ length: count }, () => rng.int(vocabSize));
}
