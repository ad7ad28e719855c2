/** @module Summed costs of blocks against the measured speed of whole models. */
import { type Interval, meanInterval } from "../base/index.js";
import { isSpeedCost, type SpeedCostName, shownSpeed, totalCost } from "../plan/index.js";
import type { ReportSpeedPrediction } from "../puzzle/index.js";
import type { RunContext } from "./context.js";
import type { Child, Run } from "./run.js";
import type { Speed } from "./stages/speed.js";

/**
 * Of the recipe's own scenario, where the whole models were timed on it: one sequence at a time, on this machine.
 * Latency and throughput follow from prefill and decoding, sample by sample.
 */
export function predictSpeeds(
  context: RunContext,
  { speeds }: Run,
  children: readonly Child[],
): ReportSpeedPrediction[] {
  const { recipe, costs, parent, table } = context;
  const { input, output, batch, measure } = recipe;
  const alike = (measure.prompt ?? input) === input && (measure.generate ?? output) === output && batch === 1;
  if (!table || !alike || recipe.costs) return [];
  const models = [
    { name: "parent", key: "parent", blocks: parent.config.blocks },
    ...children.map(({ candidate }) => candidate),
  ];
  const names = Object.keys(costs).filter(isSpeedCost);
  return names.flatMap((cost) =>
    models.map(({ name, key, blocks }) => ({
      model: name,
      cost,
      predicted: shownSpeed(cost, totalCost(costs[cost]!, blocks), recipe),
      measured: measuredSpeed(cost, speeds[key]!, recipe),
      unit: cost === "latency" ? "s" : "tok/s",
    })),
  );
}

function measuredSpeed(
  cost: SpeedCostName,
  { prefill, decode, samples }: Speed,
  recipe: RunContext["recipe"],
): Interval {
  if (cost === "prefill") return prefill;
  if (cost === "decode") return decode;
  const seconds = samples.prefill.map((rate, i) => recipe.input / rate + recipe.output / samples.decode[i]!);
  return meanInterval(cost === "latency" ? seconds : seconds.map((each) => recipe.output / each));
}
