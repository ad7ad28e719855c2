/** @module What the methods share that learn from the model's own answers: prompts, rewards, rollouts, measures. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import {
  createPolicyMeter,
  createPolicySampler,
  createPolicyTraining,
  createRolloutRecords,
  curriculumPrompts,
  type MonitorLimit,
  type MonitorName,
  monitorNames,
  type PolicyMeter,
  type PolicyObjective,
  type PolicySampler,
  type PolicyTask,
  type PolicyTraining,
  type PromptPlan,
  policyShape,
  shuffledPrompts,
  type TaskMeasure,
  type WeightedReward,
} from "../../align/index.js";
import { EspalierError, fileExists, formatCount, readJson, writeJsonAtomic, z } from "../../base/index.js";
import { constraintOfInstruction, type PromptTask, readPromptTasks, renderPrompt } from "../../data/index.js";
import { openTuning, type TrainResult, type Tuning, viewsOf } from "../../train/index.js";
import {
  type ChatTools,
  chatToolsOf,
  type FrozenPart,
  frozenPart,
  loraOf,
  runLoop,
  setAside,
  type TrainingFields,
  writeTuned,
} from "./common.js";
import { boundProblems, files, trainingFields } from "./fields.js";
import type { MethodOutcome, MethodWork, OptionsOf } from "./method.js";
import { policyCurves, policyMeasures, policyNotes, policySamples } from "./policy-results.js";
import { openRewards, rewardFields, rewardProblems } from "./rewards.js";

const { batch: _b, evaluations: _e, patience: _p, ema: _a, keep: _k, ...loopFields } = trainingFields;

const count = (fallback: number, what: string) => z.int().min(1).default(fallback).describe(what);

/** Of every method that learns from the model's own answers. */
export const policyFields = {
  data: files("Prompts: .jsonl with what their answers are judged by (`answer`, `constraints`); several files."),
  ...rewardFields,
  heldOut: z.int().min(0).default(64).describe("Prompts set aside for measuring, by a seeded draw."),
  overlong: z
    .enum(["refuse", "drop"])
    .default("refuse")
    .describe("What becomes of prompts that leave no room for an answer in a row."),
  ...loopFields,
  length: count(512, "Tokens of a packed row: at least a prompt and one answer."),
  prompts: count(8, "Prompts of a rollout."),
  samples: z.int().min(2).default(4).describe("Answers to each prompt."),
  maxTokens: count(128, "Tokens that an answer is cut at."),
  temperature: z.number().positive().default(1).describe("Logits are divided by it, in sampling and in training."),
  replacements: z
    .int()
    .min(0)
    .default(0)
    .describe("How often prompts whose answers have one reward are replaced by others (dynamic sampling)."),
  curriculum: z.boolean().default(false).describe("Take prompts from easy to hard, by their pass rates."),
  passRateSamples: count(8, "Answers by which a pass rate is measured, where the prompts bring no `pass_rate`."),
  passRateMax: z
    .number()
    .min(0)
    .max(1)
    .default(1)
    .describe("With a curriculum: prompts above this pass rate are left out."),
  passRateSpread: z
    .number()
    .positive()
    .default(0.2)
    .describe("Deviation of the curriculum's target around its centre."),
  measureSamples: count(4, "Answers to each prompt set aside, before and after."),
  limit: files("Numbers at which it ends early, such as kl<0.5, length-drift<2 or entropy>0.1.").optional(),
};

export type PolicyFields = OptionsOf<typeof policyFields>;

/** For `problems` of a method. */
export function policyProblems(options: PolicyFields): { field: string; message: string }[] {
  const problems = boundProblems(options);
  const tell = (field: string, check: () => unknown) => {
    try {
      check();
    } catch (error) {
      if (!(error instanceof EspalierError)) throw error;
      problems.push({ field, message: error.message });
    }
  };
  problems.push(...rewardProblems(options));
  tell("limit", () => limitsOf(options));
  if (options.curriculum && options.minutes !== undefined)
    problems.push({ field: "curriculum", message: "it needs steps or epochs, since it is spread over all of them" });
  if (options.length <= options.maxTokens)
    problems.push({ field: "length", message: `it must hold a prompt and an answer of ${options.maxTokens} tokens` });
  return problems;
}

/** `kl<0.5` and the like. */
function limitsOf({ limit = [] }: Pick<PolicyFields, "limit">): Partial<Record<MonitorName, MonitorLimit>> {
  const limits: Partial<Record<MonitorName, MonitorLimit>> = {};
  for (const text of limit) {
    const [, name, sign, bound] = /^([a-z-]+)([<>])(-?\d*\.?\d+)$/.exec(text) ?? [];
    if (!monitorNames.includes(name as MonitorName)) {
      const expected = `NAME<NUMBER or NAME>NUMBER with one of ${monitorNames.join(", ")}`;
      throw new EspalierError({ where: "limit", expected, found: text, exitCode: 2 });
    }
    limits[name as MonitorName] = { ...limits[name as MonitorName], [sign === "<" ? "max" : "min"]: Number(bound) };
  }
  return limits;
}

/** What the loop is told: a step is one rollout, and its state at the end is the result. */
function loopOptions(options: PolicyFields): TrainingFields {
  return { ...options, batch: 1, evaluations: 0, keep: "last" };
}

/** Peak rates where none is named. */
const learningRates = { lora: 1e-4, all: 1e-6 };

/** One stage: measured, trained on its own answers, measured again. */
export async function runPolicyGradient(
  work: MethodWork<PolicyFields>,
  objective: PolicyObjective,
): Promise<MethodOutcome> {
  const { rewards, dispose } = await openRewards(work.runtime, work.options);
  try {
    return await runWith(work, objective, rewards);
  } finally {
    await dispose();
  }
}

async function runWith(
  work: MethodWork<PolicyFields>,
  objective: PolicyObjective,
  rewards: readonly WeightedReward[],
): Promise<MethodOutcome> {
  const { options, model, seed, runtime, stage, directory, signal } = work;
  const tools = chatToolsOf(work);
  const { train, held, notes } = await prepareTasks(work, tools);
  const lora = loraOf(loopOptions(options));
  const tuning = await openTuning(model, { seed, ...(lora && { lora }) });
  const { sampler, roundedSampler, meter } = createTools(work, tuning, tools);
  const start = { ...tuning.frozen, ...viewsOf(tuning.parameters.layout, tuning.parameters.flat.slice()) };
  const measure = (tasks: readonly PolicyTask[], samples: number, reference?: typeof start) =>
    meter({
      ...{ tasks, sampler, rewards, samples, seed, signal },
      weights: tuning.weights(),
      onAnswer: counted(work, tasks.length * samples),
      ...(reference && { reference }),
    });
  const before = held.length > 0 ? await measure(held, options.measureSamples) : [];
  const { tasks, plan } = await planPrompts(work, objective, train, (all) => measure(all, options.passRateSamples));
  const stopper = new AbortController();
  const rounded = await roundedFor(work, tuning, tasks);
  const training = createPolicyTraining({
    ...{ runtime, stage, config: model.config, tuning, tasks, rewards, objective, plan, signal, seed },
    sampler: roundedSampler ?? sampler,
    ...(options.frozen === "int8" && { int8: rounded.frozen }),
    samples: options.samples,
    temperature: options.temperature,
    length: options.length,
    replacements: options.replacements,
    recompute: options.recompute,
    monitors: { limits: limitsOf(options) },
    records: createRolloutRecords(join(directory, "rollouts")),
    onLimit: (reason) => stopper.abort(new Error(reason)),
  });
  const passesPerEpoch = (tasks.length / options.prompts) * objective.updates;
  const { result, stopped } = await trainWithin(
    work,
    stopper,
    { ...tuning, frozen: rounded.frozen },
    training,
    passesPerEpoch,
  );
  const after = held.length > 0 ? await measure(held, options.measureSamples, start) : [];
  await writeTuned(work, tuning);
  await rm(join(directory, "rollouts"), { recursive: true, force: true });
  return {
    measures: policyMeasures(before, after),
    curves: policyCurves(training, result),
    notes: [
      ...notes,
      ...rounded.notes,
      ...(roundedSampler ? [drawnInEight] : []),
      ...policyNotes(training, options),
      ...(stopped ? [`ended early: ${stopped}`] : []),
    ],
    samples: policySamples(held, before, after),
  };
}

/** Rounding is measured on the prompts: there are no answers yet. */
function roundedFor(work: MethodWork<PolicyFields>, tuning: Tuning, tasks: readonly PolicyTask[]): Promise<FrozenPart> {
  const { temperature, length } = work.options;
  const model = { config: work.model.config, temperature, ...(tuning.lora && { lora: tuning.lora }) };
  const samples = tasks.map(({ ids }) => ({ ids, learn: new Uint8Array(ids.length).fill(1, 1) }));
  return frozenPart(work, { model, shape: policyShape(length), tuning, samples });
}

/** Tells how many of the answers to be measured are there. */
function counted({ stage, onEvent }: MethodWork<unknown>, total: number): () => void {
  let done = 0;
  return () => onEvent({ event: "progress", stage, done: ++done, total, unit: "answers", note: "measuring" });
}

function createTools(
  { options, model, runtime, stage }: MethodWork<PolicyFields>,
  tuning: Tuning,
  { tokenizer }: ChatTools,
): { sampler: PolicySampler; roundedSampler: PolicySampler | undefined; meter: PolicyMeter } {
  const { temperature, maxTokens, length, prompts, samples, frozen } = options;
  const width = Math.min(64, prompts * samples);
  const samplerOf = (int8: boolean) =>
    createPolicySampler({
      ...{ runtime, config: model.config, tuning, maxTokens, temperature, int8, width },
      decode: (ids) => tokenizer.decode(ids),
      stop: [...new Set([...tokenizer.eosTokenIds, ...model.config.eosTokenIds])],
    });
  const scored = { config: model.config, temperature, ...(tuning.lora && { lora: tuning.lora }) };
  return {
    sampler: samplerOf(false),
    roundedSampler: frozen === "int8" && width <= roundedWidth ? samplerOf(true) : undefined,
    meter: createPolicyMeter(runtime, `${stage}_measure`, scored, length),
  };
}

const drawnInEight = "answers to learn from are drawn with frozen matrices in 8 bits; measured ones are not";

/** Sequences at a time up to which products in 8 bits by blocks are faster than those in f32. */
const roundedWidth = 8;

async function prepareTasks({ options, seed }: MethodWork<PolicyFields>, tools: ChatTools) {
  const lists = await Promise.all(options.data.map((path) => readPromptTasks(path)));
  const read = lists.flat().map((task) => policyTask(task, tools));
  const tasks = read.flatMap((task) => task ?? []);
  const room = options.length - options.maxTokens;
  const fitting = tasks.filter(({ ids }) => ids.length <= room);
  if (fitting.length < tasks.length && options.overlong === "refuse") throw overlongPrompts(tasks, room);
  const { train, held } = setAside(fitting, options.heldOut, seed);
  const dropped = tasks.length - fitting.length;
  return {
    train,
    held,
    notes: [
      `${formatCount(train.length)} prompts to learn from, ${held.length} set aside`,
      ...(tasks.length < read.length
        ? [`${formatCount(read.length - tasks.length)} prompts left out, with a constraint that no rule can check`]
        : []),
      ...(dropped > 0 ? [`${formatCount(dropped)} prompts left out, longer than ${room} tokens`] : []),
    ],
  };
}

type Task = PolicyTask & { passRate?: number };

/** `undefined` for a task with a constraint that no rule can check. */
function policyTask(
  { prompt, answer, constraints: instructions, fields, where }: PromptTask,
  tools: ChatTools,
): Task | undefined {
  const { thinking, pass_rate: passRate } = fields;
  const constraints = instructions?.flatMap(({ id, parameters }) => constraintOfInstruction(id, parameters) ?? []);
  if (constraints?.length !== instructions?.length) return undefined;
  return {
    ids: renderPrompt(tools.template, tools.tokenizer, prompt, { ...(where !== undefined && { where }) }),
    item: {
      prompt,
      ...(answer !== undefined && { reference: answer }),
      ...(constraints && { constraints }),
      ...(typeof thinking === "boolean" && { thinking }),
      data: fields,
    },
    ...(typeof passRate === "number" && { passRate }),
  };
}

function overlongPrompts(tasks: readonly PolicyTask[], room: number): EspalierError {
  const longest = Math.max(...tasks.map(({ ids }) => ids.length));
  return new EspalierError({
    where: "prompts",
    expected: `at most ${room} tokens, so that an answer fits beside them`,
    found: `${longest} in the longest`,
    fix: "raise length, lower maxTokens, or let overlong be drop",
    exitCode: 2,
  });
}

interface Planned {
  tasks: readonly Task[];
  plan: PromptPlan;
}

async function planPrompts(
  { options, seed, directory }: MethodWork<PolicyFields>,
  { updates }: PolicyObjective,
  train: readonly Task[],
  measure: (tasks: readonly Task[]) => Promise<TaskMeasure[]>,
): Promise<Planned> {
  const { curriculum, prompts, steps, epochs = 1, passRateMax, passRateSpread } = options;
  if (!curriculum) return { tasks: train, plan: shuffledPrompts(train.length, prompts, seed) };
  const rates = await passRatesOf(train, join(directory, "pass-rates.json"), measure);
  const kept = train.flatMap((task, i) => (rates[i]! <= passRateMax ? [{ task, rate: rates[i]! }] : []));
  if (kept.length === 0) {
    const expected = `prompts of a pass rate of at most ${passRateMax}`;
    throw new EspalierError({ where: "passRateMax", expected, found: "none", fix: "raise it", exitCode: 2 });
  }
  const rollouts = Math.ceil((steps ?? Math.max(1, Math.round((epochs * kept.length * updates) / prompts))) / updates);
  const plan = curriculumPrompts(
    kept.map(({ rate }) => rate),
    { perRollout: prompts, rollouts, spread: passRateSpread, seed },
  );
  return { tasks: kept.map(({ task }) => task), plan };
}

/** Given with the prompts, or the mean reward of answers by the model that the stage begins with; measured once. */
async function passRatesOf(
  tasks: readonly Task[],
  path: string,
  measure: (tasks: readonly Task[]) => Promise<TaskMeasure[]>,
): Promise<number[]> {
  if (tasks.every(({ passRate }) => passRate !== undefined)) return tasks.map(({ passRate }) => passRate!);
  if (await fileExists(path)) return (await readJson(path)) as number[];
  const rates = (await measure(tasks)).map(({ reward = 0 }) => reward);
  await writeJsonAtomic(path, rates);
  return rates;
}

/** The loop, which a monitor may end; what was learnt until then stays. */
async function trainWithin(
  work: MethodWork<PolicyFields>,
  stopper: AbortController,
  { parameters, frozen }: Tuning,
  { batches, loss }: PolicyTraining,
  passesPerEpoch: number,
): Promise<{ result?: TrainResult; stopped?: string }> {
  const { options, directory, signal } = work;
  const stoppedFile = join(directory, "stopped.json");
  if (await fileExists(stoppedFile))
    stopper.abort(new Error(((await readJson(stoppedFile)) as { reason: string }).reason));
  try {
    const result = await runLoop(
      { ...work, signal: AbortSignal.any([signal, stopper.signal]) },
      {
        options: loopOptions(options),
        ...{ parameters, frozen, loss, batches, passesPerEpoch, accumulate: 1 },
        learningRate: learningRates[options.trainable],
      },
    );
    return { result };
  } catch (error) {
    if (signal.aborted || !stopper.signal.aborted || error !== stopper.signal.reason) throw error;
    const reason = (error as Error).message;
    await writeJsonAtomic(stoppedFile, { reason });
    return { stopped: reason };
  }
}
