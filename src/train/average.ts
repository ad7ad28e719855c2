import type { Runtime } from "../runtime/index.js";
import { createFlatProgram } from "./chunks.js";

export interface AverageOptions {
  /** Share of the average that a step keeps, such as 0.999. */
  decay: number;
}

/**
 * Exponential moving average of parameters (arXiv:1806.04498, section 3): a' = decay a + (1 - decay) p after each step.
 * It starts as a copy of the parameters, so nothing has to be corrected for its start.
 */
export function createAverage(
  runtime: Runtime,
  { decay }: AverageOptions,
): (average: Float32Array, parameters: Float32Array) => Promise<void> {
  const program = createFlatProgram(runtime, "average", { arrays: ["a", "p"], scalars: ["share"] }, (g, x, s) => ({
    a: g.add(x.a!, g.mul(g.sub(x.p!, x.a!), s.share!)),
  }));
  return (average, parameters) =>
    program.run({ arrays: { a: average, p: parameters }, scalars: { share: 1 - decay } }, 0, average.length);
}
