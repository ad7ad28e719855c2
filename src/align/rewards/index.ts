export { type CombinedScores, scoreAnswers, type WeightedReward } from "./combine.js";
export { createJudgeReward, type JudgeRewardOptions, parseRating } from "./judge.js";
export { equalAnswers, extractAnswer, type MathsRewardOptions, mathsReward } from "./maths.js";
export { createModuleReward, type ModuleRewardOptions, type RegexRewardOptions, regexReward } from "./module.js";
export { type NamedRewardOptions, namedReward } from "./named.js";
export {
  type AttributesOfAnswers,
  createRewardModelReward,
  openAttributeJudge,
  type RewardModelRewardOptions,
} from "./reward-model.js";
export {
  type ConstraintsRewardOptions,
  constraintsReward,
  type FormatRewardOptions,
  formatReward,
  type LengthRewardOptions,
  lengthReward,
  type OverlongPenaltyOptions,
  overlongPenalty,
  type RepetitionPenaltyOptions,
  repeatedShare,
  repetitionPenalty,
} from "./rules.js";
export { type RewardFunction, type RewardItem, type RewardScore, ruleReward } from "./types.js";
