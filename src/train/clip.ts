import type { Runtime } from "../runtime/index.js";
import { createFlatProgram } from "./chunks.js";

/** Euclidean norm of a flat array: sums of squares of chunks in f32, added up in f64. */
export function createNorm(runtime: Runtime): (array: Float32Array) => Promise<number> {
  // A product of the row with itself reads it once; squares and their sum would be two passes.
  const program = createFlatProgram(runtime, "sum_of_squares", { arrays: ["x"] }, (g, { x }) => {
    const row = g.reshape(x!, [1, -1]);
    return { sum: g.matmul(row, row, { transposeB: true }) };
  });
  return async (array) => {
    let sum = 0;
    await program.run({ arrays: { x: array } }, 0, array.length, (result) => {
      sum += (result["next/sum"]!.data as Float32Array)[0]!;
    });
    return Math.sqrt(sum);
  };
}

/** Factor that brings a gradient of this norm down to `limit`; 1 when it is shorter. */
export function clipFactor(norm: number, limit: number): number {
  return norm > limit ? limit / norm : 1;
}
