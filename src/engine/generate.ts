import { EspalierError } from "../base/index.js";
import { type ModelConfig, positionsFrom, rotaryTables } from "../models/index.js";
import { type F32Tensor, f32Tensor } from "../tensor/index.js";
import { type Engine, embedRows } from "./engine.js";
import { cacheMask, createKvCache, growKvCache, type KvCache, writeKv } from "./kv-cache.js";
import { createSampler, type SampleOptions } from "./sample.js";

export interface GenerateOptions extends SampleOptions {
  /** Defaults to 128. */
  maxTokens?: number;
  /** Ids that end the text; the one met is the last of `ids`. Defaults to the model's end tokens. */
  stop?: readonly number[];
  signal?: AbortSignal;
  /** Called with each new id. */
  onToken?: (id: number) => void;
}

export interface Generation {
  /** New ids, without the prompt. */
  ids: number[];
  /** `stop`: a stop id; `length`: `maxTokens`; `context`: the model's longest context is full. */
  finish: "stop" | "length" | "context";
  /** Prompt tokens a second. */
  prefillTokensPerSecond: number;
  /** New tokens a second after the first one; 0 when there is no second one. */
  tokensPerSecond: number;
}

/** Continues a prompt with a key and value cache: greedy, or sampled with a seed. */
export async function generate(
  engine: Engine,
  prompt: ArrayLike<number>,
  options: GenerateOptions = {},
): Promise<Generation> {
  const { maxTokens = 128, stop = engine.config.eosTokenIds, signal, onToken } = options;
  const longest = engine.config.maxPositions;
  checkPrompt(prompt, longest);
  const sample = createSampler(options);
  const session = createDecodeSession(engine);
  const stops = new Set(stop);
  const ids: number[] = [];
  const started = performance.now();
  let prefilled = started;
  let x = await session.append(prompt, signal);
  for (;;) {
    const logits = (await engine.logits(x)).data;
    const id = sample(logits);
    checkFinite(logits[id]!, prompt.length + ids.length);
    if (ids.length === 0) prefilled = performance.now();
    ids.push(id);
    onToken?.(id);
    const finish = finishOf(id, { stops, full: ids.length >= maxTokens, room: session.length() < longest });
    if (finish) return { ids, finish, ...rates({ started, prefilled, prompt: prompt.length, made: ids.length }) };
    x = await session.append([id], signal);
  }
}

function finishOf(
  id: number,
  { stops, full, room }: { stops: Set<number>; full: boolean; room: boolean },
): Generation["finish"] | undefined {
  if (stops.has(id)) return "stop";
  if (full) return "length";
  return room ? undefined : "context";
}

function rates({
  started,
  prefilled,
  prompt,
  made,
}: {
  started: number;
  prefilled: number;
  prompt: number;
  made: number;
}) {
  const decodeSeconds = (performance.now() - prefilled) / 1000;
  return {
    prefillTokensPerSecond: prompt / ((prefilled - started) / 1000),
    tokensPerSecond: made > 1 ? (made - 1) / decodeSeconds : 0,
  };
}

function checkPrompt(prompt: ArrayLike<number>, longest: number): void {
  if (prompt.length > 0 && prompt.length <= longest) return;
  throw new EspalierError({
    where: "prompt",
    expected: `1 to ${longest} tokens, the longest context of the model`,
    found: `${prompt.length}`,
    ...(prompt.length === 0 && { fix: "give some text: this tokenizer puts no start token before an empty prompt" }),
    exitCode: 2,
  });
}

function checkFinite(logit: number, position: number): void {
  if (Number.isFinite(logit)) return;
  throw new EspalierError({
    where: `logits after token ${position}`,
    expected: "finite numbers",
    found: `${logit}`,
    fix: "the weights overflow float32 on this text; check where the model comes from",
  });
}

/** One sequence being continued. */
export interface DecodeSession {
  /** Takes more tokens; returns the last one's hidden state before the final norm, [1, H]. */
  append(ids: ArrayLike<number>, signal?: AbortSignal): Promise<F32Tensor>;
  /** Tokens taken so far. */
  length(): number;
}

/** Programs exist for these numbers of new tokens; fewer are padded. */
const chunkLengths = [1, 8, 32, 128] as const;
const firstCapacity = 128;

export function createDecodeSession(engine: Engine): DecodeSession {
  let cache = createKvCache(engine.config, firstCapacity);
  return {
    length: () => cache.length,
    async append(ids, signal) {
      let last = f32Tensor([1, engine.config.hiddenSize]);
      cache = withRoom(engine.config, cache, cache.length + ids.length);
      for (let done = 0; done < ids.length; ) {
        signal?.throwIfAborted();
        const chunk = Array.from(ids).slice(done, done + chunkLengths.at(-1)!);
        last = await appendChunk(engine, cache, chunk);
        done += chunk.length;
      }
      return last;
    },
  };
}

function withRoom(config: ModelConfig, cache: KvCache, needed: number): KvCache {
  if (needed <= cache.capacity) return cache;
  return growKvCache(config, cache, 2 ** Math.ceil(Math.log2(needed)));
}

async function appendChunk(engine: Engine, cache: KvCache, ids: readonly number[]): Promise<F32Tensor> {
  const { config } = engine;
  const { programs, weights } = engine.parts;
  const length = chunkLengths.find((size) => size >= ids.length)!;
  // Padding stands behind the real tokens, where none of them looks, and is never written to the cache.
  const padded = Array.from({ length }, (_, i) => ids[i] ?? ids[0]!);
  const rotary = rotaryTables(config, positionsFrom(cache.length, length));
  const mask = cacheMask(cache);
  let x = await embedRows(weights, config, [padded]);
  for (let layer = 0; layer < config.blocks.length; layer++) {
    const block = config.blocks[layer]!;
    if (block.attention.kind === "none" && block.ffn.kind === "none") continue;
    const own = await weights.block(layer);
    weights.prefetch(layer + 1);
    const program = await programs.cachedBlock(block, { length, capacity: cache.capacity });
    const kv = cache.layers[layer];
    const past = kv ? { ...rotary, keys: kv.keys, values: kv.values, mask } : {};
    const result = (await program.run({ x, ...past, ...own })) as Record<string, F32Tensor>;
    if (kv) writeKv(cache, kv, { keys: result.newKeys!, values: result.newValues! }, ids.length);
    x = result.output!;
  }
  cache.length += ids.length;
  return lastRow(x, ids.length - 1);
}

function lastRow(x: F32Tensor, row: number): F32Tensor {
  const width = x.shape[1]!;
  return f32Tensor([1, width], x.data.slice(row * width, (row + 1) * width));
}
