/** @module Preference training on packed rows: the reference finds its tokens, passes add up, the start is the reference. */
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createRng } from "../base/index.js";
import { temporaryDirectory } from "../base/testing.js";
import type { BranchedSample, TokenSample } from "../data/index.js";
import { resolveLora } from "../models/index.js";
import { createTestModel, gqa, referenceLogits, swiglu, testConfig } from "../models/testing.js";
import { createRuntime, type Runtime } from "../runtime/index.js";
import {
  adamw,
  createSampleScorer,
  createStep,
  openTuning,
  type PackedShape,
  packedLoss,
  type SampleScorer,
  train,
} from "../train/index.js";
import {
  createReferenceKl,
  differingPairs,
  largestGap,
  type PackedObjective,
  type PreferenceSample,
  preferenceBatches,
  preferenceObjective,
  referenceLogProbs,
  rewardAwareObjective,
  scorePair,
  scorePairs,
} from "./index.js";

const config = testConfig({ vocabSize: 40, blocks: [{ attention: gqa(2), ffn: swiglu(48) }] });
const model = createTestModel(config, 3);
const other = createTestModel(config, 4);
const lora = resolveLora(config, { rank: 4 });
const directory = temporaryDirectory();
let runtime: Runtime;
beforeAll(async () => {
  runtime = await createRuntime({ threads: 1 });
});
afterAll(() => runtime.dispose());

const rng = createRng("pairs");
const tokens = (length: number) => Int32Array.from({ length }, () => 1 + rng.int(39));
const answer = (length: number): TokenSample => ({ ids: tokens(length), learn: new Uint8Array(length).fill(1) });
const pairs: BranchedSample[] = Array.from({ length: 5 }, (_, i) => ({
  prompt: tokens(3 + i),
  branches: [answer(2 + i), { ...answer(5), learn: Uint8Array.of(0, 1, 1, 0, 1) }],
}));
const gaps = [1, -0.5, 2, 0.25, 3];

const wide: PackedShape = { batch: 5, length: 24, targets: 64, sequences: 12 };
const narrow: PackedShape = { batch: 1, length: 24, targets: 16, sequences: 4 };

/** The model's own log-probabilities, moved by known amounts, so that no log-ratio is 0. */
async function samplesOf(shape: PackedShape, moved: number): Promise<PreferenceSample[]> {
  const tuning = await openTuning(model, { lora });
  const scores = await scorePairs(createSampleScorer(runtime, "own", { config, lora }, shape), pairs, tuning.weights());
  return pairs.map((pair, i) => {
    const [chosen, rejected] = scores[i]!;
    const shift = (x: Float32Array, by: number) => x.map((value, t) => value + by * (1 + t + i));
    return { pair, reference: [shift(chosen, moved), shift(rejected, -2 * moved)], gap: gaps[i]! };
  });
}

/** Loss, parts and gradient of one step over all pairs, in as many passes as the shape needs. */
async function stepOver(samples: PreferenceSample[], shape: PackedShape, objective: PackedObjective) {
  const tuning = await openTuning(model, { trainable: "all" });
  const { passesPerEpoch: passes } = preferenceBatches(samples, shape, { seed: 1 });
  const { batches } = preferenceBatches(samples, shape, { seed: 1, accumulate: passes });
  const gradients = new Float32Array(tuning.parameters.layout.size);
  const loss = packedLoss({ config, shape, lossOf: objective });
  const step = createStep(runtime, "step", tuning.parameters, gradients, loss);
  const drawn = await Promise.all(Array.from({ length: passes }, (_, i) => batches(i)));
  const total = drawn.reduce((sum, { weight }) => sum + weight, 0);
  const sum: Record<string, number> = { loss: 0 };
  for (const [i, { feeds }] of drawn.entries()) {
    const result = await step.run(feeds, total, i === 0);
    for (const [name, value] of Object.entries({ loss: result.loss, ...result.parts }))
      sum[name] = (sum[name] ?? 0) + value;
  }
  return { passes, total, gradients, sum };
}

const softplus = (x: number) => Math.log1p(Math.exp(x));
const meanOf = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;

/** D of each pair, from the amounts by which the references were moved. */
const moved = 0.05;
const triangle = (length: number, i: number) => length * i + (length * (length + 1)) / 2;
const differences = pairs.map(
  ({ branches: [chosen] }, i) => -moved * triangle(chosen!.ids.length, i) - 2 * moved * triangle(3, i),
);

describe("a step over packed pairs", () => {
  test("has the loss, margin and accuracy that the log-ratios give by hand", async () => {
    const { sum, total } = await stepOver(await samplesOf(wide, moved), wide, preferenceObjective({ beta: 0.3 }, wide));
    expect(total).toBe(5);
    expect(sum.loss).toBeCloseTo(meanOf(differences.map((d) => softplus(-0.3 * d))), 5);
    expect(sum.margin).toBeCloseTo(0.3 * meanOf(differences), 5);
    expect(sum.accuracy).toBe(0);
  });

  test("draws each pair to its own reward gap in RPO", async () => {
    const objective = rewardAwareObjective({ distance: "sq", beta: 0.3, eta: 2 }, wide);
    const { sum } = await stepOver(await samplesOf(wide, moved), wide, objective);
    expect(sum.loss).toBeCloseTo(meanOf(differences.map((d, i) => (0.3 * d - 2 * gaps[i]!) ** 2)), 4);
  });

  test.each([
    ["dpo with sft over all tokens", (s: PackedShape) => preferenceObjective({ sft: { weight: 0.5 } }, s)],
    ["ipo by sums", (s: PackedShape) => preferenceObjective({ kind: "ipo", compat: "nemo-rl" }, s)],
    ["rpo with sft by pairs", (s: PackedShape) => rewardAwareObjective({ compat: "aligner", sft: { weight: 0.1 } }, s)],
  ])("%s: passes of a few pairs add up to one pass over all", async (_, objective) => {
    const samples = await samplesOf(wide, moved);
    const [one, several] = [
      await stepOver(samples, wide, objective(wide)),
      await stepOver(samples, narrow, objective(narrow)),
    ];
    expect([one.passes, several.passes > 2]).toEqual([1, true]);
    for (const [name, value] of Object.entries(one.sum)) {
      expect(Math.abs(several.sum[name]! - value)).toBeLessThan(1e-5 * (1 + Math.abs(value)));
    }
    const largest = one.gradients.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    const off = one.gradients.reduce((most, x, i) => Math.max(most, Math.abs(x - several.gradients[i]!)), 0);
    expect(largest).toBeGreaterThan(1e-3);
    expect(off / largest).toBeLessThan(1e-4);
  });

  test("begins at its reference: with a new adapter every margin is 0 and the loss log 2, in the same packing", async () => {
    const samples = await samplesOf(wide, 0);
    const { sum } = await stepOver(samples, wide, preferenceObjective({ beta: 1 }, wide));
    expect(sum.margin).toBe(0);
    expect(sum.loss).toBe(Math.fround(Math.log(2)));
  });

  test("and in another packing to rounding", async () => {
    const { sum } = await stepOver(await samplesOf(wide, 0), narrow, preferenceObjective({ beta: 1 }, narrow));
    expect(Math.abs(sum.margin!)).toBeLessThan(1e-5);
  });
});

test("training raises the chosen answers' log-ratios above the rejected ones'", async () => {
  const tuning = await openTuning(model, { lora, seed: 1 });
  const samples = await samplesOf(wide, 0);
  const { batches } = preferenceBatches(samples, wide, { seed: 1 });
  const loss = packedLoss({ config, lora, shape: wide, lossOf: preferenceObjective({ beta: 0.2 }, wide) });
  const { losses } = await train({
    runtime,
    stage: "dpo",
    parameters: tuning.parameters,
    frozen: tuning.frozen,
    loss,
    batches,
    optimiser: adamw({ weightDecay: 0 }),
    steps: 30,
    learningRate: 0.01,
  });
  expect(losses.at(-1)).toBeLessThan(0.1);
  const scored = await scorePairs(
    createSampleScorer(runtime, "after", { config, lora }, wide),
    pairs,
    tuning.weights(),
  );
  const scores = scored.map((own, i) => scorePair(own, samples[i]!.reference));
  for (const { chosenRatio, rejectedRatio, k3 } of scores) {
    expect(chosenRatio - rejectedRatio).toBeGreaterThan(5);
    expect(k3).toBeGreaterThan(0);
  }
});

test("a pair's score: sums, log-ratios, k3", () => {
  const reference = [Float32Array.of(-1, -2), Float32Array.of(-0.5)] as const;
  const score = scorePair([Float32Array.of(-0.5, -1.5), Float32Array.of(-1.5)], reference);
  expect(score).toMatchObject({ chosen: -2, rejected: -1.5, chosenRatio: 1, rejectedRatio: -1, chosenLength: 2 });
  const k3 = (r: number) => Math.exp(r) - 1 - r;
  expect(score.k3).toBeCloseTo((2 * k3(-0.5) + k3(1)) / 3, 12);
});

describe("the reference's file", () => {
  const many = Array.from({ length: 300 }, (_, i) => pairs[i % pairs.length]!);
  const counting = async (refuseAfter = Number.POSITIVE_INFINITY) => {
    const score = createSampleScorer(runtime, "reference", { config }, wide);
    const calls: number[] = [];
    const counted: SampleScorer = async (samples, weights) => {
      if (calls.length >= refuseAfter) throw new Error("stopped");
      calls.push(samples.length);
      return score(samples, weights);
    };
    return { counted, calls };
  };

  test("is gone on with after a stop, and not computed again when it is whole", async () => {
    const weights = (await openTuning(model)).weights();
    const place = { path: join(directory, "reference.safetensors"), stage: "dpo" };
    const first = await counting(1);
    await expect(referenceLogProbs(first.counted, many, weights, place)).rejects.toThrow("stopped");
    const second = await counting();
    const scores = await referenceLogProbs(second.counted, many, weights, place);
    expect(second.calls).toEqual([128, 44]);
    const third = await counting(0);
    const again = await referenceLogProbs(third.counted, many, weights, place);
    expect(again).toEqual(scores);
    const fresh = { ...place, path: join(directory, "fresh.safetensors") };
    expect(largestGap(await referenceLogProbs((await counting()).counted, many, weights, fresh), scores)).toBe(0);
  });

  test("of other weights or pairs is refused", async () => {
    const place = { path: join(directory, "reference.safetensors"), stage: "dpo" };
    const { counted } = await counting();
    const [own, foreign] = [(await openTuning(model)).weights(), (await openTuning(other)).weights()];
    await expect(referenceLogProbs(counted, many, foreign, place)).rejects.toThrow("those of others");
    await expect(referenceLogProbs(counted, many.slice(1), own, place)).rejects.toThrow("those of others");
  });
});

test("KL from the reference is the sum over the vocabulary", async () => {
  const [own, foreign] = [(await openTuning(model)).weights(), (await openTuning(other)).weights()];
  const options = { policy: { config }, reference: { config }, shape: narrow };
  const kl = createReferenceKl(runtime, "kl", options);
  expect((await kl(pairs, own, own)).every((value) => value === 0)).toBe(true);
  const [found] = await kl(pairs.slice(0, 1), own, foreign);
  const { prompt, branches } = pairs[0]!;
  const terms: number[] = [];
  for (const { ids, learn } of branches) {
    const all = [...prompt, ...ids];
    const [p, q] = [await referenceLogits(model, all), await referenceLogits(other, all)];
    ids.forEach((_, i) => {
      if (learn[i] === 1) terms.push(divergence(p, q, prompt.length + i - 1));
    });
  }
  expect(found).toBeCloseTo(meanOf(terms), 4);
});

function divergence(p: Float64Array, q: Float64Array, place: number): number {
  const row = (logits: Float64Array) => {
    const own = logits.subarray(40 * place, 40 * (place + 1));
    const logSum = Math.log(own.reduce((sum, x) => sum + Math.exp(x), 0));
    return Array.from(own, (x) => x - logSum);
  };
  const [a, b] = [row(p), row(q)];
  return a.reduce((sum, x, i) => sum + Math.exp(x) * (x - b[i]!), 0);
}

test("pairs that a cut made equal are left out, and an error where all are", () => {
  const same = answer(3);
  const equal: BranchedSample = { prompt: tokens(2), branches: [same, { ...same }] };
  expect(differingPairs([pairs[0]!, equal, pairs[1]!], "pairs")).toEqual({ kept: [0, 2], equal: 1 });
  expect(() => differingPairs([equal], "pairs")).toThrow("equal answers alone");
  expect(() => differingPairs([{ prompt: tokens(2), branches: [same] }], "pairs")).toThrow("two answers");
});
