export type { AverageOptions } from "./average.js";
export { type Batch, type Batches, distillationBatch, nextTokenBatch, type TokenBatch } from "./batches.js";
export { clipFactor, createNorm } from "./clip.js";
export { bestOf, type EvaluateOptions, isExhausted, type Measured } from "./evaluate.js";
export { fitShape } from "./fit-shape.js";
export { type RoundedFrozen, type RoundOptions, roundFrozen } from "./frozen-int8.js";
export { layeredDistillation, type Teacher } from "./layered.js";
export { createLiveWeights, type LiveWeights } from "./live-weights.js";
export { type Carried, type Checkpoint, type TimedSteps, type TrainOptions, type TrainResult, train } from "./loop.js";
export { normalisedError } from "./losses/block.js";
export { cosineDistance, type DistilOptions, distillationLoss, type ModelValues } from "./losses/distil.js";
export {
  cachedDivergence,
  type Divergence,
  type DivergenceOptions,
  type JsdOptions,
  jensenShannon,
  type KlDirection,
  logitDivergence,
  type MeanOptions,
  softCrossEntropy,
  type TopKOptions,
  takeIds,
  topKDivergence,
  weightedMean,
} from "./losses/divergence.js";
export {
  type ChunkValues,
  type Head,
  type HeadChunk,
  type HeadLossOptions,
  headLoss,
  headValues,
} from "./losses/head.js";
export { type BatchShape, languageModelLoss, modelDistillationLoss, parentPrefix } from "./losses/model.js";
export { type FineTuningOptions, fineTuningLoss, targetLogProbs } from "./losses/tokens.js";
export { type AdamWOptions, adamw, type Optimiser, type OptimiserState, type SgdOptions, sgd } from "./optim/index.js";
export {
  buildPackedModel,
  buildTokenLogProbs,
  buildTokenScores,
  createTokenScorer,
  type FrozenType,
  modelValues,
  type PackedInputs,
  type PackedLossOptions,
  type PackedModel,
  type PackedRowInputs,
  type PackedShape,
  type PackedTokens,
  packedInputs,
  packedLoss,
  packedRowInputs,
  type TokenScores,
  tokenScoresGraph,
} from "./packed.js";
export {
  type PackedDistilOptions,
  type PartWeights,
  packedDistillation,
  packedKlGraph,
  type TeacherSource,
} from "./packed-distil.js";
export { packedFeeds, packedRowFeeds, positionFeeds } from "./packed-feeds.js";
export {
  createLayout,
  createParameters,
  loadParameters,
  type ParameterInfo,
  type ParameterLayout,
  type Parameters,
  viewsOf,
} from "./parameters.js";
export { constant, cosine, linear, type Schedule, withWarmUp } from "./schedule.js";
export {
  createKlScorer,
  createSampleScorer,
  type KlScorer,
  type SampleScorer,
  type SequenceScore,
} from "./score-samples.js";
export { type SampleBatches, type SftAverage, sampleBatches, sftLoss } from "./sft.js";
export { readTrainedParameters } from "./state.js";
export {
  type BatchResult,
  type BuildLoss,
  buildStep,
  createStep,
  deferScatters,
  type LossValues,
  type StepOptions,
  type StepProgram,
  type StepSource,
} from "./step.js";
export { cachedFeeds, type TeacherCache, type TeacherCacheOptions, teacherCache } from "./teacher-cache.js";
export {
  loadTrainable,
  splitTrainable,
  type Trainable,
  type TrainableModel,
  type TrainableOptions,
  type TrainableSplit,
  weightInfos,
} from "./trainable.js";
export { openTuning, type Tuning, type TuningOptions } from "./tuning.js";
