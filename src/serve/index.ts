export {
  askAll,
  besideEachOther,
  type ChatAnswer,
  type ChatCommand,
  type ChatSettings,
  type Conversation,
  chatHelp,
  createConversation,
  createLineReader,
  createSpeaker,
  describeAnswer,
  describeRatio,
  describeSettings,
  type Speaker,
  setSetting,
} from "./conversation/index.js";
export type { ServedModel } from "./model-pool.js";
export { type ModelServer, type ServerOptions, startServer } from "./server.js";
export type { Limits } from "./service.js";
export {
  createThinkingSplitter,
  dropThoughts,
  forcedClosing,
  opensThought,
  type SplitterOptions,
  type SwitchedConversation,
  setThinking,
  splitThinking,
  type ThinkingMode,
  type ThinkingSplitter,
  type ThinkingSwitch,
  type ThinkingText,
  thinkingSwitchOf,
} from "./thinking.js";
