export {
  createLlamaCpp,
  type GenerateOptions,
  type LlamaCpp,
  type LlamaCppOptions,
  type LogitsOptions,
  type MeasureOptions,
  type Speed,
} from "./llamacpp.js";
export type { Generated, LlamaCppVersion, Positions } from "./protocol.js";
