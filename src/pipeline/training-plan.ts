/** @module What training and reshaping a model will take, from its shape: a plan for a model that need not exist. */
import type { ModelConfig } from "../models/index.js";
import {
  forecastDisk,
  forecastMemory,
  type ModelShape,
  type TrainingMemory,
  type TrainingUse,
  trainingMemory,
} from "../plan/index.js";
import { blockChoices, buildSpace } from "../puzzle/index.js";
import { checkRecipe } from "./recipe.js";

/** The peak of the highest stage. */
export interface ReshapePlan extends Omit<TrainingMemory, "method"> {
  method: "reshape";
  /** The stage that has it. */
  stage: string;
}

export type TrainingPlan = TrainingMemory | ReshapePlan;

/** Every method, and `reshape` where the model is of a family that can be reshaped. */
export function planTraining(shape: ModelShape, use: TrainingUse = {}): TrainingPlan[] {
  const reshape = planReshape(shape, use);
  return [...trainingMemory(shape, use), ...(reshape ? [reshape] : [])];
}

/** The recipe's own numbers of tokens, one child; its distillation is a method of its own and left out here. */
function planReshape(
  shape: ModelShape,
  { length = 256, batch = 4, share = 0.8 }: TrainingUse,
): ReshapePlan | undefined {
  const config = configOf(shape);
  if (!config) return undefined;
  const recipe = checkRecipe(
    { kind: "reshape", parent: "parent", out: "out", budget: { params: "80%" }, length },
    "plan",
  );
  const choices = buildSpace(config).layers.map(blockChoices);
  const work = {
    length,
    batch: Math.max(1, Math.round(2048 / length)),
    choices,
    distilTokens: 0,
    distilBatch: batch,
    children: 1,
    share,
    calibrateTokens: recipe.calibrate.tokens,
    scoreTokens: recipe.score.tokens,
    evaluateTokens: recipe.evaluate.tokens,
    scored: 0,
    refit: true,
    blockTokens: 0,
  };
  const { bytes, peak, processBytes, weightsBytes } = forecastMemory(config, work);
  return {
    method: "reshape",
    precision: "f32",
    stage: peak,
    weightsBytes,
    gradientBytes: 0,
    optimiserBytes: 0,
    activationBytes: bytes - processBytes - weightsBytes,
    logitsBytes: 0,
    sweepBytes: 0,
    kvCacheBytes: 0,
    totalBytes: bytes,
    diskBytes: forecastDisk(config, work),
  };
}

/** Sizes say all that a forecast reads; what they do not say has no bytes. */
function configOf(shape: ModelShape): ModelConfig | undefined {
  const { architecture } = shape;
  if (architecture !== "llama" && architecture !== "deci") return undefined;
  if (shape.experts) return undefined;
  return {
    ...shape,
    family: architecture,
    modelType: architecture,
    normEps: 1e-5,
    rope: { theta: 1e4 },
    eosTokenIds: [],
  };
}
