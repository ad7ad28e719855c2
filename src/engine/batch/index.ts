export {
  type BatchGenerateOptions,
  type BatchGenerator,
  type BatchGeneratorOptions,
  type BatchPrompt,
  type BatchSequence,
  createBatchGenerator,
  readAllWeights,
  type WeightTensors,
} from "./generator.js";
export { type RoundedMatrices, roundMatrices } from "./programs.js";
