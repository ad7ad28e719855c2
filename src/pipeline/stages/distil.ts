import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { collectGarbage, fileExists, formatCount, type Interval, readJson, writeJsonAtomic } from "../../base/index.js";
import { createBatches } from "../../data/index.js";
import { createEngine, type Engine } from "../../engine/index.js";
import {
  headWeightName,
  type Model,
  type ModelConfig,
  modelParameters,
  modelWeights,
  openModel,
  overlayModel,
  writeHub,
} from "../../models/index.js";
import { createRuntime, type Runtime, type Tensors } from "../../runtime/index.js";
import {
  adamw,
  cosine,
  createParameters,
  distillationBatch,
  layeredDistillation,
  loadParameters,
  modelDistillationLoss,
  type Parameters,
  parentPrefix,
  type Teacher,
  type TrainOptions,
  train,
  withWarmUp,
} from "../../train/index.js";
import type { RunContext } from "../context.js";
import { boxOf, createPace, type DistilBound, type DistilBox, type DistilPoint } from "../distil-box.js";
import type { Artifact } from "../store.js";
import type { Realised } from "./children.js";
import { createPoints, type Points, pointFile } from "./distil-points.js";
import type { Subject } from "./evaluate.js";
import { type Prepared, rowsOf } from "./prepare.js";

export type { DistilPoint } from "../distil-box.js";

export interface DistilCurve {
  steps: number;
  tokensPerStep: number;
  /** Loss of each step. */
  losses: number[];
  /** On sequences of their own: set aside from training, and not those of the final evaluation. */
  points: DistilPoint[];
  /** Step whose weights are kept: the last, unless an earlier point was better by more than noise. */
  keptStep: number;
  /** By how much the last step's KL exceeds the kept one's, paired by sequence; where an earlier one is kept. */
  lastAboveKept?: Interval;
  /** Of a time-boxed training: what was measured, and the steps that followed from it. */
  box?: DistilBox;
}

export interface Distilled extends Subject {
  artifact: Artifact;
  curve: DistilCurve;
}

/** What distillation needs of a run. */
export type DistilContext = Pick<
  RunContext,
  "recipe" | "store" | "parent" | "parentDigest" | "engine" | "runtime" | "onEvent" | "signal"
>;
export type DistilText = {
  artifact: Prepared["artifact"];
  sequences: Pick<Prepared["sequences"], "score" | "distil">;
};

export interface DistilOptions {
  /** Name of the stage. Defaults to `distil/NAME`. */
  stage?: string;
  /** What ends it, in place of the recipe's: for a baseline that gets the tokens a child got in its minutes. */
  bound?: DistilBound;
  /** Milliseconds; a box is measured with it. Defaults to the machine's. */
  clock?: () => number;
  /** A step that holds less is one program, which for a small model is faster than many. Defaults to 1 GiB. */
  smallStepBytes?: number;
}

/** How often the child is measured on the way, and on how many sequences. */
const measuredPoints = 4;
const measuredSequences = 32;

/** Tokens of one pass of the gradient: enough for fast products, and the inside of half a block stays small. */
const passTokens = 512;

/**
 * Trains a child towards its parent: hidden-state cosine and KL, no language-modelling loss (arXiv:2411.19146,
 * section 4.3). All weights are trained, embedding and norms too. The learning rate rises over the first twentieth of the
 * steps and falls to a tenth with the last one; the best state by set-aside KL is kept.
 *
 * A time box becomes a number of steps by a measurement before the first of them, which the stage writes down; from then
 * on it is an input like any other, so that a run that is killed and resumed ends with the same bytes.
 */
export async function distilChild(
  context: DistilContext,
  prepared: DistilText,
  child: Pick<Realised, "name" | "artifact" | "open">,
  options: DistilOptions = {},
): Promise<Distilled> {
  const { recipe, store, parent, parentDigest } = context;
  const { batch, learningRate = defaultRate(parent.config) } = recipe.distil;
  const { stage = `distil/${child.name}`, bound = boundOf(context), clock = () => performance.now() } = options;
  const { smallStepBytes = 2 ** 30 } = options;
  const artifact = await store.produce(
    {
      stage,
      title: "train it towards its parent",
      version: 2,
      options: { ...bound, batch, learningRate, length: recipe.length, seed: recipe.seed, smallStepBytes },
      inputs: { parent: parentDigest, child: child.artifact, text: prepared.artifact },
      async run(directory) {
        const model = await child.open();
        const parameters = await readParameters(model);
        const small = stepBytes(parent.config, model.config, batch, recipe.length) < smallStepBytes;
        const work = { context, prepared, stage, bound, clock, directory, model, parameters, small };
        const curve = await withRuntime(context, small, (runtime) => runDistillation({ ...work, runtime }));
        const trained = new Map(Object.entries(parameters.tensors));
        await writeHub(overlayModel(parent, model.config, trained), join(directory, "model"), { overwrite: true });
        await model.close();
        await writeJsonAtomic(join(directory, "curve.json"), curve);
        for (const name of await readdir(directory)) {
          if (isWorkFile(name)) await rm(join(directory, name), { force: true });
        }
      },
    },
    context,
  );
  return {
    name: child.name,
    digest: artifact,
    artifact,
    open: () => openModel(join(artifact.directory, "model")),
    curve: (await readJson(join(artifact.directory, "curve.json"))) as DistilCurve,
  };
}

function boundOf({ recipe }: DistilContext): DistilBound {
  const { tokens, minutes } = recipe.distil;
  return minutes === undefined ? { tokens } : { minutes };
}

const checkpointName = "checkpoint.bin";
const boxName = "box.json";
const isWorkFile = (name: string) => name === checkpointName || name === boxName || pointFile.test(name);

async function readParameters(model: Model): Promise<Parameters> {
  const parameters = createParameters(modelWeights(model.config));
  await loadParameters(parameters, (name) => model.weights.read(name));
  collectGarbage();
  return parameters;
}

/** Training by halves runs many programs in turn: all stay open, and none keeps the memory of its last run. */
async function withRuntime<Result>(
  { runtime }: DistilContext,
  arena: boolean,
  work: (runtime: Runtime) => Promise<Result>,
): Promise<Result> {
  const { device, threads } = runtime;
  const own = await createRuntime({ device, threads, maxSessions: 256, arena });
  try {
    return await work(own);
  } finally {
    await own.dispose();
  }
}

interface Distillation {
  context: DistilContext;
  prepared: DistilText;
  stage: string;
  bound: DistilBound;
  clock: () => number;
  directory: string;
  model: Model;
  parameters: Parameters;
  runtime: Runtime;
  small: boolean;
}

async function runDistillation(work: Distillation): Promise<DistilCurve> {
  const { context, prepared, stage, runtime, clock, bound } = work;
  const { recipe, onEvent, signal } = context;
  const warn = (message: string) => onEvent({ event: "notice", level: "warning", message: `${stage}: ${message}` });
  const teacher = engineOf(context, runtime);
  const sequences = rowsOf(prepared.sequences.score).slice(0, measuredSequences);
  const tokensPerStep = recipe.distil.batch * recipe.length;
  const points = createPoints({ ...work, teacher, sequences, tokensPerStep, signal });
  let box = await readBox(work);
  const countSteps = await startBox(work, points);
  const known = "tokens" in bound ? Math.max(1, Math.round(bound.tokens / tokensPerStep)) : box?.steps;
  const pace = createPace(clock, warn);
  let every = 1;
  const begin = (steps: number) => {
    every = Math.ceil(steps / measuredPoints);
    announcePasses(work, steps);
    return steps;
  };
  const { losses } = await train({
    ...(await trainOptions(work, teacher)),
    async steps(secondsPerStep) {
      box = await countSteps(secondsPerStep);
      return begin(box.steps);
    },
    ...(known !== undefined && { steps: begin(known) }),
    async afterStep(step, steps) {
      if (box) pace.step(box);
      if (step % every === 0 || step === steps) await points.measure(step);
      pace.start();
    },
  });
  const steps = losses.length;
  const { kept, worseThanKept } = await points.keepBest();
  if (worseThanKept) {
    const above = worseThanKept.mean.toPrecision(2);
    warn(`step ${kept.step} of ${steps} is kept, the KL of the last one on sequences set aside is ${above} above it`);
  }
  return {
    steps,
    tokensPerStep,
    losses: [...losses],
    points: await points.all(),
    keptStep: kept.step,
    ...(worseThanKept && { lastAboveKept: worseThanKept }),
    ...(box && { box }),
  };
}

/** Measures the start, and the time that takes; gives the box's steps when the seconds of one are known. */
async function startBox({ clock, directory, bound }: Distillation, points: Points) {
  const started = clock();
  await points.measure(0);
  const secondsPerPoint = (clock() - started) / 1000;
  return async (secondsPerStep: number): Promise<DistilBox> => {
    const { minutes } = bound as { minutes: number };
    const secondsSpent = (clock() - started) / 1000;
    const box = boxOf({ minutes, secondsPerStep, secondsPerPoint, secondsSpent }, measuredPoints);
    await writeJsonAtomic(join(directory, boxName), box);
    return box;
  };
}

/** What an interrupted run measured. Without it that run's first point is measured anew, to learn how long it takes. */
async function readBox({ directory, bound }: Distillation): Promise<DistilBox | undefined> {
  if ("tokens" in bound) return undefined;
  const path = join(directory, boxName);
  if (await fileExists(path)) return (await readJson(path)) as DistilBox;
  await rm(join(directory, "point-0.json"), { force: true });
  return undefined;
}

/** Small models bear, and need, larger steps. */
function defaultRate(parent: ModelConfig): number {
  return modelParameters(parent) <= 10e6 ? 1e-3 : 3e-4;
}

async function trainOptions(work: Distillation, teacher: Engine): Promise<Omit<TrainOptions, "steps">> {
  const { context, prepared, stage, directory, runtime, model, parameters, clock, small } = work;
  const { recipe, parent, onEvent, signal } = context;
  const { length, seed } = recipe;
  const { batch, learningRate = defaultRate(parent.config) } = recipe.distil;
  const batchSize = small ? batch : largestDivisor(batch, Math.max(1, Math.floor(passTokens / length)));
  const batches = createBatches(prepared.sequences.distil, { batchSize, seed });
  const shape = { batch: batchSize, length };
  return {
    runtime,
    stage,
    parameters,
    loss: small
      ? modelDistillationLoss(parent.config, model.config, shape)
      : layeredDistillation(teacherOf(teacher), model.config, shape),
    frozen: small ? await parentWeights(teacher) : {},
    batches: (index) => distillationBatch(batches.at(index)),
    accumulate: batch / batchSize,
    optimiser: adamw(),
    learningRate,
    schedule: (step, steps) => withWarmUp(Math.ceil(steps / 20), cosine({ floor: 0.1 }))(step, steps),
    checkpoint: { path: join(directory, checkpointName) },
    onEvent,
    signal,
    clock,
  };
}

/** The parent's weights as inputs of the loss. */
async function parentWeights({ config, parts }: Engine): Promise<Tensors> {
  const tensors: Tensors = {};
  for (const { name } of modelWeights(config)) tensors[parentPrefix + name] = await parts.weights.read(name);
  return tensors;
}

/** What one program of parent, child and gradient holds: weights, gradients, moments, and the insides of all blocks. */
function stepBytes(parent: ModelConfig, child: ModelConfig, batch: number, length: number): number {
  const inside = ({ blocks, hiddenSize, heads }: ModelConfig) =>
    blocks.reduce(
      (sum, { ffn }) => sum + 8 * hiddenSize + heads * length + (ffn.kind === "swiglu" ? 4 * ffn.width : 0),
      0,
    );
  const activations = 4 * batch * length * (inside(parent) + inside(child));
  return activations + 4 * modelParameters(parent) + 16 * modelParameters(child);
}

/** The largest divisor of `number` that is at most `limit`. */
function largestDivisor(number: number, limit: number): number {
  let divisor = Math.min(number, limit);
  while (number % divisor !== 0) divisor -= 1;
  return divisor;
}

function announcePasses({ context, prepared, stage }: Distillation, steps: number): void {
  const { recipe, onEvent } = context;
  const { count, length } = prepared.sequences.distil;
  const passes = (steps * recipe.distil.batch) / count;
  if (passes <= 1) return;
  const text = `${formatCount(count * length)} tokens of text`;
  onEvent({ event: "notice", level: "info", message: `${stage}: ${passes.toFixed(1)} passes over ${text}` });
}

/** The parent on a runtime of ours, with the weights that the run holds already. */
function engineOf({ engine, parent }: DistilContext, runtime: Runtime): Engine {
  const { read, readRows } = engine.parts.weights;
  return createEngine(runtime, { ...parent, weights: { ...parent.weights, read, readRows } });
}

/** The parent as training sees it. */
export function teacherOf(engine: Engine): Teacher {
  const { config, parts } = engine;
  return {
    config,
    async hiddenStates(ids, into) {
      const shape = { batch: ids.length, length: ids[0]!.length };
      let x = await engine.embed(ids);
      for (const [layer, target] of into.entries()) {
        const { output } = await engine.runBlock(layer, x, { ...shape, into: target });
        if (output !== target) target.data.set(output.data);
        x = target;
      }
    },
    async head() {
      const [norm, head] = await Promise.all([
        parts.weights.read("model.norm.weight"),
        parts.weights.read(headWeightName(config)),
      ]);
      return { norm, head };
    },
  };
}
