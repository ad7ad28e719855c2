/** @module The process that takes some training steps for `bench/training-memory.ts` and says how much memory it had at most. */
import { createRng, createRssMeter } from "../src/base/index.js";
import { createEngine } from "../src/engine/index.js";
import { modelWeights, openModel } from "../src/models/index.js";
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
  parentPrefix,
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
const parameters = createParameters(modelWeights(config));
await loadParameters(parameters, (name) => model.weights.read(name));
const runtime = await createRuntime({ threads, maxSessions: 256, arena: method !== "distil-layered" });
const rng = createRng("ids");
const draw = () => ({
  ids: Int32Array.from({ length: batch * length }, () => rng.int(config.vocabSize)),
  batchSize: batch,
  length,
});
await train({
  runtime,
  stage: method,
  parameters,
  ...(await workOf()),
  optimiser: adamw(),
  learningRate: 1e-6,
  steps,
});
process.send!(meter.peakBytes());
meter.stop();
await runtime.dispose();
await model.close();
process.disconnect();

async function workOf(): Promise<Pick<TrainOptions, "loss" | "frozen" | "batches">> {
  const shape = { batch, length };
  if (method === "full") return { loss: languageModelLoss(config, shape), batches: () => nextTokenBatch(draw()) };
  const batches = () => distillationBatch(draw());
  if (method === "distil-layered") {
    const teacher = teacherOf(createEngine(runtime, model));
    return { loss: layeredDistillation(teacher, config, shape), batches };
  }
  const frozen: Tensors = {};
  for (const { name } of modelWeights(config)) frozen[parentPrefix + name] = await model.weights.read(name);
  return { loss: modelDistillationLoss(config, config, shape), frozen, batches };
}
