export { type Batch, type Batches, type BatchOptions, createBatches } from "./batches.js";
export { isConversationFile, readConversations } from "./conversations.js";
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
export type { Conversation, Message, PreferencePair, Scorer } from "./types.js";
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
