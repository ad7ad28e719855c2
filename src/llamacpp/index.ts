export { createInferenceEngine } from "./inference/engine.js";
export { schemaToGbnf } from "./inference/json-schema.js";
export type {
  Completion,
  CompletionRequest,
  CompletionTimings,
  Grammar,
  InferenceEngine,
  LoadedModel,
  LoadOptions,
  ModelInfo,
  Sampling,
  TokenLogprob,
} from "./inference.js";
export {
  createLlamaCpp,
  type GenerateOptions,
  type LlamaCpp,
  type LlamaCppOptions,
  type LogitsOptions,
  type MeasureOptions,
  type Speed,
  type TimeOptions,
  type TokenizeOptions,
} from "./llamacpp.js";
export type {
  Comparison,
  DecodePoint,
  Generated,
  Importance,
  LlamaCppVersion,
  Positions,
  QuantiseParams,
  TimedFile,
  TimeSamples,
} from "./protocol.js";
export { threadsForBytes } from "./threads.js";
export { createLlamaCppTools, type LlamaCppTools, type ToolOptions } from "./tools.js";
