export { type Batch, type Batches, type BatchOptions, createBatches } from "./batches.js";
export {
  type Blend,
  type BlendOptions,
  type BlendSource,
  type BlendStage,
  createBlend,
  createStagedBlend,
  type Drawn,
  type StagedBlend,
} from "./blend.js";
export { type Constraint, type CountRange, constraintOfInstruction, meetsConstraint } from "./constraints.js";
export {
  isConversationFile,
  parseConversation,
  readConversations,
} from "./conversations.js";
export { parseMessages, parsePrompt } from "./forms.js";
export { type ParseRow, type ReadOptions, readRows, streamRows } from "./json-lines.js";
export { helpSteerAttributes, type LabelOptions, readLabelledAnswers } from "./labelled-answers.js";
export {
  type LengthOptions,
  type LengthPolicy,
  type LimitedSamples,
  limitLength,
  sampleLength,
} from "./lengths.js";
export { type MaskOptions, showMask } from "./mask.js";
export {
  createPackedBatches,
  type PackableSample,
  type PackedBatch,
  type PackedBatches,
  type PackedBatchOptions,
  type PackedRow,
  type PackedSamples,
  type PackedSequence,
  type PackShape,
  packSamples,
  sampleTargets,
  type Target,
} from "./packing.js";
export { type PasskeyOptions, passkeySamples } from "./passkey.js";
export { parsePreferencePair, parseTranscript, readPreferencePairs } from "./preferences.js";
export { parsePromptTask, readPromptTasks } from "./prompt-tasks.js";
export {
  parseWorkedAnswer,
  parseWorkedQuestion,
  readWorkedQuestions,
  reasoningPair,
  thinkingPrompt,
  type WorkedQuestion,
} from "./reasoning.js";
export {
  type ChatOptions,
  type RenderChatOptions,
  readChatDocuments,
  renderBranches,
  renderConversation,
  renderPair,
  renderPrompt,
  renderTurns,
} from "./render.js";
export {
  type BundledText,
  bundledChatPath,
  bundledTextPath,
  END_OF_TEXT,
  readDocuments,
  readTextFile,
  type Separator,
  type SplitOptions,
  splitDocuments,
} from "./text.js";
export { encodeChat } from "./token-spans.js";
export type {
  BranchedSample,
  Conversation,
  Instruction,
  LabelledAnswer,
  Message,
  MessageToolCall,
  PreferencePair,
  PromptTask,
  Scorer,
  TokenSample,
} from "./types.js";
export {
  createSequences,
  documentMark,
  interleaveSequences,
  type Packing,
  type PartRequest,
  type Sequences,
  type SplitTextOptions,
  sequenceAt,
  sliceSequences,
  splitText,
  type WindowOptions,
} from "./windows.js";
