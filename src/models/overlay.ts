import type { HostTensor } from "../tensor/index.js";
import type { Model, ModelConfig } from "./config.js";
import { overlayWeights } from "./weights.js";

/**
 * A child in memory over its parent: `tensors` by full name where they differ, the parent's weights elsewhere. Layer
 * numbers are the parent's, so a block without sub-layers stays in the list. Closing it leaves the parent open.
 */
export function overlayModel(base: Model, config: ModelConfig, tensors: ReadonlyMap<string, HostTensor>): Model {
  return { ...base, path: "", config, weights: overlayWeights(base.weights, config, tensors), close: async () => {} };
}
