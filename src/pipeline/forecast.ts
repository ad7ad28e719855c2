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
import { createContext, type RunContext, type RunOptions } from "./context.js";
import { showCost } from "./costs-shown.js";
import { priceKnown } from "./pricing.js";
import type { Recipe } from "./recipe.js";

/** What a run will take, and which budgets can be reached. */
export interface Outlook extends Forecast {
  /** For each cost: the parent's total and the least that any choice of blocks reaches. */
  reach: Record<string, Reach>;
  /** The bounds asked for, in the costs' own units, and whether each can be reached alone. */
  budgets: { child: string; cost: string; bound: number; reachable: boolean; shown: string }[];
  /** Speeds that are bounded and not measured yet: nothing can be said of them without measuring. */
  unmeasured: string[];
  gflops: number;
}

/** Says what a recipe will take, without running it: shapes, token counts, and a block of the parent timed for a moment. */
export async function forecast(recipe: Recipe, options: RunOptions = {}): Promise<Outlook> {
  const base = await createContext(recipe, options);
  try {
    const { unmeasured, ...prices } = await priceKnown(base);
    const context = { ...base, ...prices };
    const { parent, space, costs, children } = context;
    const choices = space.layers.map(blockChoices);
    const reach = Object.fromEntries(
      Object.entries(costs).map(([name, cost]) => [name, reachOf(cost, parent.config.blocks, choices)]),
    );
    const work = workOf(context, choices);
    const machine = await measureMachine(context.runtime, parent.config, work);
    const prediction = forecastReshape(parent.config, work, machine);
    return {
      ...prediction,
      reach,
      budgets: children.flatMap(({ name: child, bounds }) =>
        Object.entries(bounds).map(([cost, bound]) => ({
          child,
          cost,
          bound,
          reachable: bound >= reach[cost]!.least,
          shown: showCost(context, cost, bound),
        })),
      ),
      unmeasured,
      gflops: machine.gflops,
    };
  } finally {
    await base.close();
  }
}

/** Rounds of candidates that it usually takes until a choice stands. */
const searchesOfAChild = 2;

/** What the run does, as the forecast counts it. */
export function workOf(context: RunContext, choices: ReturnType<typeof blockChoices>[]): ReshapeWork {
  const { recipe, space, children } = context;
  const baselines = recipe.baselines.reduce((sum, kind) => sum + (kind === "random" ? 3 : 1), 0);
  const scoredIn = ({ attention, ffn }: (typeof space.layers)[number]) =>
    scoresJointly(space) ? attention.length * ffn.length : attention.length + ffn.length - 1;
  return {
    length: recipe.length,
    batch: Math.max(1, Math.round(2048 / recipe.length)),
    calibrateTokens: recipe.calibrate.tokens,
    choices,
    scored: space.layers.reduce((sum, layer) => sum + scoredIn(layer), 0),
    refit: recipe.variants.refit,
    blockTokens: recipe.blocks.tokens === "auto" ? 0 : recipe.blocks.tokens,
    scoreTokens: recipe.score.tokens,
    distilTokens: recipe.distil.tokens,
    ...(recipe.distil.minutes !== undefined && { distilSeconds: 60 * recipe.distil.minutes }),
    candidates: children.length * searchesOfAChild * recipe.search.solutions,
    distilBatch: recipe.distil.batch,
    children: children.length * (1 + baselines),
    distilled: children.length * (1 + distilledBaselines(recipe, baselines)),
    share: shareOf(context),
    // Exports are loaded in llama.cpp in every type; f32 is the largest.
    ...(recipe.targets.includes("gguf") && { exportType: "f32" as const }),
    evaluateTokens: recipe.evaluate.tokens,
  };
}

/** Of the largest child, as its sizes say; speeds say little about parameters. */
function shareOf({ children, parentCosts }: RunContext): number {
  const shares = children.map(({ bounds }) =>
    Math.min(1, ...["params", "memory"].flatMap((name) => (bounds[name] ? [bounds[name] / parentCosts[name]!] : []))),
  );
  return Math.max(...shares);
}

function distilledBaselines({ distil }: Recipe, baselines: number): number {
  if (distil.baselines === "none") return 0;
  return distil.baselines === "best" ? Math.min(1, baselines) : baselines;
}

export function renderForecast(outlook: Outlook): string {
  const { stages, seconds, memoryBytes, memory, diskBytes, reach, budgets, unmeasured, gflops } = outlook;
  const amount = (cost: string, value: number) => (cost === "memory" ? formatBytes(value) : formatCount(value));
  const share = (cost: string, value: number) => `${((100 * value) / reach[cost]!.parent).toFixed(1)} %`;
  const sizes = Object.entries(reach).filter(([cost]) => cost === "params" || cost === "memory");
  return [
    `time    about ${formatSeconds(seconds)} at ${gflops.toFixed(0)} GFLOP/s (right within a factor of two)`,
    ...stages
      .filter((stage) => stage.seconds >= 0.5)
      .map((stage) => `        ${stage.name.padEnd(10)} ${formatSeconds(stage.seconds)}`),
    `memory  about ${formatBytes(memoryBytes)} at its peak, in ${memory.peak} (right within a fifth)`,
    `disk    about ${formatBytes(diskBytes)}`,
    "",
    "budgets that can be reached:",
    ...sizes.map(
      ([cost, { parent, least }]) =>
        `  ${cost.padEnd(7)} from ${amount(cost, least)} (${share(cost, least)}) to ${amount(cost, parent)}, the parent's`,
    ),
    ...budgets.map(
      ({ child, shown, reachable }) => `  asked: ${child}, ${shown}: ${reachable ? "can be reached" : "out of reach"}`,
    ),
    ...(unmeasured.length > 0
      ? [
          `  ${unmeasured.join(", ")}: not known before blocks are measured in llama.cpp (espalier measure, a few minutes)`,
        ]
      : []),
  ].join("\n");
}
