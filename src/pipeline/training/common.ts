/** @module What the methods share: the fields' meaning for the loop, samples set aside, and what is written. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import {
  createRng,
  EspalierError,
  fileExists,
  formatCount,
  mean,
  meanInterval,
  pairedInterval,
  readJson,
  writeJsonAtomic,
} from "../../base/index.js";
import {
  chatTemplateOf,
  isUniform,
  type LoraOptions,
  writeGgufAdapter,
  writeHub,
  writePeft,
} from "../../models/index.js";
import type { Tensors } from "../../runtime/index.js";
import { type ChatTemplate, loadTokenizer, type Tokenizer } from "../../tokenizer/index.js";
import {
  adamw,
  constant,
  cosine,
  type EvaluateOptions,
  linear,
  type PackedModel,
  type RoundOptions,
  readTrainedParameters,
  roundFrozen,
  type Schedule,
  type TrainOptions,
  type TrainResult,
  type Tuning,
  train,
  withWarmUp,
} from "../../train/index.js";
import type { trainingFields } from "./fields.js";
import type { Curve, Measure, MethodWork, OptionsOf } from "./method.js";

export type TrainingFields = OptionsOf<typeof trainingFields>;

/** Tokens of one pass of the gradient at most, which bounds its memory; a step adds up as many passes as its batch takes. */
const passTokens = 512;

/** Rows of one pass, and passes of a step. */
export function passesOf({ batch, length }: Pick<TrainingFields, "batch" | "length">) {
  let rows = Math.min(batch, Math.max(1, Math.floor(passTokens / length)));
  while (batch % rows !== 0) rows -= 1;
  return { rows, accumulate: batch / rows };
}

/** Adapters as the fields say, or none where every weight is trained. */
export function loraOf({ trainable, rank, alpha, targets }: TrainingFields): LoraOptions | undefined {
  return trainable === "all" ? undefined : { rank, alpha, ...(targets && { targets }) };
}

/** What the loss is built for: the model with its frozen weights as the fields say. */
export interface FrozenPart {
  model: PackedModel;
  frozen: Tensors;
  notes: string[];
}

/** The frozen weights as they are, or in 8 bits; then the notes say what that does to the loss of the first samples. */
export async function frozenPart(
  { runtime, stage, options }: Pick<MethodWork<Pick<TrainingFields, "frozen">>, "runtime" | "stage" | "options">,
  { model, ...request }: Omit<RoundOptions, "runtime" | "name">,
  whose = "frozen",
): Promise<FrozenPart> {
  if (options.frozen === "f32") return { model, frozen: request.tuning.frozen as Tensors, notes: [] };
  const { frozen, losses } = await roundFrozen({ ...request, model, runtime, name: `${stage}_${whose}` });
  const { mean: more, low, high } = pairedInterval(losses.int8, losses.f32);
  const interval = `${more.toFixed(4)} (${low.toFixed(4)} to ${high.toFixed(4)}, n ${losses.f32.length})`;
  const start = `${mean(losses.f32).toFixed(3)} nats a token`;
  return {
    model: { ...model, frozen: "int8" },
    frozen,
    notes: [`${whose} matrices in 8 bits while training: at the start the loss of ${start} changed by ${interval}`],
  };
}

export interface ChatTools {
  tokenizer: Tokenizer;
  template: ChatTemplate;
}

/** @throws EspalierError for a model without tokenizer or chat template */
export function chatToolsOf({ model }: Pick<MethodWork<unknown>, "model">): ChatTools {
  if (model.sidecars.chatTemplate === undefined) throw withoutTemplate(model.path);
  const tokenizer = loadTokenizer(model.sidecars.tokenizer, model.path);
  return { tokenizer, template: chatTemplateOf(model, tokenizer) };
}

function withoutTemplate(path: string): EspalierError {
  return new EspalierError({
    where: path,
    expected: "a chat template, to write conversations with",
    found: "a base model without one",
    fix: "name a Jinja file with --chat-template (`chatTemplate` of a recipe), or `plain`",
    exitCode: 2,
  });
}

/**
 * Draws samples to be set aside, seeded; the others keep their order.
 * @throws EspalierError where nothing would be left to train on
 */
export function setAside<S>(samples: readonly S[], count: number, seed: number): { train: S[]; held: S[] } {
  if (samples.length <= count) {
    throw new EspalierError({
      where: "heldOut",
      expected: `fewer than the ${formatCount(samples.length)} samples that there are`,
      found: String(count),
      fix: "give more samples, or set fewer aside",
      exitCode: 2,
    });
  }
  const drawn = createRng(`${seed}/held out`)
    .shuffle(samples.map((_, i) => i))
    .slice(0, count);
  const held = new Set(drawn);
  return { train: samples.filter((_, i) => !held.has(i)), held: samples.filter((_, i) => held.has(i)) };
}

/**
 * The same, drawn evenly over a quantity: one sample out of each of `count` stretches of the samples in its order, so
 * that both parts are alike in it.
 */
export function setAsideEvenly<S>(
  samples: readonly S[],
  count: number,
  seed: number,
  quantity: (sample: S) => number,
): { train: S[]; held: S[] } {
  if (samples.length <= count) return setAside(samples, count, seed);
  const rng = createRng(`${seed}/held out`);
  // Shuffled before, so that which of equal ones are neighbours does not depend on the file.
  const order = rng.shuffle(samples.map((_, i) => i)).sort((a, b) => quantity(samples[a]!) - quantity(samples[b]!));
  const at = (stretch: number) => Math.floor((stretch * samples.length) / count);
  const held = new Set(
    Array.from({ length: count }, (_, i) => order[at(i) + Math.floor(rng.next() * (at(i + 1) - at(i)))]!),
  );
  return { train: samples.filter((_, i) => !held.has(i)), held: samples.filter((_, i) => held.has(i)) };
}

export interface LoopRequest extends Pick<TrainOptions, "parameters" | "frozen" | "loss" | "batches" | "carried"> {
  options: TrainingFields;
  /** Passes of the gradient in an epoch. */
  passesPerEpoch: number;
  accumulate: number;
  /** Where the fields name none. */
  learningRate: number;
  /**
   * Loss of the parameters on samples set aside, or batches of them, measured `evaluations` times on the way. Defaults to
   * no measuring.
   */
  heldOutLoss?: EvaluateOptions["of"];
}

/**
 * Trains as the fields say; interrupted, it goes on from its checkpoint. Afterwards the parameters hold the result: the last
 * state, the moving average (`ema`), or the best one (`keep`).
 */
export async function runLoop(
  { stage, directory, runtime, onEvent, signal }: MethodWork<unknown>,
  { options, passesPerEpoch, accumulate, learningRate, heldOutLoss, ...request }: LoopRequest,
): Promise<TrainResult> {
  const best = join(directory, bestFile);
  const { evaluations, patience, ema, keep } = options;
  const measures = heldOutLoss !== undefined && evaluations > 0;
  const result = await train({
    ...request,
    runtime,
    stage,
    accumulate,
    optimiser: adamw({ weightDecay: options.weightDecay }),
    steps: await stepsOf(options, passesPerEpoch / accumulate, directory),
    learningRate: options.learningRate ?? learningRate,
    schedule: scheduleOf(options),
    clip: options.clip,
    recompute: options.recompute,
    flopsPerToken: flopsPerToken(request),
    ...(ema !== undefined && { average: { decay: ema } }),
    ...(measures && {
      evaluate: {
        every: (steps: number) => Math.ceil(steps / evaluations),
        of: heldOutLoss,
        ...(patience !== undefined && { patience }),
      },
    }),
    checkpoint: { path: join(directory, checkpointFile), ...(measures && keep === "best" && { best }) },
    onEvent,
    signal,
  });
  const { flat } = request.parameters;
  if (measures && keep === "best") await readTrainedParameters(best, flat);
  else if (result.average) flat.set(result.average);
  return result;
}

/** Products of a token through the blocks: 2 operations for each weight forwards and 2 for the slope of its input, 2 more where it is trained. */
function flopsPerToken({ parameters, frozen = {} }: Pick<TrainOptions, "parameters" | "frozen">): number {
  const inBlocks = ([name]: [string, unknown]) => name.startsWith("model.layers.");
  const count = (tensors: Tensors) =>
    Object.entries(tensors)
      .filter(inBlocks)
      .reduce((sum, [, { data }]) => sum + data.length, 0);
  return 4 * count(frozen) + 6 * count(parameters.tensors);
}

/** What a stage leaves only while it works. */
export async function removeWorkFiles(directory: string): Promise<void> {
  for (const name of [checkpointFile, bestFile, boxFile, beforeFile]) await rm(join(directory, name), { force: true });
}

const bestFile = "best.bin";
export const checkpointFile = "checkpoint.bin";
const boxFile = "box.json";
const beforeFile = "before.json";

/** What was measured before the training; an interrupted stage finds it when it goes on. */
export async function measuredBefore<T>({ directory }: MethodWork<unknown>, measure: () => Promise<T>): Promise<T> {
  const path = join(directory, beforeFile);
  if (!(await fileExists(path))) await writeJsonAtomic(path, await measure());
  return (await readJson(path)) as T;
}

/** The bound in steps; minutes are turned into them once, and the answer is kept for a run that goes on. */
async function stepsOf(
  { steps, epochs = 1, minutes }: TrainingFields,
  stepsPerEpoch: number,
  directory: string,
): Promise<TrainOptions["steps"]> {
  if (steps !== undefined) return steps;
  if (minutes === undefined) return Math.max(1, Math.round(epochs * stepsPerEpoch));
  const path = join(directory, boxFile);
  if (await fileExists(path)) return ((await readJson(path)) as { steps: number }).steps;
  return async (secondsPerStep) => {
    const fitting = Math.max(1, Math.floor((60 * minutes) / secondsPerStep));
    await writeJsonAtomic(path, { steps: fitting, secondsPerStep });
    return fitting;
  };
}

function scheduleOf({ schedule, warmUp }: TrainingFields): Schedule {
  const rest = { cosine: cosine({ floor: 0.1 }), linear: linear(), constant: constant() }[schedule];
  return (step, steps) => withWarmUp(Math.ceil(warmUp * steps), rest)(step, steps);
}

/** The loss of each step, and what was measured on the way. */
export function trainingCurves({ losses, measured }: TrainResult, heldOut = "held-out loss"): Curve[] {
  return [
    { name: "loss", x: "step", points: losses.map((loss, i): [number, number] => [i + 1, loss]) },
    { name: heldOut, x: "step", points: measured.map(({ step, loss }): [number, number] => [step, loss]) },
  ];
}

/** What ended the training and which state was kept, in words. */
export function endNotes({ keep, patience }: TrainingFields, { steps, best, measured }: TrainResult): string[] {
  const stopped = patience !== undefined && measured.length > 0 && measured.at(-1)!.step === steps;
  return [
    `${steps} steps`,
    ...(keep === "best" && best ? [`the state of step ${best.step} is kept, the best on samples set aside`] : []),
    ...(stopped && best && best.step < steps ? [`best at step ${best.step}; ended at ${steps}`] : []),
  ];
}

/** Before and after on the same samples. */
export function comparedMeasure(
  about: Pick<Measure, "name" | "better"> & Partial<Pick<Measure, "unit" | "note">>,
  before: readonly number[],
  after: readonly number[],
): Measure {
  return {
    ...about,
    before: meanInterval(before),
    after: meanInterval(after),
    difference: pairedInterval(after, before),
  };
}

/** Writes the whole model, and the adapter where one was trained: in PEFT's format, and for llama.cpp where blocks are alike. */
export async function writeTuned({ directory, model }: MethodWork<unknown>, tuning: Tuning): Promise<void> {
  await writeHub(tuning.tuned(), join(directory, "model"), { overwrite: true, name: model.sidecars.name });
  const adapter = tuning.adapter();
  if (!adapter) return;
  await writePeft(adapter, join(directory, "adapter"), { baseModel: model.sidecars.name });
  if (isUniform(model.config)) await writeGgufAdapter(model, adapter, join(directory, "adapter.gguf"));
}
