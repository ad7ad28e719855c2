export {
  type BatchGenerateOptions,
  type BatchGenerator,
  type BatchGeneratorOptions,
  type BatchPrompt,
  type BatchSequence,
  createBatchGenerator,
  type RoundedMatrices,
  readAllWeights,
  roundMatrices,
  type WeightTensors,
} from "./batch/index.js";
export {
  type BlockRun,
  type BlockTaps,
  createEngine,
  type Engine,
  type EngineOptions,
  type RunBlockOptions,
  type SequenceShape,
} from "./engine.js";
export {
  createDecodeSession,
  type DecodeSession,
  type GenerateOptions,
  type Generation,
  generate,
} from "./generate.js";
export type { CompareOptions, Comparison, HeadScores, HeadState, KlOptions, ScoreOptions } from "./head-scores.js";
export { rememberForward } from "./remember.js";
export { roundWeights } from "./rounding.js";
export { argmax, createSampler, type SampleOptions } from "./sample.js";
export { type ScoreSequencesOptions, type SequenceScore, scoreSequences } from "./sequences.js";
export type { VocabularyRange } from "./streamed-head.js";
export { defaultCacheBytes, generousCacheBytes } from "./weights.js";
