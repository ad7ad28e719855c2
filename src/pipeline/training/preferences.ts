/** @module What methods on preference pairs share: the pairs, their reference, the loop and what is measured. */
import { join } from "node:path";
import {
  type ChosenReduction,
  type Compat,
  createReferenceKl,
  differingPairs,
  largestGap,
  type ObjectiveOptions,
  type PackedObjective,
  type PairLogProbs,
  type PairScore,
  type PreferenceSample,
  preferenceBatches,
  referenceLogProbs,
  scorePair,
  scorePairs,
} from "../../align/index.js";
import { EspalierError, z } from "../../base/index.js";
import {
  type BranchedSample,
  limitLength,
  type PreferencePair,
  readPreferencePairs,
  renderPair,
} from "../../data/index.js";
import type { Tensors } from "../../runtime/index.js";
import {
  type Batch,
  createSampleScorer,
  fitShape,
  openTuning,
  type PackedModel,
  type PackedShape,
  packedLoss,
  type SampleScorer,
  type Tuning,
} from "../../train/index.js";
import {
  chatToolsOf,
  comparedMeasure,
  endNotes,
  frozenPart,
  loraOf,
  passesOf,
  runLoop,
  setAside,
  trainingCurves,
  writeTuned,
} from "./common.js";
import { sampleFields, trainingFields } from "./fields.js";
import type { Measure, MethodOutcome, MethodWork, OptionsOf } from "./method.js";

const compats = ["trl", "aligner", "nemo-rl", "openrlhf"] as const satisfies readonly Compat[];
const reductions = ["sum", "mean", "tokens"] as const satisfies readonly ChosenReduction[];

export const preferenceFields = {
  ...sampleFields,
  ...trainingFields,
  length: trainingFields.length.describe(
    "Tokens of a packed row, and the most of a pair: its prompt and both answers together.",
  ),
  badLines: z
    .enum(["refuse", "drop"])
    .default("refuse")
    .describe("What becomes of lines that are no pair: empty or equal answers, one score of two."),
  beta: z.number().positive().default(0.1).describe("Strength of the tie to the reference."),
  compat: z
    .enum(compats)
    .default("trl")
    .describe("Whose convention holds where libraries differ: IPO's log-ratios, the mean of the added SFT loss."),
  average: z.boolean().default(false).describe("Divide log-ratios by the number of an answer's tokens."),
  sftWeight: z
    .number()
    .min(0)
    .default(0)
    .describe("Factor of the loss of supervised fine-tuning on chosen answers that is added."),
  sftReduction: z
    .enum(reductions)
    .optional()
    .describe("Mean over pairs of the sum or mean over tokens, or mean over all tokens; default: by `compat`."),
} satisfies z.ZodRawShape;

export type PreferenceFields = OptionsOf<typeof preferenceFields>;

/** Peak rates where none is named. */
const learningRates = { lora: 5e-5, all: 5e-7 };

/** What the options say about the terms of the loss. */
export function termsOf({ beta, compat, average, sftWeight, sftReduction }: PreferenceFields) {
  const sft: ObjectiveOptions["sft"] =
    sftWeight === 0 ? undefined : { weight: sftWeight, ...(sftReduction && { reduction: sftReduction }) };
  return { beta, compat, average, ...(sft && { sft }) };
}

export interface PreferenceRequest {
  objective: (shape: PackedShape) => PackedObjective;
  /** Reward of the chosen answer less that of the rejected one; losses without rewards have none. */
  gapOf?: (pair: PreferencePair) => number;
  /** Whether the loss compares the pairs of a pass with each other, so that a step must be one pass. */
  onePass?: boolean;
}

/** A pair as tokens, with its reward gap. */
interface PreparedPair {
  sample: BranchedSample;
  gap: number;
}

/** Reads pairs, scores them once under the reference (the model that the stage begins with), trains and measures. */
export async function trainOnPairs(
  work: MethodWork<PreferenceFields>,
  request: PreferenceRequest,
): Promise<MethodOutcome> {
  const { options, model, seed, runtime, stage, directory, onEvent, signal } = work;
  const { train, held, notes } = await preparePairs(work, request.gapOf ?? (() => 0));
  const { rows, accumulate } = request.onePass ? { rows: options.batch, accumulate: 1 } : passesOf(options);
  const all = [...train, ...held].map(({ sample }) => sample);
  const shape = fitShape(all, { batch: rows, length: options.length });
  const lora = loraOf(options);
  const tuning = await openTuning(model, { seed, ...(lora && { lora }) });
  const packedModel: PackedModel = { config: model.config, ...(tuning.lora && { lora: tuning.lora }) };
  const rounded = await frozenPart(work, { model: packedModel, shape, tuning, samples: all });
  const scorer = createSampleScorer(runtime, `${stage}_scores`, rounded.model, shape, signal);
  const path = join(directory, "reference.safetensors");
  const trained = { ...rounded.frozen, ...tuning.parameters.tensors };
  const reference = await referenceLogProbs(scorer, all, trained, { path, stage, onEvent });
  await checkStart(scorer, all, reference, trained, stage);
  const sampled = [...train, ...held].map(({ sample, gap }, i) => ({ pair: sample, reference: reference[i]!, gap }));
  const { batches, passesPerEpoch, fill } = preferenceBatches(sampled.slice(0, train.length), shape, {
    seed,
    accumulate,
  });
  const plain = createSampleScorer(runtime, `${stage}_scores`, packedModel, shape, signal);
  const heldPairs = held.map(({ sample }) => sample);
  const known = options.frozen === "f32" || held.length === 0;
  const start = known ? reference.slice(train.length) : await scorePairs(plain, heldPairs, tuning.weights());
  const result = await runLoop(work, {
    options,
    parameters: tuning.parameters,
    frozen: rounded.frozen,
    loss: packedLoss({ ...rounded.model, shape, lossOf: request.objective(shape) }),
    batches,
    passesPerEpoch,
    accumulate,
    learningRate: learningRates[options.trainable],
    ...(held.length > 0 && { heldOutLoss: wholePass(sampled.slice(train.length), shape) }),
  });
  const measured = { held, start, scorer: plain, tuning, packedModel, shape };
  const measures = held.length === 0 ? [] : await measure(work, measured);
  await writeTuned(work, tuning);
  const filled = `${(100 * fill).toFixed(1)} % of the packed places hold tokens`;
  return {
    measures,
    curves: trainingCurves(result),
    notes: [...notes, ...rounded.notes, ...endNotes(options, result), filled],
  };
}

/** Batches that hold every pair once. */
function wholePass(samples: readonly PreferenceSample[], shape: PackedShape): Batch[] {
  const { passesPerEpoch: passes } = preferenceBatches(samples, shape, { seed: 0 });
  const { batches } = preferenceBatches(samples, shape, { seed: 0, accumulate: passes });
  return Array.from({ length: passes }, (_, i) => batches(i));
}

async function preparePairs(work: MethodWork<PreferenceFields>, gapOf: (pair: PreferencePair) => number) {
  const { options, seed, stage, onEvent } = work;
  const { tokenizer, template } = chatToolsOf(work);
  const read = (path: string) => readPreferencePairs(path, { bad: options.badLines, onEvent });
  const pairs = (await Promise.all(options.data.map(read))).flat();
  const rendered = pairs.map((pair) => ({ sample: renderPair(template, tokenizer, pair), gap: gapOf(pair) }));
  const { samples, indices } = limitLength(
    rendered.map(({ sample }) => sample),
    { length: options.length, policy: options.overlong, where: stage, onEvent },
  );
  const { kept, equal } = differingPairs(samples, stage);
  const fitting = kept.map((i) => ({ sample: samples[i]!, gap: rendered[indices[i]!]!.gap }));
  const { train, held } = setAside<PreparedPair>(fitting, options.heldOut, seed);
  const left = [
    ...(samples.length < pairs.length ? [`${pairs.length - samples.length} too long`] : []),
    ...(equal > 0 ? [`${equal} whose answers are the same after the cut`] : []),
  ];
  const notes = [
    `${train.length} pairs to learn from, ${held.length} set aside${left.length > 0 ? `; left out: ${left.join(", ")}` : ""}`,
  ];
  return { train, held, notes };
}

/** Most that a token's log-probability may differ from the reference's before the first step: rounding, no more. */
const startTolerance = 1e-3;

/** @throws EspalierError where the policy at its start is not the reference */
async function checkStart(
  scorer: SampleScorer,
  pairs: readonly BranchedSample[],
  reference: readonly PairLogProbs[],
  weights: Tensors,
  stage: string,
): Promise<void> {
  const some = pairs.slice(0, 4);
  const gap = largestGap(await scorePairs(scorer, some, weights), reference);
  if (gap <= startTolerance) return;
  const expected = `log-ratios of 0 (within ${startTolerance}) before the first step`;
  throw new EspalierError({ where: stage, expected, found: `${gap}`, fix: "delete the stage's reference.safetensors" });
}

interface MeasureRequest {
  held: readonly PreparedPair[];
  /** Of the reference. */
  start: readonly PairLogProbs[];
  scorer: SampleScorer;
  tuning: Tuning;
  packedModel: PackedModel;
  shape: PackedShape;
}

async function measure(work: MethodWork<PreferenceFields>, request: MeasureRequest): Promise<Measure[]> {
  const { held, start, scorer, tuning } = request;
  const pairs = held.map(({ sample }) => sample);
  const scored = await scorePairs(scorer, pairs, tuning.weights());
  const before = start.map((own) => scorePair(own, own));
  const after = scored.map((own, i) => scorePair(own, start[i]!));
  const kl = await heldOutKl(work, request, pairs);
  return [...accuracies(before, after), ...margins(before, after, work.options.beta), ...distances(after, kl)];
}

type Scores = readonly PairScore[];
const share = (holds: boolean) => Number(holds);

function accuracies(before: Scores, after: Scores): Measure[] {
  const of = (scores: Scores, holds: (score: PairScore) => boolean) => scores.map((score) => share(holds(score)));
  const likelier = (score: PairScore) => score.chosen > score.rejected;
  const byToken = (s: PairScore) => s.chosen / s.chosenLength > s.rejected / s.rejectedLength;
  const raised = (score: PairScore) => score.chosenRatio > score.rejectedRatio;
  // Every log-ratio is 0 at the start, which prefers neither answer.
  const chance = before.map(() => 0.5);
  return [
    comparedMeasure(
      { name: "preference accuracy", better: "up", note: "implicit reward of the chosen answer is the greater one" },
      chance,
      of(after, raised),
    ),
    comparedMeasure({ name: "chosen likelier", better: "up" }, of(before, likelier), of(after, likelier)),
    comparedMeasure({ name: "chosen likelier by token", better: "up" }, of(before, byToken), of(after, byToken)),
  ];
}

function margins(before: Scores, after: Scores, beta: number): Measure[] {
  const compared = (name: string, unit: string, of: (score: PairScore) => number, better: Measure["better"]) =>
    comparedMeasure({ name, unit, better }, before.map(of), after.map(of));
  return [
    compared("reward margin", "beta nats", (s) => beta * (s.chosenRatio - s.rejectedRatio), "up"),
    compared("log-probability of chosen", "nats a token", (s) => s.chosen / s.chosenLength, "neither"),
    compared("log-probability of rejected", "nats a token", (s) => s.rejected / s.rejectedLength, "neither"),
    compared("chosen longer by", "tokens", (s) => s.chosenLength - s.rejectedLength, "neither"),
  ];
}

function distances(after: Scores, kl: readonly number[]): Measure[] {
  const zeros = kl.map(() => 0);
  const about = { unit: "nats a token", better: "neither" } as const;
  const k3 = after.map((score) => score.k3);
  return [
    comparedMeasure({ name: "KL from the reference", ...about, note: "over the whole vocabulary" }, zeros, kl),
    comparedMeasure(
      { name: "k3 on held-out tokens", ...about, note: "an estimate from the answers' own tokens" },
      zeros,
      k3,
    ),
  ];
}

async function heldOutKl(
  { runtime, model, stage, signal }: MethodWork<PreferenceFields>,
  { tuning, packedModel, shape }: MeasureRequest,
  pairs: readonly BranchedSample[],
): Promise<number[]> {
  const reference: PackedModel = { config: model.config };
  const kl = createReferenceKl(runtime, `${stage}_kl`, { policy: packedModel, reference, shape, signal });
  // Trained weights have taken the place of the model's own, unless they stand beside them.
  const weights = tuning.lora ? tuning.frozen : (await openTuning(model)).weights();
  return kl(pairs, tuning.weights(), weights);
}
