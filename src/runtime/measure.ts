import { createGraph } from "../graph/index.js";
import { f32Tensor } from "../tensor/index.js";
import type { Runtime } from "./runtime.js";

export interface Measurement {
  /** Shortest of the runs, in milliseconds: the time that nothing else disturbed. */
  bestMs: number;
  medianMs: number;
  runs: number;
}

/** Times `work` after a warm-up. Calls are made one after the other. */
export async function measure(
  work: () => Promise<unknown>,
  { warmUp = 1, runs = 5 }: { warmUp?: number; runs?: number } = {},
): Promise<Measurement> {
  for (let i = 0; i < warmUp; i++) await work();
  const times: number[] = [];
  for (let i = 0; i < runs; i++) times.push(await timeMs(work));
  times.sort((a, b) => a - b);
  return { bestMs: times[0] ?? Number.NaN, medianMs: times[runs >> 1] ?? Number.NaN, runs };
}

export async function timeMs(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

/**
 * Floating-point operations a second of a matrix product of 2048 x 512 x 2048 in f32, the best of `runs`: the rate that
 * nothing made of products exceeds. Takes about half a second.
 */
export async function measureProductRate(runtime: Runtime, { runs = 10 } = {}): Promise<number> {
  const [rows, inner, columns] = [2048, 512, 2048];
  const g = createGraph("product");
  g.output("c", g.matmul(g.input("a", [rows, inner]), g.input("b", [inner, columns])));
  const program = await runtime.compile(g);
  // Zeros and subnormal numbers may be faster or slower than what a model computes with.
  const ramp = (shape: number[]) =>
    f32Tensor(
      shape,
      Float32Array.from({ length: shape[0]! * shape[1]! }, (_, i) => Math.sin(i)),
    );
  const feeds = { a: ramp([rows, inner]), b: ramp([inner, columns]) };
  const into = { c: f32Tensor([rows, columns]) };
  const { bestMs } = await measure(() => program.run(feeds, into), { runs });
  await program.dispose();
  return (2 * rows * inner * columns * 1000) / bestMs;
}
