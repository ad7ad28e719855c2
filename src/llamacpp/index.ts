export {
  createLlamaCpp,
  type GenerateOptions,
  type LlamaCpp,
  type LlamaCppOptions,
  type LogitsOptions,
  type MeasureOptions,
  type Speed,
  type TokenizeOptions,
} from "./llamacpp.js";
export type { Generated, LlamaCppVersion, Positions } from "./protocol.js";
