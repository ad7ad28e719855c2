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
  /** First position that the cache of a sequence still holds; -1 where it is empty. */
  getSequenceKvCacheMinPosition(sequence: number): number;
  getMemoryBreakdown(): { cpuRam: number; gpuVram: number };
  /** Throws where the vocabularies differ. */
  ensureDraftContextIsCompatibleForSpeculative(draft: NativeContext): void;
  /** Of the last token, or pooled as the model asks. */
  getEmbedding(tokens: number): Float64Array;
  sampleToken(batchIndex: number, sampler: unknown): Promise<number>;
  sampleToken(
    batchIndex: number,
    sampler: unknown,
    probabilities: boolean,
    confidence: boolean,
    logits: boolean | LogitFilter,
    totalLogitWeight?: boolean,
  ): Promise<
    [
      token: number,
      probabilities: undefined,
      confidence: undefined,
      logits: number[] | undefined,
      totalLogitWeight: number | undefined,
    ]
  >;
}

/** Which logits come back. Of 3.22.1 `includeMax` does nothing; the token that a greedy sampler selects is the largest. */
export type LogitFilter = [
  tokens: readonly number[],
  includeMax: boolean,
  includeMin: boolean,
  includeSelected: boolean,
  includeTop: number,
];

/** What `applyConfig` of a sampler takes; what is left out is off. */
export interface SamplerConfig {
  /** 0 is greedy. */
  temperature: number;
  topK?: number;
  topP?: number;
  minP?: number;
  seed?: number;
  /** Turns the penalties on; what comes later is counted by the sampler itself. */
  repeatPenaltyTokens?: Uint32Array;
  repeatPenaltyMaxTokens?: number;
  repeatPenalty?: number;
  repeatPenaltyFrequencyPenalty?: number;
  repeatPenaltyPresencePenalty?: number;
  tokenBiasKeys?: Uint32Array;
  tokenBiasValues?: Float32Array;
  grammarEvaluationState?: unknown;
}

export interface NativeSampler {
  applyConfig(config: SamplerConfig): void;
  dispose(): void;
}

/** What `_model` of a model offers. */
export interface NativeModel {
  detokenize(ids: Uint32Array, special: boolean): string;
  isEogToken(id: number): boolean;
  getMemoryBreakdown(): { cpuRam: number; gpuVram: number };
  getTotalParameters(): number;
  getModelDescription(): string;
}

export interface Internals {
  ctx: NativeContext;
  native: NativeModel;
  createSampler(config: SamplerConfig): NativeSampler;
}

/** The native context, the native model, and its samplers. */
export function resolveInternals(context: unknown, model: unknown): Internals {
  const { _ctx } = context as { _ctx?: NativeContext };
  const { _llama, _model } = model as {
    _llama?: { _bindings?: { AddonSampler?: new (model: unknown) => NativeSampler } };
    _model?: NativeModel;
  };
  const Sampler = _llama?._bindings?.AddonSampler;
  if (!_ctx?.initBatch || !_ctx.decodeBatch || !_ctx.sampleToken || !_model?.detokenize || !Sampler) {
    throw new Error("internal: this version of node-llama-cpp has moved its native context");
  }
  const createSampler = (config: SamplerConfig) => {
    const sampler = new Sampler(_model);
    sampler.applyConfig(config);
    return sampler;
  };
  return { ctx: _ctx, native: _model, createSampler };
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
  options: {
    contextSize: number;
    batchSize: number;
    threads: number;
    exact: boolean;
    sequences?: number;
    adapter?: string;
  },
): Promise<OwnedContext> {
  const { contextSize, batchSize, threads, exact, sequences = 1, adapter } = options;
  const context = await model.createContext({
    contextSize,
    batchSize,
    threads,
    sequences,
    failedCreationRemedy: false,
    ...(adapter !== undefined && { lora: adapter }),
    ...(exact
      ? { flashAttention: false, experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32" }
      : { flashAttention: "auto" }),
  });
  const { ctx, createSampler } = resolveInternals(context, model);
  // Greedy: it leaves the logits as they are.
  const sampler = createSampler({ temperature: 0 });
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
