/**
 * @module Batches on node-llama-cpp's own native context (`_ctx`) instead of its `controlledEvaluate`: one call per batch,
 * so that what is timed is llama.cpp and not a queue, and logits come as a flat list, without a Map for each position.
 * The package is pinned exactly; `resolveInternals` says so when an update has moved them.
 */

/** What `_ctx` of a context offers; see AddonContext in node-llama-cpp's `AddonTypes.d.ts`. */
export interface NativeContext {
  initBatch(size: number): void;
  /** Returns where in the batch the asked logits are. */
  addToBatch(sequence: number, firstPosition: number, tokens: Uint32Array, logitIndexes: Uint32Array): Uint32Array;
  decodeBatch(): Promise<void>;
  disposeSequence(sequence: number): void;
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
): Promise<number[]> {
  ctx.initBatch(end - start);
  const relative = Uint32Array.from(wanted, (position) => position - start);
  const rows = ctx.addToBatch(0, start, Uint32Array.from(ids.slice(start, end)), relative);
  await ctx.decodeBatch();
  return [...rows];
}

/** llama.cpp hands out `token, logit, token, logit, ...` ordered by logit. */
export function copyLogits(pairs: number[] | undefined, into: Float32Array): void {
  if (pairs?.length !== 2 * into.length) {
    throw new Error(`expected ${into.length} logits, found ${(pairs?.length ?? 0) / 2}`);
  }
  for (let i = 0; i < pairs.length; i += 2) into[pairs[i]!] = pairs[i + 1]!;
}
