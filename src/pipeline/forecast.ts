import { formatBytes, formatCount, formatSeconds } from "../base/index.js";
import {
  type Forecast,
  forecastReshape,
  measureMachine,
  type Reach,
  type ReshapeWork,
  reachOf,
} from "../plan/index.js";
import { blockChoices, scoresJointly } from "../puzzle/index.js";
import { type CostName, costNames } from "./budget.js";
import { createContext, type RunContext, type RunOptions } from "./context.js";
import type { Recipe } from "./recipe.js";

/** What a run will take, and which budgets can be reached. */
export interface Outlook extends Forecast {
  /** For each cost: the parent's total and the least that any choice of blocks reaches. */
  reach: Record<CostName, Reach>;
  /** The budgets asked for, in the costs' own units, and whether each can be reached alone. */
  budgets: { cost: string; bound: number; reachable: boolean }[];
  gflops: number;
}

/** Says what a recipe will take, without running it: shapes, token counts, and a block of the parent timed for a moment. */
export async function forecast(recipe: Recipe, options: RunOptions = {}): Promise<Outlook> {
  const context = await createContext(recipe, options);
  try {
    const { parent, space, costs, budgets } = context;
    const choices = space.layers.map(blockChoices);
    const reach = Object.fromEntries(
      costNames.map((name) => [name, reachOf(costs[name], parent.config.blocks, choices)]),
    ) as Record<CostName, Reach>;
    const work = workOf(context, choices);
    const machine = await measureMachine(context.runtime, parent.config, work);
    const prediction = forecastReshape(parent.config, work, machine);
    return {
      ...prediction,
      reach,
      budgets: Object.entries(budgets).map(([cost, bound]) => ({
        cost,
        bound,
        reachable: bound >= reach[cost as CostName].least,
      })),
      gflops: machine.gflops,
    };
  } finally {
    await context.close();
  }
}

function workOf(context: RunContext, choices: ReturnType<typeof blockChoices>[]): ReshapeWork {
  const { recipe, space, budgets, parentCosts } = context;
  const scoredIn = ({ attention, ffn }: (typeof space.layers)[number]) =>
    scoresJointly(space) ? attention.length * ffn.length : attention.length + ffn.length - 1;
  return {
    length: recipe.length,
    batch: Math.max(1, Math.round(2048 / recipe.length)),
    calibrateTokens: recipe.calibrate.tokens,
    choices,
    scored: space.layers.reduce((sum, layer) => sum + scoredIn(layer), 0),
    refit: recipe.variants.refit,
    blockTokens: recipe.blocks.tokens,
    scoreTokens: recipe.score.tokens,
    distilTokens: recipe.distil.tokens,
    distilBatch: recipe.distil.batch,
    children: 1 + recipe.baselines.reduce((sum, kind) => sum + (kind === "random" ? 3 : 1), 0),
    share: Math.min(1, ...Object.entries(budgets).map(([cost, bound]) => bound / parentCosts[cost as CostName])),
    evaluateTokens: recipe.evaluate.tokens,
  };
}

export function renderForecast({ stages, seconds, memoryBytes, diskBytes, reach, budgets, gflops }: Outlook): string {
  const amount = (cost: string, value: number) => (cost === "memory" ? formatBytes(value) : formatCount(value));
  const share = (cost: string, value: number) => `${((100 * value) / reach[cost as CostName].parent).toFixed(1)} %`;
  return [
    `time    about ${formatSeconds(seconds)} at ${gflops.toFixed(0)} GFLOP/s (right within a factor of two)`,
    ...stages
      .filter((stage) => stage.seconds >= 0.5)
      .map((stage) => `        ${stage.name.padEnd(10)} ${formatSeconds(stage.seconds)}`),
    `memory  about ${formatBytes(memoryBytes)} at its peak`,
    `disk    about ${formatBytes(diskBytes)}`,
    "",
    "budgets that can be reached:",
    ...Object.entries(reach).map(
      ([cost, { parent, least }]) =>
        `  ${cost.padEnd(7)} from ${amount(cost, least)} (${share(cost, least)}) to ${amount(cost, parent)}, the parent's`,
    ),
    ...budgets.map(
      ({ cost, bound, reachable }) =>
        `  asked: ${cost} ${amount(cost, bound)} (${share(cost, bound)}): ${reachable ? "can be reached" : "out of reach"}`,
    ),
  ].join("\n");
}
