/** @module All that is used of node-llama-cpp (pinned exactly). Only the child process may import this: an assertion ends it. */
export {
  getLlama,
  getModuleVersion,
  type Llama,
  type LlamaContext,
  LlamaGrammar,
  LlamaGrammarEvaluationState,
  LlamaLogLevel,
  type LlamaModel,
  NoBinaryFoundError,
  readGgufFileInfo,
  type Token,
} from "node-llama-cpp";
