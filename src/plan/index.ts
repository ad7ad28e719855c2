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
export { type Forecast, forecastReshape, type Machine, type ReshapeWork } from "./dry-run.js";
export { measureMachine } from "./machine.js";
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
