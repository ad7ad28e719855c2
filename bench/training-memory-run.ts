/** @module The process that takes some training steps for `bench/training-memory.ts` and says how much memory it had at most. */
import { openRewardTuning, pairBatch, pairRewardLoss, rewardShape } from "../src/align/index.js";
import { createRng, createRssMeter } from "../src/base/index.js";
import { createPackedBatches } from "../src/data/index.js";
import { createEngine } from "../src/engine/index.js";
import { createRewardHead, modelWeights, openModel } from "../src/models/index.js";
import { teacherOf } from "../src/pipeline/stages/distil.js";
import { createRuntime, type Tensors } from "../src/runtime/index.js";
import {
  adamw,
  createParameters,
  distillationBatch,
  languageModelLoss,
  layeredDistillation,
  loadParameters,
  modelDistillationLoss,
  nextTokenBatch,
  openTuning,
  packedLoss,
  parentPrefix,
  sampleBatches,
  sftLoss,
  type TrainOptions,
  train,
} from "../src/train/index.js";
import type { TrainingTask } from "./training-memory.js";

const steps = 3;
const threads = 2;

const { path, method, batch, length } = JSON.parse(process.argv[2]!) as TrainingTask;
const meter = createRssMeter({ intervalMs: 20 });
const model = await openModel(path);
const { config } = model;
const runtime = await createRuntime({ threads, maxSessions: 256, arena: method !== "distil-layered" });
const rng = createRng("ids");
const drawIds = (count: number) => Int32Array.from({ length: count }, () => rng.int(config.vocabSize));
const draw = () => ({ ids: drawIds(batch * length), batchSize: batch, length });
await train({
  ...{ runtime, stage: method, optimiser: adamw(), learningRate: 1e-6, steps },
  ...(await workOf()),
});
process.send!(meter.peakBytes());
meter.stop();
await runtime.dispose();
await model.close();
process.disconnect();

type Work = Pick<TrainOptions, "parameters" | "loss" | "frozen" | "batches">;

async function workOf(): Promise<Work> {
  if (method === "lora") return beside();
  if (method === "reward") return rewarded();
  const parameters = createParameters(modelWeights(config));
  await loadParameters(parameters, (name) => model.weights.read(name));
  const shape = { batch, length };
  if (method === "full")
    return { parameters, loss: languageModelLoss(config, shape), batches: () => nextTokenBatch(draw()) };
  const batches = () => distillationBatch(draw());
  if (method === "distil-layered") {
    const teacher = teacherOf(createEngine(runtime, model));
    return { parameters, loss: layeredDistillation(teacher, config, shape), batches };
  }
  const frozen: Tensors = {};
  for (const { name } of modelWeights(config)) frozen[parentPrefix + name] = await model.weights.read(name);
  return { parameters, loss: modelDistillationLoss(config, config, shape), frozen, batches };
}

/** An adapter of rank 16 on packed rows, every token learnt. */
async function beside(): Promise<Work> {
  const tuning = await openTuning(model, { lora: { rank: 16 } });
  const shape = { batch, length, targets: batch * length, sequences: batch };
  const samples = Array.from({ length: 2 * batch }, () => ({
    ids: drawIds(length),
    learn: new Uint8Array(length).fill(1, 1),
  }));
  return {
    parameters: tuning.parameters,
    frozen: tuning.frozen,
    loss: packedLoss({ config, lora: tuning.lora!, shape, lossOf: sftLoss() }),
    batches: sampleBatches(samples, shape, { seed: 0 }).batches,
  };
}

/** A reward of one number, all weights, pairs of which two fill a row. */
async function rewarded(): Promise<Work> {
  const start = { body: model, head: createRewardHead(config.hiddenSize, ["reward"], { bias: false }) };
  const tuning = await openRewardTuning(start);
  const shape = rewardShape(batch, length);
  const branch = () => ({ ids: drawIds(length / 4 - 4), learn: new Uint8Array(length / 4 - 4).fill(1) });
  const pairs = Array.from({ length: 4 * batch }, () => ({ prompt: drawIds(8), branches: [branch(), branch()] }));
  const packed = createPackedBatches(pairs, shape, { seed: 0 });
  return {
    parameters: tuning.parameters,
    frozen: tuning.frozen,
    loss: pairRewardLoss({ ...tuning.architecture, shape, weights: tuning.tuned().head.weights }),
    batches: (index) => pairBatch(packed.at(index), shape),
  };
}
