export { activeParameters } from "./active-parameters.js";
export {
  type CostTable,
  type CostUse,
  checkCostTable,
  checkCostUse,
  costTableJsonSchema,
  costTableSchema,
  type MeasuredShape,
  type MeasuredTimes,
  readCostTable,
  type SubBlock,
  subBlockId,
} from "./cost-table.js";
export {
  type LinearCost,
  type MemoryOptions,
  type ModelMemory,
  memoryCost,
  modelMemory,
  parameterCost,
  type Reach,
  reachOf,
  totalCost,
} from "./costs.js";
export { bytesReadPerStep, decodeSpeed, type SpeedBand, typeEfficiency } from "./decode-speed.js";
export { type Forecast, forecastDisk, forecastReshape, type Machine, type ReshapeWork } from "./dry-run.js";
export {
  type FileType,
  type FileTypeOptions,
  fileTypeBytes,
  fileTypes,
  fittingType,
  needsImatrix,
  type QuantType,
  quantTypes,
  type TypedTensor,
  tensorBytes,
  typedTensors,
} from "./file-types.js";
export { type BestFit, findBest, fitGpu, type GpuFit, listFits } from "./gpu-fit.js";
export { findGpu, type Gpu, listGpus } from "./gpus.js";
export { type CacheType, cacheTypes, kvCacheBytesPerToken } from "./kv-cache.js";
export { type LlamaCppMemory, type LlamaCppUse, llamaCppMemory } from "./llamacpp-memory.js";
export { measureMachine } from "./machine.js";
export { forecastMemory, type MemoryForecast, type MemoryWork } from "./memory-forecast.js";
export { modelPage, type PageRow } from "./model-page.js";
export { type ModelShape, shapeParameters } from "./model-shape.js";
export { openPlanned, type PlannedModel, type PlannedSize, plannedSizes } from "./planned-model.js";
export { publishedThroughput } from "./published-throughput.js";
export { type QualityFigure, qualityOf } from "./quality.js";
export { shapeFromHub, shapeOf } from "./read-shape.js";
export {
  type ParallelShare,
  parallelShare,
  type SafetensorsType,
  safetensorsBytes,
  safetensorsTypes,
} from "./server-memory.js";
export {
  bestServerSpeed,
  dividesHeads,
  type ServerSpeed,
  type ServerType,
  type ServerUse,
  serverSpeed,
  serverTypes,
} from "./server-speed.js";
export {
  fallbacks,
  ggufBlockBytes,
  ggufBytes,
  ggufFixedBytes,
  ggufTensorBytes,
  hubBytes,
  type WeightType,
  weightTypes,
} from "./sizes.js";
export {
  isSpeedCost,
  parseSpeedBudget,
  type Scenario,
  type SpeedBudget,
  type SpeedCostName,
  type SpeedCosts,
  shownSpeed,
  speedBound,
  speedCostNames,
  speedCosts,
} from "./speed-costs.js";
export {
  type TrainingMemory,
  type TrainingMethod,
  type TrainingPrecision,
  type TrainingUse,
  trainingMemory,
  trainingMethods,
} from "./training-memory.js";
