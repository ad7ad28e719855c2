/** @module Measuring on the way: the loss on batches set aside, the best state so far, and when to stop. */
import { EspalierError } from "../base/index.js";
import { createGraph } from "../graph/index.js";
import type { Runtime, Tensors } from "../runtime/index.js";
import { f32Tensor } from "../tensor/index.js";
import type { Batch } from "./batches.js";
import type { Parameters } from "./parameters.js";
import type { BuildLoss } from "./step.js";

export interface EvaluateOptions {
  /** Steps between two measurements, or a function of all steps. The start and the last step are always measured. */
  every: number | ((steps: number) => number);
  /** Batches whose loss is measured, or a function that measures the parameters it is given; less is better. */
  of: readonly Batch[] | ((parameters: Parameters) => Promise<number>);
  /** Measurements in a row without improvement after which the run ends. Defaults to never. */
  patience?: number;
  /** What a measurement must be below the best one by, to count as an improvement. Defaults to 0. */
  minImprovement?: number;
}

export interface Measured {
  /** Steps done. */
  step: number;
  loss: number;
}

/** The measurement that later ones have to beat. */
export function bestOf(measured: readonly Measured[], { minImprovement = 0 }: Pick<EvaluateOptions, "minImprovement">) {
  let best: Measured | undefined;
  for (const each of measured) if (!best || each.loss < best.loss - minImprovement) best = each;
  return best;
}

/** True when the last `patience` measurements have not improved on the best one. */
export function isExhausted(measured: readonly Measured[], options: EvaluateOptions): boolean {
  const { patience = Number.POSITIVE_INFINITY } = options;
  const best = bestOf(measured, options);
  return best !== undefined && measured.length - 1 - measured.indexOf(best) >= patience;
}

export interface EvaluatedRun {
  runtime: Runtime;
  stage: string;
  loss: unknown;
  frozen?: Tensors;
  evaluate: EvaluateOptions;
}

/** Measures parameters, without a gradient. */
export function createEvaluation(run: EvaluatedRun): (parameters: Parameters) => Promise<number> {
  const { of } = run.evaluate;
  if (typeof of === "function") return of;
  const where = `${run.stage}, evaluate`;
  if (of.length === 0) throw new EspalierError({ where, expected: "at least one batch", found: "none" });
  if (typeof run.loss !== "function") {
    throw new EspalierError({
      where,
      expected: "a function that measures",
      found: "batches, and a loss without a graph",
    });
  }
  return (parameters) => meanLoss(run, run.loss as BuildLoss, parameters, of);
}

async function meanLoss(
  { runtime, stage, frozen }: EvaluatedRun,
  loss: BuildLoss,
  { layout, tensors }: Parameters,
  batches: readonly Batch[],
): Promise<number> {
  const g = createGraph(`${stage}_evaluate`);
  const inputs = Object.fromEntries(layout.places.map(({ name, shape }) => [name, g.input(name, shape)]));
  g.output("loss", loss(g, inputs, g.input("denominator", [])).loss);
  const program = await runtime.compile(g);
  const denominator = f32Tensor([], [batches.reduce((sum, { weight }) => sum + weight, 0)]);
  let total = 0;
  for (const { feeds } of batches) {
    const results = await program.run({ ...tensors, ...frozen, ...feeds, denominator });
    total += (results.loss!.data as Float32Array)[0]!;
  }
  return total;
}
