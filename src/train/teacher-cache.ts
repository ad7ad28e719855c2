/**
 * @module A teacher's best tokens on disk: for every target of every sample its K most probable tokens and their
 * log-probabilities (what they leave is the tail's mass), so that training does without the teacher. Samples are worked off
 * in parts, each a file that appears whole: a run that was killed goes on with the next one.
 */
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { EspalierError, fileExists, ignoreEvents, type OnEvent, writeFileAtomic } from "../base/index.js";
import { type PackableSample, type PackedBatch, packSamples, sampleTargets } from "../data/index.js";
import { createGraph } from "../graph/index.js";
import type { Model, ModelConfig } from "../models/index.js";
import type { Runtime, Tensors } from "../runtime/index.js";
import { type F32Tensor, f32Tensor, i64Tensor } from "../tensor/index.js";
import type { Batch } from "./batches.js";
import { buildPackedModel, modelValues, type PackedShape, packedInputs } from "./packed.js";
import { packedFeeds, positionFeeds } from "./packed-feeds.js";
import { topOf } from "./top.js";

export interface TeacherCacheOptions {
  runtime: Runtime;
  /** In events, and of programs. */
  stage: string;
  teacher: Pick<Model, "config">;
  /** The teacher's weights by their own names, asked for only where a part is missing. */
  weights: () => Promise<Tensors>;
  samples: readonly PackableSample[];
  shape: PackedShape;
  /** Tokens that are kept of each distribution. */
  k: number;
  /** Logits are divided by it before they become log-probabilities. Defaults to 1. */
  temperature?: number;
  /** Holds the files of these very samples, teacher, K and temperature: the caller keeps others apart. */
  directory: string;
  /** Samples of a file. Defaults to 64. */
  part?: number;
  onEvent?: OnEvent;
  signal?: AbortSignal;
}

/** The cache in memory: 8 K bytes for each target. */
export interface TeacherCache {
  k: number;
  /** Place of the first target of each sample. */
  starts: Int32Array;
  /** [targets * K] */
  ids: Int32Array;
  logProbs: Float32Array;
  /** Mean probability outside the K tokens. */
  tail: number;
  /** Parts that were found on disk, and all. */
  found: number;
  parts: number;
}

/** Fills what is missing and reads the whole. */
export async function teacherCache(options: TeacherCacheOptions): Promise<TeacherCache> {
  const { samples, k, directory, part = 64, stage, onEvent = ignoreEvents, signal } = options;
  if (k > options.teacher.config.vocabSize) throw tooMany(k, options.teacher.config);
  await mkdir(directory, { recursive: true });
  const counts = samples.map(sampleTargets);
  const starts = Int32Array.from([0, ...counts].slice(0, -1), sums());
  const total = counts.reduce((sum, count) => sum + count, 0);
  const cache = { ids: new Int32Array(total * k), logProbs: new Float32Array(total * k) };
  const parts = Math.ceil(samples.length / part);
  let score: ReturnType<typeof createTopScorer> | undefined;
  let found = 0;
  for (let i = 0; i < parts; i++) {
    signal?.throwIfAborted();
    const [first, last] = [i * part, Math.min(samples.length, (i + 1) * part)];
    const size = counts.slice(first, last).reduce((sum, count) => sum + count, 0) * k;
    const path = join(directory, `part-${String(i).padStart(5, "0")}.bin`);
    if (await fileExists(path)) found++;
    else {
      score ??= createTopScorer(options);
      await writeFileAtomic(path, await score(samples.slice(first, last), await options.weights()));
      onEvent({ event: "notice", level: "info", message: `${stage}: teacher's answers, part ${i + 1} of ${parts}` });
    }
    const bytes = await readFile(path);
    if (bytes.byteLength !== 8 * size) throw damaged(path, 8 * size, bytes.byteLength);
    const { buffer } = Uint8Array.from(bytes);
    cache.ids.set(new Int32Array(buffer, 0, size), starts[first]! * k);
    cache.logProbs.set(new Float32Array(buffer, 4 * size, size), starts[first]! * k);
  }
  const mass = cache.logProbs.reduce((sum, x) => sum + Math.exp(x), 0);
  return { k, starts, ...cache, tail: total > 0 ? 1 - mass / total : 0, found, parts };
}

/** Running sum, as a function for `from`. */
function sums(): (x: number) => number {
  let sum = 0;
  return (x) => {
    sum += x;
    return sum;
  };
}

/** Adds the teacher's answers to a packed batch of plain samples; see `positionFeeds`. */
export function cachedFeeds(packed: PackedBatch, shape: PackedShape, cache: TeacherCache): Batch & { weight: number } {
  const { k, starts } = cache;
  const batch = positionFeeds(packed, shape);
  const ids = new BigInt64Array(shape.targets * k);
  // Padding has weight 0, and answers that are no distribution's would still give infinities.
  const logProbs = new Float32Array(shape.targets * k).fill(-Math.log(2 * k));
  for (const { place, of } of targetPlaces(packed, starts)) {
    for (let j = 0; j < k; j++) {
      ids[place * k + j] = BigInt(cache.ids[of * k + j]!);
      logProbs[place * k + j] = cache.logProbs[of * k + j]!;
    }
  }
  const feeds = {
    ...batch.feeds,
    "cached/ids": i64Tensor([shape.targets, k], ids),
    "cached/logProbs": f32Tensor([shape.targets, k], logProbs),
  };
  return { ...batch, feeds };
}

/** Each target's place in the batch, and its number among the targets of all samples. Plain samples have one sequence each. */
function targetPlaces({ rows, sequences }: PackedBatch, starts: Int32Array): { place: number; of: number }[] {
  const seen = new Int32Array(sequences.length);
  return rows
    .flatMap(({ targets }) => targets)
    .map(({ sequence }, place) => ({ place, of: starts[sequences[sequence]!.sample]! + seen[sequence]!++ }));
}

/** Rows whose logits leave the runtime at one time. */
const headRows = 64;

/** Scores samples as a file holds them: ids of all targets, then log-probabilities. */
function createTopScorer({ runtime, stage, teacher, shape, k, temperature = 1 }: TeacherCacheOptions) {
  const { config } = teacher;
  const model = hiddenGraph(`${stage}_teacher`, config, shape);
  const bodies = runtime.compile(model);
  const heads = runtime.compile(headGraph(`${stage}_teacher_head`, config));
  return async (samples: readonly PackableSample[], weights: Tensors): Promise<Uint8Array> => {
    const [body, head] = [await bodies, await heads];
    const starts = Int32Array.from([0, ...samples.map(sampleTargets)].slice(0, -1), sums());
    const size = samples.reduce((sum, sample) => sum + sampleTargets(sample), 0) * k;
    const buffer = new ArrayBuffer(8 * size);
    const [ids, logProbs] = [new Int32Array(buffer, 0, size), new Float32Array(buffer, 4 * size, size)];
    for (const packed of packSamples(samples, shape).batches) {
      const { hidden, table } = await body.run(neededBy(body, { ...weights, ...packedFeeds(packed, shape).feeds }));
      const places = targetPlaces(packed, starts);
      for (let from = 0; from < places.length; from += headRows) {
        const logits = await head.run({ table: table!, hidden: rowsFrom(hidden as F32Tensor, from) });
        places.slice(from, from + headRows).forEach(({ of }, row) => {
          const own = (logits.logits!.data as Float32Array).subarray(
            row * config.vocabSize,
            (row + 1) * config.vocabSize,
          );
          const top = topOf(own, k, temperature);
          ids.set(top.ids, of * k);
          logProbs.set(top.logProbs, of * k);
        });
      }
    }
    return new Uint8Array(buffer);
  };
}

function hiddenGraph(name: string, config: ModelConfig, shape: PackedShape) {
  const g = createGraph(name);
  const inputs = packedInputs(g, shape);
  const { finalHidden, headWeight } = buildPackedModel(g, { config }, shape, inputs, modelValues(g, { config }, {}));
  g.output("hidden", g.gather(finalHidden, inputs.from));
  g.output("table", headWeight);
  return g;
}

function headGraph(name: string, { vocabSize, hiddenSize }: ModelConfig) {
  const g = createGraph(name);
  g.output("logits", g.linear(g.input("hidden", [headRows, hiddenSize]), g.input("table", [vocabSize, hiddenSize])));
  return g;
}

/** `headRows` rows, zeros after the last. */
function rowsFrom({ data, shape }: F32Tensor, from: number): F32Tensor {
  const width = shape[1]!;
  const rows = f32Tensor([headRows, width]);
  rows.data.set(data.subarray(from * width, (from + headRows) * width));
  return rows;
}

function neededBy({ inputs }: { inputs: readonly { name: string }[] }, all: Tensors): Tensors {
  return Object.fromEntries(inputs.filter(({ name }) => all[name]).map(({ name }) => [name, all[name]!]));
}

function damaged(where: string, expected: number, found: number): EspalierError {
  return new EspalierError({
    where,
    expected: `${expected} bytes`,
    found: `${found}`,
    fix: "remove the file; the next run makes it again",
  });
}

function tooMany(k: number, { vocabSize }: ModelConfig): EspalierError {
  return new EspalierError({
    where: "topK",
    expected: `at most the ${vocabSize} tokens of the vocabulary`,
    found: `${k}`,
    exitCode: 2,
  });
}
