/**
 * @module Seconds of prompts and of decoding steps at given depths and batch sizes, for several files in turns. The cache
 * is rewound, so that every sample is taken at the same depth.
 */
import type { Llama } from "./binding.js";
import { createContext, decode, decodeStep, type NativeContext, randomIds, readVocabSize } from "./native-context.js";
import type { ContextOptions, DecodePoint, TimedFile, TimeParams, TimeSamples } from "./protocol.js";
import { createRetaking } from "./retake.js";

/** Steps between two rewinds of the cache. */
const stepsInRow = 8;
/**
 * Short rounds of steps for each sample. A thread that loses its core for a moment makes a step of 8 ms one of 40, now and
 * then or half of the time; the undisturbed ones differ by a few percent. So steps are timed in many short rounds, in which
 * files that are compared stand next to each other, and a sample is a low quantile of the steps of so many rounds.
 */
const decodeRounds = 8;
const undisturbedShare = 0.2;

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
    const steps = distinctPoints(files);
    const total = (repeats + 1) * files.length + steps.length * (decodeRounds * repeats + 1);
    let done = 0;
    const undisturbed = createRetaking(repeats * files.reduce((sum, { prefill }) => sum + prefill.length, 0));
    await inRounds(repeats, files, async (at, round) => {
      for (const [i, tokens] of files[at]!.prefill.entries()) {
        const seconds = await undisturbed(`${at} ${tokens}`, () => benches[at]!.prefill(tokens, sampleSeconds));
        if (round > 0) samples[at]!.prefill[i]!.push(seconds);
      }
      send({ done: ++done, total });
    });
    for (const point of steps) {
      const places = files.map(({ decode }) => decode.findIndex((own) => keyOf(own) === keyOf(point)));
      const pieces = files.map(() => Array.from({ length: repeats }, (): number[] => []));
      await inRounds(decodeRounds * repeats, files, async (at, round) => {
        const times = places[at]! < 0 ? [] : await benches[at]!.decode(point);
        // Samples take turns, so that a bad minute is in all of them and decides none.
        if (round > 0) pieces[at]![round % repeats]!.push(...times);
        if (at === 0) send({ done: ++done, total });
      });
      for (const [at, place] of places.entries()) {
        if (place >= 0) samples[at]!.decode[place] = pieces[at]!.map((times) => quantile(times, undisturbedShare));
      }
    }
    return samples;
  } finally {
    for (const bench of benches) await bench.dispose();
  }
}

/** Round 0 warms caches and clocks and does not count; the order turns round, so that a drift touches all alike. */
async function inRounds(
  rounds: number,
  files: readonly TimedFile[],
  visit: (at: number, round: number) => Promise<void>,
): Promise<void> {
  for (let round = 0; round <= rounds; round++) {
    const order = round % 2 === 0 ? [...files.keys()] : [...files.keys()].reverse();
    for (const at of order) await visit(at, round);
  }
}

/** Each point once, shallow ones first: a cache is then filled further and never again. */
function distinctPoints(files: readonly TimedFile[]): DecodePoint[] {
  const points = new Map(files.flatMap(({ decode }) => decode.map((point) => [keyOf(point), point] as const)));
  return [...points.values()].sort((a, b) => a.depth - b.depth || a.batch - b.batch);
}

function keyOf({ batch, depth }: DecodePoint): string {
  return `${batch} ${depth}`;
}

interface Bench {
  /** Seconds of a prompt. */
  prefill(tokens: number, seconds: number): Promise<number>;
  /** Seconds of each of a few steps. */
  decode(point: DecodePoint): Promise<number[]>;
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
  const { stepThreads = threads } = file;
  const ids = randomIds(longest, await readVocabSize(file.gguf), seed);
  const cache = createCache(ctx, ids, batchSize);
  return {
    prefill: (tokens, seconds) =>
      quartileSeconds(seconds, async (time) => {
        await cache.fill(0, 0);
        await time(() => cache.fill(0, tokens));
      }),
    async decode({ batch, depth }) {
      const sequences = Array.from({ length: batch }, (_, sequence) => sequence);
      await cache.fill(0, depth);
      for (const sequence of sequences.slice(1)) await cache.copyFirst(sequence);
      const times: number[] = [];
      ctx.setThreads(stepThreads);
      for (let i = 0; i < stepsInRow; i++) {
        const start = performance.now();
        await cache.step(sequences, depth + i);
        times.push((performance.now() - start) / 1000);
      }
      ctx.setThreads(threads);
      return times;
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
  return quantile(pieces, 0.25);
}

function quantile(values: readonly number[], share: number): number {
  return [...values].sort((a, b) => a - b)[Math.floor(share * values.length)]!;
}
