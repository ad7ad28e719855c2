import type { Runtime } from "../../runtime/index.js";
import type { ParameterLayout } from "../parameters.js";

/** All that an optimiser remembers; plain data, so that a checkpoint can hold it. */
export interface OptimiserState {
  /** Updates done. */
  step: number;
  /** Arrays with the layout of the parameters. */
  arrays: Record<string, Float32Array>;
  scalars: Record<string, number>;
}

export interface UpdateInput {
  layout: ParameterLayout;
  /** Changed in place. */
  parameters: Float32Array;
  gradients: Float32Array;
  /** Changed in place. */
  state: OptimiserState;
  learningRate: number;
  /** Gradients count as multiplied by this: how clipping reaches the update without a pass of its own. */
  gradientScale: number;
}

export type Update = (input: UpdateInput) => Promise<void>;

export interface Optimiser {
  /** With every setting, so that a checkpoint is not resumed with other ones. */
  readonly description: string;
  init(layout: ParameterLayout): OptimiserState;
  createUpdate(runtime: Runtime): Update;
}
