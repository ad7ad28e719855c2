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
export { type Forecast, forecastDisk, forecastReshape, type Machine, type ReshapeWork } from "./dry-run.js";
export { measureMachine } from "./machine.js";
export { forecastMemory, type MemoryForecast, type MemoryWork } from "./memory-forecast.js";
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
