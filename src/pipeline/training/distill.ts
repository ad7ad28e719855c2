import { rm } from "node:fs/promises";
import { join } from "node:path";
import { EspalierError, mean, z } from "../../base/index.js";
import { createPackedBatches, type TokenSample } from "../../data/index.js";
import { type Model, modelWeights, openModel } from "../../models/index.js";
import type { Tensors } from "../../runtime/index.js";
import { loadTokenizer, type Tokenizer } from "../../tokenizer/index.js";
import {
  cachedFeeds,
  createKlScorer,
  createParameters,
  createSampleScorer,
  loadParameters,
  openTuning,
  type PackedShape,
  packedDistillation,
  parentPrefix,
  positionFeeds,
  type TeacherCache,
  teacherCache,
} from "../../train/index.js";
import {
  comparedMeasure,
  endNotes,
  type FrozenPart,
  frozenPart,
  loraOf,
  passesOf,
  runLoop,
  trainingCurves,
  writeTuned,
} from "./common.js";
import { boundProblems, files, sampleFields, trainingFields } from "./fields.js";
import { defineMethod, type MethodWork, type OptionsOf } from "./method.js";
import { readMixedSamples } from "./text-samples.js";

const weight = (fallback: number, what: string) => z.number().min(0).default(fallback).describe(what);

const fields = {
  teacher: z.string().min(1).describe("Model that is learnt from, with the same tokenizer."),
  data: files("Text, or conversations (.jsonl), of which what the assistant writes counts; several files are mixed."),
  heldOut: z.int().min(0).default(32).describe("Samples of each file that are set aside."),
  overlong: sampleFields.overlong,
  ...trainingFields,
  trainable: trainingFields.trainable
    .unwrap()
    .default("all")
    .describe("What is trained: every weight, or low-rank adapters beside frozen matrices."),
  divergence: z
    .enum(["forward", "reverse", "js", "mixed"])
    .default("forward")
    .describe("Between next-token distributions: KL(teacher || student), the reverse, Jensen-Shannon, both KLs."),
  mix: z.number().min(0).max(1).default(0.5).describe("Beta of `js`; share of the forward KL in `mixed`."),
  temperature: z.number().positive().default(1).describe("Divides both sets of logits; the loss is times its square."),
  logitWeight: weight(1, "Share of the divergence in the loss."),
  hiddenWeight: weight(0, "Share of the cosine distance of hidden states; needs equal width and depth."),
  textWeight: weight(0, "Share of the language-modelling loss."),
  topK: z
    .int()
    .min(1)
    .optional()
    .describe("Keep this many of the teacher's tokens a position on disk first, and train without the teacher."),
};

type DistillOptions = OptionsOf<typeof fields>;

const learningRates = { lora: 5e-4, all: 2e-4 };

/** A student learns a teacher's distributions. */
export const distill = defineMethod({
  group: "train",
  summary: "teach a model another one's distributions (distillation)",
  example: "out/child/model --teacher models/base --data books.txt --minutes 30 --out out/recovered",
  fields,
  inputs: { teacher: "model", data: "file" },
  makes: "policy",
  version: 1,
  problems: (options) => [...boundProblems({ ...options, trainable: "lora" }), ...lossProblems(options)],
  async run(work) {
    const { options, model, seed, runtime, stage, signal } = work;
    const teacher = await openTeacher(work);
    const { train, held } = await readMixedSamples(work, options.data, { ...work, ...options });
    const { rows, accumulate } = passesOf(options);
    const shape = { batch: rows, length: options.length, targets: rows * options.length, sequences: rows * 64 };
    const cache = await cacheOf(work, teacher, train, shape);
    const lora = loraOf(options);
    const tuning = await openTuning(model, { seed, ...(lora && { lora }) });
    const student = { config: model.config, ...(tuning.lora && { lora: tuning.lora }) };
    const klOf = createKlScorer(runtime, `${stage}_kl`, { student, teacher: teacher.model.config }, shape, signal);
    const lossOf = createSampleScorer(runtime, `${stage}_scores`, student, shape, signal);
    const measure = async (weights: Tensors) => ({
      kl: held.length > 0 ? await klOf(held, { ...weights, ...(await teacher.weights()) }) : [],
      loss: held.length > 0 ? meansOf(await lossOf(held, weights)) : [],
    });
    const before = await measure(tuning.weights());
    const packed = createPackedBatches(train, shape, { seed });
    const { steps: passesPerEpoch, fill } = packed.passOf(0);
    const asksTeacher = !cache && options.logitWeight + options.hiddenWeight > 0;
    const request = { shape, samples: train };
    const own: FrozenPart = lora
      ? await frozenPart(work, { ...request, model: student, tuning })
      : { model: student, frozen: tuning.frozen, notes: [] };
    const its = asksTeacher ? await teacherPart(work, teacher, request) : undefined;
    const result = await runLoop(work, {
      options,
      parameters: tuning.parameters,
      frozen: { ...own.frozen, ...its?.frozen },
      loss: packedDistillation({
        ...options,
        student: own.model,
        shape,
        teacher: cache ? { cached: cache.k } : (its?.model ?? { config: teacher.model.config }),
        weights: { logits: options.logitWeight, hidden: options.hiddenWeight, text: options.textWeight },
      }),
      batches: (index) =>
        cache ? cachedFeeds(packed.at(index), shape, cache) : positionFeeds(packed.at(index), shape),
      passesPerEpoch,
      accumulate,
      learningRate: learningRates[options.trainable],
      ...(held.length > 0 && {
        heldOutLoss: async ({ tensors }) =>
          mean(await klOf(held, { ...tuning.frozen, ...tensors, ...(await teacher.weights()) })),
      }),
    });
    const after = await measure(tuning.weights());
    await writeTuned(work, tuning);
    await teacher.model.close();
    await rm(join(work.directory, cacheDirectory), { recursive: true, force: true });
    const perStep = Math.round(fill * options.batch * options.length);
    const [loss, kl] = trainingCurves(result, "held-out KL");
    return {
      measures: held.length === 0 ? [] : measuresOf(before, after),
      curves: [
        loss!,
        { ...kl!, unit: "nats a token", x: "tokens", points: kl!.points.map(([step, y]) => [step * perStep, y]) },
      ],
      notes: [
        `${train.length} samples to learn from, ${held.length} set aside; about ${perStep * result.steps} tokens read`,
        ...(cache ? [cacheNote(cache)] : []),
        ...own.notes,
        ...(its?.notes ?? []),
        ...endNotes(options, result),
      ],
    };
  },
});

/** The teacher's weights as training reads them, as `parent/NAME`. */
async function teacherPart(
  work: MethodWork<DistillOptions>,
  teacher: OpenTeacher,
  request: { shape: PackedShape; samples: readonly TokenSample[] },
): Promise<FrozenPart> {
  const weights = withoutPrefix(await teacher.weights());
  const tuning = { weights: () => weights, frozen: weights, parameters: { tensors: {} } };
  const part = await frozenPart(work, { ...request, model: { config: teacher.model.config }, tuning }, "the teacher's");
  const prefixed = Object.entries(part.frozen).map(([name, x]) => [parentPrefix + name, x] as const);
  return { ...part, frozen: Object.fromEntries(prefixed) };
}

const cacheDirectory = "teacher-cache";

function lossProblems({ topK, hiddenWeight, logitWeight, textWeight }: DistillOptions) {
  const problems: { field: string; message: string }[] = [];
  if (logitWeight + hiddenWeight + textWeight === 0)
    problems.push({ field: "logitWeight", message: "one of logitWeight, hiddenWeight and textWeight must be above 0" });
  if (topK !== undefined && hiddenWeight > 0)
    problems.push({ field: "hiddenWeight", message: "needs the teacher's hidden states, which topK does not keep" });
  if (topK !== undefined && logitWeight === 0)
    problems.push({ field: "topK", message: "has no use without a logitWeight" });
  return problems;
}

interface OpenTeacher {
  model: Model;
  /** As `parent/NAME`; read anew each time where training does without them. */
  weights(): Promise<Tensors>;
}

/** @throws EspalierError for a teacher whose tokens, or for hidden states whose sizes, are others than the student's */
async function openTeacher({ options, model }: MethodWork<DistillOptions>): Promise<OpenTeacher> {
  const teacher = await openModel(options.teacher);
  checkTokens(model, teacher);
  if (options.hiddenWeight > 0) checkSizes(model, teacher);
  const read = async () => {
    const parameters = createParameters(modelWeights(teacher.config));
    await loadParameters(parameters, (name) => teacher.weights.read(name));
    return Object.fromEntries(Object.entries(parameters.tensors).map(([name, x]) => [parentPrefix + name, x]));
  };
  const kept = options.topK === undefined ? await read() : undefined;
  return { model: teacher, weights: async () => kept ?? read() };
}

function checkTokens(student: Model, teacher: Model): void {
  const where = `teacher ${teacher.path}`;
  const fix = "distributions over other tokens cannot be compared: choose a teacher of the same family";
  const [mine, its] = [student, teacher].map(({ sidecars, path }) => loadTokenizer(sidecars.tokenizer, path));
  const sizes = [student.config.vocabSize, teacher.config.vocabSize];
  const at = firstDifference(mine!, its!, Math.min(...sizes));
  const shown = (tokenizer: Tokenizer) => JSON.stringify(tokenizer.idToToken(at!) ?? "no token");
  if (at !== undefined) {
    const expected = `the student's tokenizer, in which token ${at} is ${shown(mine!)}`;
    throw new EspalierError({ where, expected, found: shown(its!), fix, exitCode: 2 });
  }
  if (sizes[0] === sizes[1]) return;
  const expected = `a head of ${sizes[0]} rows, as the student has`;
  throw new EspalierError({ where, expected, found: String(sizes[1]), fix, exitCode: 2 });
}

function firstDifference(a: Tokenizer, b: Tokenizer, count: number): number | undefined {
  for (let id = 0; id < count; id++) if (a.idToToken(id) !== b.idToToken(id)) return id;
  return undefined;
}

function checkSizes({ config: student }: Model, { config: teacher, path }: Model): void {
  const sizeOf = ({ hiddenSize, blocks }: Model["config"]) => `width ${hiddenSize} and ${blocks.length} layers`;
  if (sizeOf(student) === sizeOf(teacher)) return;
  throw new EspalierError({
    where: `teacher ${path}`,
    expected: `${sizeOf(student)}, as the student has, so that hidden states can be compared`,
    found: sizeOf(teacher),
    fix: "leave hiddenWeight at 0",
    exitCode: 2,
  });
}

async function cacheOf(
  { options, runtime, stage, directory, onEvent, signal }: MethodWork<DistillOptions>,
  teacher: OpenTeacher,
  samples: readonly TokenSample[],
  shape: PackedShape,
): Promise<TeacherCache | undefined> {
  if (options.topK === undefined) return undefined;
  let kept: Tensors | undefined;
  const weights = async () => {
    kept ??= withoutPrefix(await teacher.weights());
    return kept;
  };
  return teacherCache({
    runtime,
    stage,
    teacher: teacher.model,
    weights,
    samples,
    shape,
    k: options.topK,
    temperature: options.temperature,
    directory: join(directory, cacheDirectory),
    onEvent,
    signal,
  });
}

function withoutPrefix(weights: Tensors): Tensors {
  return Object.fromEntries(Object.entries(weights).map(([name, x]) => [name.slice(parentPrefix.length), x]));
}

function cacheNote({ k, ids, tail, found, parts }: TeacherCache): string {
  const size = `${ids.length / k} positions of ${k} tokens in ${parts} parts, ${found} of them from an earlier run`;
  return `teacher's answers on disk: ${size}; ${(100 * tail).toFixed(2)} % of the probability is outside`;
}

const meansOf = (scores: readonly { logProbs: Float32Array }[]): number[] =>
  scores.map(({ logProbs }) => -logProbs.reduce((sum, x) => sum + x, 0) / logProbs.length);

interface Measured {
  kl: number[];
  loss: number[];
}

function measuresOf(before: Measured, after: Measured) {
  const unit = "nats a token";
  return [
    comparedMeasure({ name: "held-out KL to the teacher", unit, better: "down" }, before.kl, after.kl),
    comparedMeasure({ name: "held-out loss", unit, better: "down" }, before.loss, after.loss),
  ];
}
