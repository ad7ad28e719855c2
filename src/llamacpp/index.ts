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
  DecodePoint,
  Generated,
  LlamaCppVersion,
  Positions,
  TimedFile,
  TimeSamples,
} from "./protocol.js";
export { threadsForBytes } from "./threads.js";
