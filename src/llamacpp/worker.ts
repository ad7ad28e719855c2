/**
 * @module The child process, in which llama.cpp runs: it serves one
 * request after the other and ends with its parent.
 */

import { stat } from "node:fs/promises";
import { getModuleVersion, type Llama, type LlamaModel, type Token } from "./binding.js";
import { copyLogits, createContext, decode, readVocabSize } from "./native-context.js";
import type { ContextOptions, GenerateParams, Methods, Reply, Request } from "./protocol.js";
import { endWithParent, explain, startLlama } from "./start.js";
import { threadsForBytes } from "./threads.js";
import { timeFiles } from "./timing.js";

type Send<Part> = (part: Part) => void;
type Handlers = {
  [M in keyof Methods]: (
    params: Methods[M]["params"],
    context: ContextOptions,
    send: Send<Methods[M]["part"]>,
  ) => Promise<Methods[M]["result"]>;
};

const handlers: Handlers = {
  version,
  tokenize,
  logits,
  time,
  generate,
  quantise: async (params, { threads }, send) => (await import("./quantiser.js")).quantise(params, threads, send),
  importance: async (params, { threads }, send) =>
    (await import("./importance.js")).measureImportance(params, threads, send),
  sensitivity: async (params, { threads }, send) =>
    (await import("./sensitivity.js")).measureSensitivity(params, threads, send),
  compare: async (params, { threads }, send) => (await import("./comparison.js")).compareFiles(params, threads, send),
};

let loaded: { llama: Llama; gpu: ContextOptions["gpu"] } | undefined;

async function llamaFor({ gpu }: ContextOptions): Promise<Llama> {
  if (loaded?.gpu !== gpu) loaded = { llama: await startLlama(gpu), gpu };
  return loaded.llama;
}

async function withModel<T>(
  gguf: string,
  options: ContextOptions,
  work: (model: LlamaModel, llama: Llama, threads: number) => Promise<T>,
): Promise<T> {
  const llama = await llamaFor(options);
  const model = await llama.loadModel({ modelPath: gguf, ...(options.gpu === false ? { gpuLayers: 0 } : {}) });
  try {
    return await work(model, llama, await threadsFor(gguf, options, llama));
  } finally {
    await model.dispose();
  }
}

async function threadsFor(gguf: string, { threads }: ContextOptions, llama: Llama): Promise<number> {
  if (threads > 0) return threads;
  return threadsForBytes((await stat(gguf)).size, llama.cpuMathCores);
}

async function version(
  _: Methods["version"]["params"],
  context: ContextOptions,
): Promise<Methods["version"]["result"]> {
  const llama = await llamaFor(context);
  return {
    package: await getModuleVersion(),
    llamaCpp: llama.llamaCppRelease.release,
    gpu: llama.gpu,
    devices: await llama.getGpuDeviceNames(),
    mathCores: llama.cpuMathCores,
  };
}

function tokenize(
  { gguf, texts, special }: Methods["tokenize"]["params"],
  context: ContextOptions,
): Promise<number[][]> {
  return withModel(gguf, context, async (model) => texts.map((text) => [...model.tokenize(text, special)]));
}

/** Bytes of logits that one batch may hold in llama.cpp; it bounds the memory of a large vocabulary. */
const logitsBatchBytes = 16 * 2 ** 20;

function logits(
  { gguf, sequences, positions, adapter }: Methods["logits"]["params"],
  context: ContextOptions,
  send: Send<Methods["logits"]["part"]>,
): Promise<{ vocabSize: number }> {
  return withModel(gguf, context, async (model, _llama, threads) => {
    const vocabSize = await readVocabSize(gguf);
    for (const [sequence, ids] of sequences.entries()) checkIds(ids, vocabSize, sequence);
    const longest = Math.max(...sequences.map((ids) => ids.length));
    const batchSize = Math.min(longest, 512, Math.max(16, Math.floor(logitsBatchBytes / (4 * vocabSize))));
    // The comparison is with f32 arithmetic: neither the cache nor the attention kernel may round.
    const { ctx, sampler, dispose } = await createContext(model, {
      contextSize: longest,
      batchSize,
      threads,
      exact: true,
      ...(adapter !== undefined && { adapter }),
    });
    for (const [sequence, ids] of sequences.entries()) {
      const wanted = resolvePositions(positions, ids.length);
      for (let start = 0; start < ids.length; start += batchSize) {
        const end = Math.min(start + batchSize, ids.length);
        const here = wanted.filter((position) => position >= start && position < end);
        const rows = await decode(ctx, ids, start, end, here);
        const values = new Float32Array(here.length * vocabSize);
        for (const [row, index] of rows.entries()) {
          const [, , , pairs] = await ctx.sampleToken(index, sampler, false, false, true);
          copyLogits(pairs, values.subarray(row * vocabSize, (row + 1) * vocabSize));
        }
        if (here.length > 0) send({ sequence, positions: here, values });
      }
      ctx.disposeSequence(0);
    }
    await dispose();
    return { vocabSize };
  });
}

function resolvePositions(positions: Methods["logits"]["params"]["positions"], length: number): number[] {
  const all = Array.from({ length }, (_, i) => i);
  if (positions === "all") return all;
  if ("last" in positions) return all.slice(Math.max(0, length - positions.last));
  return all.filter((position) => positions.includes(position));
}

function checkIds(ids: readonly number[], vocabSize: number, sequence: number): void {
  const bad = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
  if (bad !== undefined) throw new Error(`token id ${bad} in sequence ${sequence}; the vocabulary has ${vocabSize}`);
}

async function time(
  params: Methods["time"]["params"],
  context: ContextOptions,
  send: Send<Methods["time"]["part"]>,
): Promise<Methods["time"]["result"]> {
  const llama = await llamaFor(context);
  return timeFiles(llama, params, context, send);
}

async function generate(
  { gguf, prompt, maxTokens, temperature, topP, seed }: GenerateParams,
  options: ContextOptions,
  send: Send<Methods["generate"]["part"]>,
): Promise<Methods["generate"]["result"]> {
  return withModel(gguf, options, async (model, _llama, threads) => {
    const promptIds = typeof prompt === "string" ? promptTokens(model, prompt) : prompt;
    const context = await model.createContext({
      contextSize: promptIds.length + maxTokens,
      threads,
      sequences: 1,
      flashAttention: "auto",
    });
    const sequence = context.getSequence();
    const ids: Token[] = [];
    let start = performance.now();
    for await (const id of sequence.evaluate(promptIds as Token[], {
      temperature,
      topP,
      seed,
    })) {
      if (model.isEogToken(id)) break;
      // The first token waits for the prompt; the rate is that of the ones after it.
      if (ids.length === 0) start = performance.now();
      ids.push(id);
      send({ text: model.detokenize([id]) });
      if (ids.length >= maxTokens) break;
    }
    const seconds = (performance.now() - start) / 1000;
    await context.dispose();
    const text = model.detokenize(ids);
    return { text, ids, promptIds, tokensPerSecond: ids.length > 1 ? (ids.length - 1) / seconds : 0 };
  });
}

/** Text as a base model gets it: its first token before it where the vocabulary asks for one. */
function promptTokens(model: LlamaModel, text: string): number[] {
  const ids: number[] = [...model.tokenize(text, false)];
  const { bos, shouldPrependBosToken } = model.tokens;
  return shouldPrependBosToken && bos !== null && ids[0] !== bos ? [bos, ...ids] : ids;
}

const reply = (message: Reply) => process.send?.(message);

async function serve({ id, method, params, context }: Request): Promise<void> {
  try {
    const handler = handlers[method] as (p: unknown, c: ContextOptions, s: Send<unknown>) => Promise<unknown>;
    const result = await handler(params, context, (part) => reply({ id, kind: "part", part }));
    reply({ id, kind: "done", result });
  } catch (error) {
    reply({ id, kind: "error", message: explain(error) });
  }
}

process.on("message", (request: Request) => void serve(request));
endWithParent();
