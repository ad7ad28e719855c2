/**
 * @module Seconds of prompts and of decoding steps at given depths and batch sizes, for several files in turns. Where
 * `measure` follows one conversation, this rewinds the cache, so that every sample is taken at the same depth.
 */
import type { Llama } from "./binding.js";
import { createContext, decode, decodeStep, type NativeContext, randomIds, readVocabSize } from "./native-context.js";
import type { ContextOptions, DecodePoint, TimedFile, TimeParams, TimeSamples } from "./protocol.js";
import { createRetaking } from "./retake.js";

/** Steps between two rewinds of the cache. */
const stepsInRow = 8;
/** Differences of steps are small beside steps, and the prompt before them takes longer than all of them. */
const decodeShare = 4;

export async function timeFiles(
  llama: Llama,
  { files, repeats, sampleSeconds, seed, threads }: TimeParams,
  { gpu }: ContextOptions,
  send: (part: { done: number; total: number }) => void,
): Promise<TimeSamples[]> {
  const benches: Bench[] = [];
  try {
    for (const file of files) benches.push(await createBench(llama, file, { seed, threads, gpu }));
    const samples = files.map(
      ({ prefill, decode }): TimeSamples => ({ prefill: prefill.map(() => []), decode: decode.map(() => []) }),
    );
    const total = (repeats + 1) * files.length;
    let done = 0;
    const points = files.reduce((sum, { prefill, decode }) => sum + prefill.length + decode.length, 0);
    const undisturbed = createRetaking(repeats * points);
    // Round 0 warms caches and clocks and is thrown away; the order turns round, so that a drift touches all alike.
    for (let round = 0; round <= repeats; round++) {
      const order = round % 2 === 0 ? [...files.keys()] : [...files.keys()].reverse();
      for (const at of order) {
        const { prefill, decode } = files[at]!;
        const times = {
          prefill: await each(prefill, (tokens) =>
            undisturbed(`${at} ${tokens}`, () => benches[at]!.prefill(tokens, sampleSeconds)),
          ),
          decode: await each(decode, (point) =>
            undisturbed(`${at} ${point.batch} ${point.depth}`, () =>
              benches[at]!.decode(point, decodeShare * sampleSeconds),
            ),
          ),
        };
        if (round > 0) for (const kind of ["prefill", "decode"] as const) addRound(samples[at]![kind], times[kind]);
        send({ done: ++done, total });
      }
    }
    return samples;
  } finally {
    for (const bench of benches) await bench.dispose();
  }
}

async function each<T>(points: readonly T[], time: (point: T) => Promise<number>): Promise<number[]> {
  const seconds: number[] = [];
  for (const point of points) seconds.push(await time(point));
  return seconds;
}

function addRound(rounds: number[][], seconds: readonly number[]): void {
  for (const [i, value] of seconds.entries()) rounds[i]!.push(value);
}

interface Bench {
  /** Seconds of a prompt. */
  prefill(tokens: number, seconds: number): Promise<number>;
  /** Seconds of a step. */
  decode(point: DecodePoint, seconds: number): Promise<number>;
  dispose(): Promise<void>;
}

interface BenchOptions {
  seed: number;
  threads: number;
  gpu: ContextOptions["gpu"];
}

async function createBench(llama: Llama, file: TimedFile, { seed, threads, gpu }: BenchOptions): Promise<Bench> {
  const model = await llama.loadModel({ modelPath: file.gguf, ...(gpu === false ? { gpuLayers: 0 } : {}) });
  const longest = Math.max(0, ...file.prefill, ...file.decode.map(({ depth }) => depth + stepsInRow));
  const sequences = Math.max(1, ...file.decode.map(({ batch }) => batch));
  const batchSize = Math.max(sequences, Math.min(512, longest));
  const options = { contextSize: longest, batchSize, threads, sequences, exact: false };
  const { ctx, dispose } = await createContext(model, options);
  const ids = randomIds(longest, await readVocabSize(file.gguf), seed);
  const cache = createCache(ctx, ids, batchSize);
  return {
    prefill: (tokens, seconds) =>
      quartileSeconds(seconds, async (time) => {
        await cache.fill(0, 0);
        await time(() => cache.fill(0, tokens));
      }),
    decode({ batch, depth }, seconds) {
      const sequences = Array.from({ length: batch }, (_, sequence) => sequence);
      return quartileSeconds(seconds, async (time) => {
        await cache.fill(0, depth);
        for (const sequence of sequences.slice(1)) await cache.copyFirst(sequence);
        for (let i = 0; i < stepsInRow; i++) await time(() => cache.step(sequences, depth + i));
      });
    },
    async dispose() {
      await dispose();
      await model.dispose();
    },
  };
}

/** Brings sequences of the cache to any length, evaluating or forgetting only what differs. */
function createCache(ctx: NativeContext, ids: readonly number[], batchSize: number) {
  const lengths = new Map<number, number>();
  const cut = (sequence: number, length: number) => {
    if (length === 0) return ctx.disposeSequence(sequence);
    if (ctx.removeTokenCellsFromSequence(sequence, length, -1)) return;
    throw new Error(`the cache of sequence ${sequence} cannot be cut to ${length} tokens`);
  };
  return {
    async fill(sequence: number, length: number): Promise<void> {
      const held = lengths.get(sequence) ?? 0;
      if (held > length) cut(sequence, length);
      for (let start = held; start < length; start += batchSize) {
        const end = Math.min(start + batchSize, length);
        await decode(ctx, ids, start, end, end === length ? [end - 1] : [], sequence);
      }
      lengths.set(sequence, length);
    },
    /** Makes a sequence the same as the first one. */
    async copyFirst(sequence: number): Promise<void> {
      const [held, length] = [lengths.get(sequence) ?? 0, lengths.get(0)!];
      if (held < length) await ctx.copySequenceStateFromOtherSequence(sequence, 0);
      lengths.set(sequence, length);
      if (held > length) cut(sequence, length);
    },
    async step(sequences: readonly number[], position: number): Promise<void> {
      await decodeStep(ctx, ids[position]!, position, sequences);
      for (const sequence of sequences) lengths.set(sequence, position + 1);
    },
  };
}

/**
 * The lower quartile of the pieces that `work` times, called until they have lasted `seconds`: pieces that the machine
 * held up do not count. Three of four may be.
 */
async function quartileSeconds(
  seconds: number,
  work: (time: (piece: () => Promise<void>) => Promise<void>) => Promise<void>,
): Promise<number> {
  const pieces: number[] = [];
  let elapsed = 0;
  const time = async (piece: () => Promise<void>) => {
    const start = performance.now();
    await piece();
    pieces.push((performance.now() - start) / 1000);
    elapsed += pieces.at(-1)!;
  };
  do await work(time);
  while (elapsed < seconds);
  return pieces.sort((a, b) => a - b)[pieces.length >> 2]!;
}
