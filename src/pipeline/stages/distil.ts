import { rm } from "node:fs/promises";
import { join } from "node:path";
import { fileExists, type Interval, meanInterval, readJson, writeJsonAtomic } from "../../base/index.js";
import { createBatches } from "../../data/index.js";
import { createEngine, scoreSequences } from "../../engine/index.js";
import { type Model, modelWeights, openModel, overlayModel, writeHub } from "../../models/index.js";
import type { Runtime, Tensors } from "../../runtime/index.js";
import {
  adamw,
  cosine,
  createParameters,
  distillationBatch,
  loadParameters,
  modelDistillationLoss,
  type Parameters,
  parentPrefix,
  train,
  withWarmUp,
} from "../../train/index.js";
import type { RunContext } from "../context.js";
import type { Artifact } from "../store.js";
import type { Realised } from "./children.js";
import type { Subject } from "./evaluate.js";
import { type Prepared, rowsOf } from "./prepare.js";

/** KL from the parent on a few set-aside sequences, on the way. */
export interface DistilPoint {
  step: number;
  tokens: number;
  kl: Interval;
}

export interface DistilCurve {
  steps: number;
  tokensPerStep: number;
  /** Loss of each step. */
  losses: number[];
  points: DistilPoint[];
}

export interface Distilled extends Subject {
  artifact: Artifact;
  curve: DistilCurve;
}

/** How often the child is measured on the way, and on how many set-aside sequences. */
const measuredPoints = 4;
const measuredSequences = 32;

/**
 * Trains a child towards its parent: hidden-state cosine and KL, no language-modelling loss (arXiv:2411.19146,
 * section 4.3). All weights are trained, embedding and norms too.
 */
export async function distilChild(context: RunContext, prepared: Prepared, child: Realised): Promise<Distilled> {
  const { recipe, store, parent, parentDigest } = context;
  const stage = `distil/${child.name}`;
  const artifact = await store.produce(
    {
      stage,
      title: "train it towards its parent",
      version: 1,
      options: { ...recipe.distil, length: recipe.length, seed: recipe.seed },
      inputs: { parent: parentDigest, child: child.artifact, text: prepared.artifact },
      async run(directory) {
        const model = await child.open();
        const parameters = await readParameters(model);
        const curve = await runDistillation(context, prepared, { stage, directory, model, parameters });
        const trained = new Map(Object.entries(parameters.tensors));
        await writeHub(overlayModel(parent, model.config, trained), join(directory, "model"), { overwrite: true });
        await model.close();
        await writeJsonAtomic(join(directory, "curve.json"), curve);
        await rm(checkpointPath(directory), { force: true });
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

function checkpointPath(directory: string): string {
  return join(directory, "checkpoint.bin");
}

async function readParameters(model: Model): Promise<Parameters> {
  const parameters = createParameters(modelWeights(model.config));
  await loadParameters(parameters, (name) => model.weights.read(name));
  return parameters;
}

interface Distillation {
  stage: string;
  directory: string;
  model: Model;
  parameters: Parameters;
}

async function runDistillation(context: RunContext, prepared: Prepared, work: Distillation): Promise<DistilCurve> {
  const { recipe, runtime, parent, onEvent, signal } = context;
  const { tokens, batch, learningRate } = recipe.distil;
  const { stage, directory, model, parameters } = work;
  const { length, seed } = recipe;
  const steps = Math.max(1, Math.round(tokens / (batch * length)));
  const every = Math.ceil(steps / measuredPoints);
  const pointPath = (step: number) => join(directory, `point-${step}.json`);
  const measure = async (step: number) => {
    if ((step % every !== 0 && step !== steps) || (await fileExists(pointPath(step)))) return;
    const kl = await measureOnTheWay(context, prepared, overlayModel(parent, model.config, tensorsOf(parameters)));
    await writeJsonAtomic(pointPath(step), { step, tokens: step * batch * length, kl } satisfies DistilPoint);
  };
  await measure(0);
  const batches = createBatches(prepared.sequences.distil, { batchSize: batch, seed });
  const { losses } = await train({
    runtime,
    stage,
    parameters,
    loss: modelDistillationLoss(parent.config, model.config, { batch, length }),
    frozen: await parentWeights(parent),
    batches: (index) => distillationBatch(batches.at(index)),
    optimiser: adamw(),
    steps,
    learningRate,
    schedule: withWarmUp(Math.ceil(steps / 20), cosine({ floor: 0.1 })),
    checkpoint: { path: checkpointPath(directory), every: 50 },
    afterStep: measure,
    onEvent,
    signal,
  });
  const points: DistilPoint[] = [];
  for (let step = 0; step <= steps; step++) {
    if (await fileExists(pointPath(step))) points.push((await readJson(pointPath(step))) as DistilPoint);
  }
  for (const { step } of points) await rm(pointPath(step));
  return { steps, tokensPerStep: batch * length, losses: [...losses], points };
}

function tensorsOf({ tensors }: Parameters) {
  return new Map(Object.entries(tensors));
}

async function measureOnTheWay(
  { runtime, engine }: { runtime: Runtime; engine: RunContext["engine"] },
  prepared: Prepared,
  model: Model,
): Promise<Interval> {
  const rows = rowsOf(prepared.sequences.evaluate).slice(0, measuredSequences);
  const scores = await scoreSequences(createEngine(runtime, model), rows, { reference: engine });
  return meanInterval(scores.map(({ kl }) => kl!));
}

/** The parent's weights as inputs of the loss. */
async function parentWeights(parent: Model): Promise<Tensors> {
  const tensors: Record<string, Tensors[string]> = {};
  for (const { name } of modelWeights(parent.config)) tensors[parentPrefix + name] = await parent.weights.read(name);
  return tensors;
}
