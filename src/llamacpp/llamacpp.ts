/** @module llama.cpp on this machine, for checking exports, measuring speed and generating. */
import { stat } from "node:fs/promises";
import { EspalierError, type Interval, meanInterval } from "../base/index.js";
import { type CallOptions, createClient } from "./client.js";
import { checkFile } from "./model-file.js";
import type {
  ContextOptions,
  Generated,
  LlamaCppVersion,
  LogitsPart,
  Positions,
  TimedFile,
  TimeSamples,
} from "./protocol.js";
import { threadsForBytes } from "./threads.js";

export interface LlamaCppOptions {
  /** Compute layer. Defaults to false: the CPU. */
  gpu?: false | "cuda" | "vulkan" | "metal";
  /** Threads of one evaluation. Defaults to one for each physical core, and a single one for files below 32 MiB. */
  threads?: number;
}

export interface LogitsOptions {
  /** Which positions are returned; rows come in rising order. Defaults to "all". */
  positions?: Positions;
  /** GGUF file of a LoRA adapter that is applied, at its full strength. Defaults to none. */
  adapter?: string;
  signal?: AbortSignal;
}

export interface MeasureOptions {
  /** Tokens of the prompt that is timed as prefill. Defaults to 512. */
  promptTokens?: number;
  /** A step is timed right after the prompt and after so many tokens more; its time is the mean of both. Defaults to 64. */
  generateTokens?: number;
  /** Threads of every evaluation. Defaults to the instance's own, else to what the first model's size asks for. */
  threads?: number;
  /** Threads of a decoding step. Defaults to `threads`. */
  stepThreads?: number;
  /** Timed rounds, after one that warms up. Defaults to 5. */
  repeats?: number;
  /** A sample repeats its work until it has lasted this long. Defaults to 0.1. */
  sampleSeconds?: number;
  /** Seed of the random token ids. Defaults to 1. */
  seed?: number;
  signal?: AbortSignal;
  onProgress?: (done: number, total: number) => void;
}

/** Tokens per second. */
export interface Speed {
  prefill: Interval;
  decode: Interval;
  /** The rates behind the intervals, round by round; models measured together have the same rounds. */
  samples: { prefill: number[]; decode: number[] };
  /** Threads that were used for prompts, and for steps. */
  threads: number;
  stepThreads: number;
}

export interface TimeOptions {
  /** Threads of every evaluation, unless a file has its own for steps: a small file stands for a larger model here, so its own size decides nothing. */
  threads: number;
  /** Timed rounds, after one that warms up. Defaults to 5. */
  repeats?: number;
  /** A sample repeats its work until it has lasted this long. Defaults to 0.1. */
  sampleSeconds?: number;
  /** Seed of the random token ids. Defaults to 1. */
  seed?: number;
  signal?: AbortSignal;
  /** Samples taken, of all; a sample is one file in one round. */
  onProgress?: (done: number, total: number) => void;
}

export interface GenerateOptions {
  /** Defaults to 128. */
  maxTokens?: number;
  /** 0 takes the likeliest token. Defaults to 0. */
  temperature?: number;
  /** Defaults to 1. */
  topP?: number;
  /** Defaults to 0. */
  seed?: number;
  signal?: AbortSignal;
  onText?: (text: string) => void;
}

export interface TokenizeOptions {
  /** Read special tokens in the text as such. Defaults to false. */
  special?: boolean;
  signal?: AbortSignal;
}

export interface LlamaCpp {
  /** Logits of every asked position, one array [positions, vocabulary] per sequence; f32 cache, no flash attention. */
  logits(gguf: string, sequences: readonly (readonly number[])[], options?: LogitsOptions): Promise<Float32Array[]>;
  /** The same, a few rows at a time, for vocabularies whose logits do not fit in memory together. */
  eachLogits(
    gguf: string,
    sequences: readonly (readonly number[])[],
    visit: (sequence: number, position: number, row: Float32Array) => void,
    options?: LogitsOptions,
  ): Promise<void>;
  measure(gguf: string, options?: MeasureOptions): Promise<Speed>;
  /** Measures several models in turns, so that a drift of the machine touches all alike. */
  measureMany(ggufs: readonly string[], options?: MeasureOptions): Promise<Speed[]>;
  /**
   * Seconds of prompts and of decoding steps at given depths and batch sizes, for several files in turns; one list of
   * rounds for each point. All files are loaded at once.
   */
  timeMany(files: readonly TimedFile[], options: TimeOptions): Promise<TimeSamples[]>;
  /** Continues a text or token ids, as a base model does: no chat template. */
  generate(gguf: string, prompt: string | readonly number[], options?: GenerateOptions): Promise<Generated>;
  /** Token ids of llama.cpp's own tokenizer, without first or last tokens; special tokens in the text only if asked. */
  tokenize(gguf: string, text: string, options?: TokenizeOptions): Promise<number[]>;
  tokenizeMany(gguf: string, texts: readonly string[], options?: TokenizeOptions): Promise<number[][]>;
  version(options?: { signal?: AbortSignal }): Promise<LlamaCppVersion>;
  /** Ends the child process. A later call starts a new one. */
  dispose(): Promise<void>;
}

/** Tokens a second, round by round. */
function ratesOf(
  { prefill, decode }: TimeSamples,
  promptTokens: number,
): Pick<Speed, "prefill" | "decode" | "samples"> {
  const prompts = prefill[0]!.map((seconds) => promptTokens / seconds);
  const steps = decode[0]!.map((_, round) => decode.length / decode.reduce((sum, own) => sum + own[round]!, 0));
  return { prefill: meanInterval(prompts), decode: meanInterval(steps), samples: { prefill: prompts, decode: steps } };
}

/** Nothing is started until the first call. */
export function createLlamaCpp({ gpu = false, threads = 0 }: LlamaCppOptions = {}): LlamaCpp {
  const client = createClient({ gpu, threads } satisfies ContextOptions);

  const eachLogits: LlamaCpp["eachLogits"] = async (
    gguf,
    sequences,
    visit,
    { positions = "all", adapter, signal } = {},
  ) => {
    await checkFile(gguf);
    if (adapter !== undefined) await checkFile(adapter);
    checkSequences(gguf, sequences);
    const params = { gguf, sequences: sequences.map((ids) => [...ids]), positions, ...(adapter && { adapter }) };
    const onPart = (part: LogitsPart) => visitRows(part, visit);
    await client.call("logits", params, gguf, callOptions(signal, onPart));
  };

  const timeMany: LlamaCpp["timeMany"] = async (files, { threads: used, signal, onProgress, ...options }) => {
    const { repeats = 5, sampleSeconds = 0.1, seed = 1 } = options;
    for (const { gguf } of files) await checkFile(gguf);
    const params = { files: [...files], repeats, sampleSeconds, seed, threads: used };
    const onPart = ({ done, total }: { done: number; total: number }) => onProgress?.(done, total);
    return client.call("time", params, files.map(({ gguf }) => gguf).join(", "), callOptions(signal, onPart));
  };

  const version: LlamaCpp["version"] = ({ signal } = {}) =>
    client.call("version", {}, "llama.cpp", signal ? { signal } : {});

  const threadsOf = async (gguf: string, signal?: AbortSignal) => {
    await checkFile(gguf);
    if (threads > 0) return threads;
    const { mathCores } = await version(signal ? { signal } : {});
    return threadsForBytes((await stat(gguf)).size, mathCores);
  };

  const measureMany: LlamaCpp["measureMany"] = async (ggufs, options = {}) => {
    const { promptTokens = 512, generateTokens = 64, signal } = options;
    const used = options.threads ?? (await threadsOf(ggufs[0]!, signal));
    const { stepThreads = used } = options;
    const decode = [promptTokens, promptTokens + generateTokens].map((depth) => ({ batch: 1, depth }));
    const files = ggufs.map((gguf) => ({ gguf, prefill: [promptTokens], decode, stepThreads }));
    const samples = await timeMany(files, { ...options, threads: used });
    return samples.map((own) => ({ ...ratesOf(own, promptTokens), threads: used, stepThreads }));
  };

  const tokenizeMany: LlamaCpp["tokenizeMany"] = async (gguf, texts, { special = false, signal } = {}) => {
    await checkFile(gguf);
    return client.call("tokenize", { gguf, texts: [...texts], special }, gguf, signal ? { signal } : {});
  };

  return {
    eachLogits,
    async logits(gguf, sequences, options) {
      const rows: Float32Array[][] = sequences.map(() => []);
      await eachLogits(gguf, sequences, (sequence, _position, row) => rows[sequence]!.push(row), options);
      return rows.map(concat);
    },
    measureMany,
    timeMany,
    measure: async (gguf, options) => (await measureMany([gguf], options))[0]!,
    async generate(gguf, prompt, options = {}) {
      const { maxTokens = 128, temperature = 0, topP = 1, seed = 0, signal, onText } = options;
      await checkFile(gguf);
      const text = typeof prompt === "string" ? prompt : [...prompt];
      const params = { gguf, prompt: text, maxTokens, temperature, topP, seed };
      return client.call(
        "generate",
        params,
        gguf,
        callOptions(signal, (part: { text: string }) => onText?.(part.text)),
      );
    },
    tokenizeMany,
    tokenize: async (gguf, text, options) => (await tokenizeMany(gguf, [text], options))[0]!,
    version,
    dispose: () => client.dispose(),
  };
}

function visitRows(
  { sequence, positions, values }: LogitsPart,
  visit: (sequence: number, position: number, row: Float32Array) => void,
): void {
  const width = values.length / positions.length;
  for (const [row, position] of positions.entries()) {
    visit(sequence, position, values.subarray(row * width, (row + 1) * width));
  }
}

function concat(rows: readonly Float32Array[]): Float32Array {
  const width = rows[0]?.length ?? 0;
  const all = new Float32Array(rows.length * width);
  for (const [i, row] of rows.entries()) all.set(row, i * width);
  return all;
}

function callOptions<Part>(signal: AbortSignal | undefined, onPart: (part: Part) => void): CallOptions<Part> {
  return signal ? { signal, onPart } : { onPart };
}

function checkSequences(gguf: string, sequences: readonly (readonly number[])[]): void {
  if (sequences.length > 0 && sequences.every((ids) => ids.length > 0)) return;
  throw new EspalierError({ where: gguf, expected: "token ids to evaluate", found: "an empty sequence" });
}
