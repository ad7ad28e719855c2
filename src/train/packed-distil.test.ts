import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { temporaryDirectory } from "../base/testing.js";
import { packSamples, type TokenSample } from "../data/index.js";
import { modelWeights } from "../models/index.js";
import { createTestModel, gqa, referenceLogits, swiglu, testConfig } from "../models/testing.js";
import { createRuntime, type Runtime, type Tensors } from "../runtime/index.js";
import {
  adamw,
  cachedFeeds,
  createKlScorer,
  loadTrainable,
  type PartWeights,
  packedDistillation,
  parentPrefix,
  positionFeeds,
  type TeacherCacheOptions,
  teacherCache,
  train,
} from "./index.js";

const blocks = [{ attention: gqa(2), ffn: swiglu(32) }];
const config = testConfig({ vocabSize: 24, blocks });
const [student, teacher] = [createTestModel(config, 1), createTestModel(config, 2)];
const shape = { batch: 2, length: 12, targets: 24, sequences: 8 };
const sample = (...ids: number[]): TokenSample => ({
  ids: Int32Array.from(ids),
  learn: Uint8Array.from(ids, (_, i) => (i === 0 ? 0 : 1)),
});
const samples = [sample(1, 5, 7, 3, 20), sample(1, 2, 2, 9), sample(1, 23, 11, 4, 6, 8, 9), sample(1, 13)];

let runtime: Runtime;
beforeAll(async () => {
  runtime = await createRuntime({ threads: 1 });
});
afterAll(() => runtime.dispose());

async function weightsOf(model: typeof teacher, prefix = ""): Promise<Tensors> {
  const entries = modelWeights(config).map(
    async ({ name }) => [prefix + name, await model.weights.read(name)] as const,
  );
  return Object.fromEntries(await Promise.all(entries));
}

/** KL(teacher || student) after each token, in float64 from whole logits. */
async function klByHand({ ids }: TokenSample): Promise<number> {
  const [p, q] = await Promise.all([teacher, student].map((model) => referenceLogits(model, [...ids])));
  let sum = 0;
  for (let at = 0; at < ids.length - 1; at++) {
    const [a, b] = [p!, q!].map((logits) => {
      const row = Array.from(logits.subarray(24 * at, 24 * (at + 1)));
      const logSum = Math.log(row.reduce((total, x) => total + Math.exp(x), 0));
      return row.map((x) => x - logSum);
    });
    sum += a!.reduce((total, x, i) => total + Math.exp(x) * (x - b![i]!), 0);
  }
  return sum / (ids.length - 1);
}

test("held-out KL is that of whole distributions, sample by sample", async () => {
  const score = createKlScorer(runtime, "kl", { student: { config }, teacher: config }, shape);
  const found = await score(samples, { ...(await weightsOf(student)), ...(await weightsOf(teacher, parentPrefix)) });
  for (const [i, each] of samples.entries()) expect(found[i]).toBeCloseTo(await klByHand(each), 4);
});

const directory = temporaryDirectory();
const cacheOptions = async (k: number, folder: string): Promise<TeacherCacheOptions> => {
  const weights = await weightsOf(teacher);
  const place = join(directory, folder);
  return { runtime, stage: "d", teacher, weights: async () => weights, samples, shape, k, directory: place, part: 2 };
};

/** The loss of the first step, which no update has touched, and its parts. */
async function firstStep(weights: PartWeights, k?: number, recompute = false) {
  const { parameters, frozen } = await loadTrainable(student);
  const cache = k === undefined ? undefined : await teacherCache(await cacheOptions(k, `k${k}`));
  const packed = packSamples(samples, shape).batches[0]!;
  const events: Record<string, unknown>[] = [];
  const { losses } = await train({
    runtime,
    stage: "distil",
    parameters,
    frozen: {
      ...frozen,
      ...(cache || weights.logits + weights.hidden === 0 ? {} : await weightsOf(teacher, parentPrefix)),
    },
    loss: packedDistillation({
      student: { config },
      teacher: cache ? { cached: cache.k } : { config },
      shape,
      weights,
    }),
    batches: () => (cache ? cachedFeeds(packed, shape, cache) : positionFeeds(packed, shape)),
    optimiser: adamw(),
    steps: 25,
    recompute,
    learningRate: 0.01,
    onEvent: (event) => {
      if (event.event === "train") events.push(event as never);
    },
  });
  return { losses, parts: events[0]!.parts as Record<string, number> };
}

test("the loss of packed rows is the mean KL over all positions, and falls", async () => {
  const { losses } = await firstStep({ logits: 1, hidden: 0, text: 0 });
  const sums = await Promise.all(samples.map(async (each) => (each.ids.length - 1) * (await klByHand(each))));
  const targets = samples.reduce((sum, { ids }) => sum + ids.length - 1, 0);
  expect(losses[0]).toBeCloseTo(sums.reduce((a, b) => a + b) / targets, 4);
  expect(losses.at(-1)).toBeLessThan(0.5 * losses[0]!);
});

test("parts are weighted in the loss and reported as they are", async () => {
  const { losses, parts } = await firstStep({ logits: 2, hidden: 3, text: 0.5 });
  expect(losses[0]).toBeCloseTo(2 * parts.divergence! + 3 * parts.hidden! + 0.5 * parts.text!, 4);
  const alone = await firstStep({ logits: 0, hidden: 0, text: 1 });
  expect(alone.losses[0]).toBeCloseTo(parts.text!, 5);
});

test("a cache of all tokens but one gives the loss of the teacher itself; of few, a smaller one", async () => {
  const [whole, most, few] = [
    await firstStep({ logits: 1, hidden: 0, text: 0 }),
    await firstStep({ logits: 1, hidden: 0, text: 0 }, 23),
    await firstStep({ logits: 1, hidden: 0, text: 0 }, 2),
  ];
  expect(most.losses[0]).toBeCloseTo(whole.losses[0]!, 4);
  expect(most.losses.at(-1)).toBeCloseTo(whole.losses.at(-1)!, 2);
  expect(few.losses[0]).toBeLessThan(whole.losses[0]!);
});

test("a cache goes on where it was killed, without asking again, and a damaged part is an error", async () => {
  const options = await cacheOptions(4, "resumed");
  const first = await teacherCache(options);
  expect([first.found, first.parts]).toEqual([0, 2]);
  rmSync(join(options.directory, "part-00001.bin"));
  const second = await teacherCache(options);
  expect(second.found).toBe(1);
  expect([second.ids, second.logProbs]).toEqual([first.ids, first.logProbs]);
  const third = await teacherCache({ ...options, weights: () => Promise.reject(new Error("asked")) });
  expect(third.found).toBe(2);
  const path = join(options.directory, "part-00000.bin");
  writeFileSync(path, readFileSync(path).subarray(0, 20));
  await expect(teacherCache(options)).rejects.toThrow("remove the file");
  await expect(teacherCache({ ...options, k: 25 })).rejects.toThrow("24 tokens");
});

test("computing activations again changes nothing", async () => {
  const weights = { logits: 1, hidden: 1, text: 1 };
  const [kept, again] = [await firstStep(weights), await firstStep(weights, undefined, true)];
  expect(again.losses).toEqual(kept.losses);
});
