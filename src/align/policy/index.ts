export {
  type AnswerScore,
  type AnswerScorer,
  createAnswerScorer,
  type NumberedAnswers,
  type PackedAnswers,
  packAnswers,
} from "./answer-scores.js";
export { createPolicyMeter, type MeasureRequest, type PolicyMeter, type TaskMeasure } from "./measure.js";
export {
  type AnswerValues,
  type GrpoOptions,
  grpoObjective,
  type ObjectiveInputs,
  type PolicyObjective,
  type ReinforceObjectiveOptions,
  reinforceObjective,
  type ValuedAnswer,
} from "./objectives.js";
export { type CurriculumOptions, curriculumPrompts, type PromptPlan, shuffledPrompts } from "./prompts.js";
export { createRolloutRecords, type RolloutNumbers, type RolloutRecord, type RolloutRecords } from "./records.js";
export {
  type AnswerGroup,
  createPolicySampler,
  isAlike,
  type JudgedPolicyAnswer,
  judgeGroups,
  type PolicyAnswer,
  type PolicySampler,
  type PolicySamplerOptions,
  type PolicyTask,
  type SampleRequest,
} from "./rollout.js";
export {
  createPolicyTraining,
  meanKl,
  type PolicyTraining,
  type PolicyTrainingOptions,
  policyShape,
} from "./training.js";
