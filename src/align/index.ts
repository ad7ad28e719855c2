export * from "./advantages.js";
export {
  type Divergence,
  type PreferenceKind,
  type PreferenceOptions,
  preferenceKinds,
  preferenceLoss,
} from "./dpo.js";
export {
  type NemoRlPolicyOptions,
  nemoRlPolicy,
  type PolicyInputs,
  type PolicyKl,
  type PolicyLoss,
  type PolicyOptions,
  policyLoss,
  type TrlLossType,
  type TrlPolicyOptions,
  trlPolicy,
} from "./grpo.js";
export { type ImportanceCorrection, importanceWeights } from "./importance.js";
export { type KlKind, type KlOptions, klEstimate, type SequenceKlOptions, sequenceKl } from "./kl.js";
export { type MergeOptions, mergeRewardModels } from "./merge.js";
export {
  createMonitors,
  type JudgedAnswer,
  type MonitoredStep,
  type MonitorLimit,
  type MonitorName,
  type MonitorOptions,
  type MonitorRecord,
  type Monitors,
  monitorNames,
  monitorNotices,
  monitorParts,
  stopReason,
} from "./monitors.js";
export {
  type ChosenOptions,
  type ChosenReduction,
  type Compat,
  chosenLoss,
  type PairReductionOptions,
  type PreferenceLoss,
  type PreferencePairs,
  pairsOfTokens,
  type ReductionOptions,
  splitPairs,
} from "./pairs.js";
export * from "./policy/index.js";
export {
  differingPairs,
  type ObjectiveOptions,
  type PackedObjective,
  type PairScore,
  type PreferenceBatches,
  type PreferenceBatchOptions,
  type PreferenceSample,
  preferenceBatches,
  preferenceFeeds,
  preferenceObjective,
  rewardAwareObjective,
  scorePair,
} from "./preference-training.js";
export {
  createReferenceKl,
  largestGap,
  type PairLogProbs,
  type ReferenceKl,
  type ReferenceKlOptions,
  type ReferenceOptions,
  referenceKlGraph,
  referenceLogProbs,
  scorePairs,
} from "./reference.js";
export { type RefusalRule, refusalOf, refusalRules, refusalTemplates } from "./refusals.js";
export {
  type ReinforceAdvantageOptions,
  type ReinforceAdvantages,
  type ReinforceOptions,
  type RlooLossOptions,
  type Rollout,
  reinforceAdvantages,
  reinforceLoss,
  rlooLoss,
  type SequenceLoss,
} from "./reinforce.js";
export {
  aggregateReward,
  attributeWeights,
  type BradleyTerryOptions,
  bradleyTerry,
  extrapolate,
  helpSteerAttributes,
  maskedRegression,
  mergeWeights,
  pairsOfLabels,
  type RegressionOptions,
  type RewardHeadValues,
  type RewardLoss,
  type RewardPairs,
  rewardOfLast,
  rewardOfMean,
} from "./reward.js";
export {
  type AttributeScorer,
  createAttributeScorer,
  markBatch,
  markRewardLoss,
  openRewardTuning,
  type PairLossOptions,
  pairBatch,
  pairRewardLoss,
  type RewardArchitecture,
  type RewardShape,
  type RewardTuning,
  rewardShape,
} from "./reward-model.js";
export * from "./rewards/index.js";
export { type RewardAwareOptions, type RewardDistance, rewardAwareLoss, rewardDistance } from "./rpo.js";
export { meanPerSequence, sequenceLengths, spreadToTokens, sumPerSequence, type TokenGroup } from "./tokens.js";
