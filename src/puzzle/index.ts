export {
  type AssembledRequest,
  type ScoreCandidatesRequest,
  type SequenceRange,
  scoreAssembled,
  scoreCandidates,
} from "./assembled.js";
export { type Baseline, type BaselineKind, type BaselineOptions, chooseBaselines } from "./baselines.js";
export { type BlockLibrary, type LayerIndex, type LibraryEntry, openBlockLibrary } from "./block-library.js";
export { type BuildVariantsOptions, type BuildVariantsRequest, buildVariants } from "./build-variants.js";
export { type CalibrateRequest, calibrate } from "./calibrate.js";
export { type BatchedText, type CaptureRequest, capture } from "./capture.js";
export type { ChannelRanking } from "./channel-order.js";
export { childConfig, openChild } from "./child.js";
export type { Corrections, MeasuredChoice } from "./corrections.js";
export { type DistilBlocksOptions, type DistilBlocksRequest, distilBlocks } from "./distil-blocks.js";
export {
  architectureOf,
  type BlockCosts,
  type ComposeOptions,
  changedLayers,
  choiceOf,
  composeLibrary,
  predictedKl,
} from "./library.js";
export { type RaceBudgets, raceBudgets } from "./race-budgets.js";
export { type RaceOptions, type RaceReport, type RaceRequest, raceBlocks, readRace } from "./racing.js";
export { type RealiseOptions, type RealiseRequest, realise } from "./realise.js";
export * from "./report/index.js";
export { type RunResult, resultJsonSchema, resultSchema } from "./result.js";
export {
  type LayerPart,
  type LayerScores,
  readScores,
  type ScoreOptions,
  type ScoreRequest,
  scoreBlocks,
  scoreLayer,
  scoresJointly,
  writeScores,
} from "./score.js";
export * from "./search/index.js";
export { meanByKind, measurePairFactor, type PairFactor } from "./sequence-scores.js";
export {
  type Candidate,
  correctedKl,
  nearestOf,
  type Settled,
  type SettleRequest,
  type SettleRound,
  settleChoice,
} from "./settle.js";
export {
  type AttentionVariant,
  attentionId,
  blockChoices,
  blockId,
  blockParameterRange,
  buildSpace,
  describeOmissions,
  type FfnVariant,
  ffnId,
  type LayerSpace,
  type Omission,
  type Part,
  parseBlockId,
  type Space,
  type SpaceOptions,
  spaceSizeLog10,
  type Target,
} from "./space.js";
export { type BudgetSet, findUndecided, type Samples, type Undecided, type UndecidedRequest } from "./undecided.js";
