/** @module What blocks cost, under the names that the recipe bounds, and each child's bounds as numbers. */
import {
  type CostTable,
  checkCostUse,
  isSpeedCost,
  type LinearCost,
  memoryCost,
  parameterCost,
  readCostTable,
  type Scenario,
  speedCostNames,
  speedCosts,
  totalCost,
} from "../plan/index.js";
import { measureCosts } from "./block-speeds.js";
import { doubtsOf } from "./block-times.js";
import { type Budget, constraintOf, resolveBudgets } from "./budget.js";
import type { BaseContext } from "./context.js";
import { machineFacts } from "./machine-facts.js";
import { type AskedChild, childrenOf, type Recipe, scenarioOf } from "./recipe.js";
import { packageVersion } from "./version.js";

/** A child to be made, and upper bounds by constraint, in the costs' own units. */
export interface ChildPlan extends AskedChild {
  bounds: Record<string, number>;
}

export interface Prices {
  /** By constraint: `params` (parameters), `memory` (bytes), speeds (seconds), `latency@chat`. */
  costs: Record<string, LinearCost>;
  /** The parent's total of each. */
  parentCosts: Record<string, number>;
  children: ChildPlan[];
  /** Where the seconds come from; absent where no speed is bounded. */
  table?: CostTable;
}

/** Prices sizes exactly, and speeds, where any is bounded, from measurements in llama.cpp or the recipe's file of them. */
export async function priceBlocks(context: BaseContext): Promise<Prices> {
  const asked = childrenOf(context.recipe);
  const speeds = speedsOf(context.recipe, asked);
  const table = speeds.length === 0 ? undefined : await costTable(context, speeds);
  return { ...pricesOf(context, asked, speeds, table), ...(table && { table }) };
}

/** As `priceBlocks`, without measuring: speed budgets are left out where the recipe names no file. */
export async function priceKnown(context: BaseContext): Promise<Prices & { unmeasured: string[] }> {
  const asked = childrenOf(context.recipe);
  const speeds = speedsOf(context.recipe, asked);
  if (speeds.length === 0 || context.recipe.costs) return { ...(await priceBlocks(context)), unmeasured: [] };
  const known = asked.map((child) => ({ ...child, budgets: child.budgets.filter(({ cost }) => !isSpeedCost(cost)) }));
  return { ...pricesOf(context, known, []), unmeasured: speeds.map(constraintOf) };
}

type Speed = Pick<Budget, "cost" | "scenario">;

/** Speeds that some child bounds; with `sweep` all of the recipe's own scenario besides. */
function speedsOf({ search }: Recipe, asked: readonly AskedChild[]): Speed[] {
  const bounded = asked.flatMap(({ budgets }) => budgets).filter(({ cost }) => isSpeedCost(cost));
  const all: Speed[] = search.sweep ? [...bounded, ...speedCostNames.map((cost) => ({ cost }))] : bounded;
  return [...new Map(all.map((speed) => [constraintOf(speed), speed])).values()];
}

function pricesOf(
  { recipe, parent }: BaseContext,
  asked: readonly AskedChild[],
  speeds: readonly Speed[],
  table?: CostTable,
): Prices {
  const { batch, context, type } = recipe;
  const scenario = (name?: string) => scenarioOf(recipe, name);
  const priced = speeds.map((speed) => [
    constraintOf(speed),
    isSpeedCost(speed.cost) ? speedCosts(table!, scenario(speed.scenario), recipe.costs?.file)[speed.cost] : undefined,
  ]);
  const costs: Record<string, LinearCost> = {
    params: parameterCost(parent.config),
    memory: memoryCost(parent.config, { batch, context, type }),
    ...Object.fromEntries(priced),
  };
  const parentCosts = Object.fromEntries(
    Object.entries(costs).map(([name, cost]) => [name, totalCost(cost, parent.config.blocks)]),
  );
  const children = asked.map((child) => ({ ...child, bounds: resolveBudgets(child.budgets, parentCosts, scenario) }));
  return { costs, parentCosts, children };
}

async function costTable(context: BaseContext, speeds: readonly Speed[]): Promise<CostTable> {
  const { recipe, parent, space, threads, store, onEvent, signal } = context;
  const { type, costs } = recipe;
  if (costs) return readCosts(context, costs);
  const scenarios = scenariosOf(recipe, speeds);
  const { table } = await measureCosts({
    config: parent.config,
    space,
    type,
    scenarios,
    threads,
    store,
    onEvent,
    signal,
  });
  for (const message of doubtsOf(table)) onEvent({ event: "notice", level: "warning", message });
  return table;
}

function scenariosOf(recipe: Recipe, speeds: readonly Speed[]): Scenario[] {
  const names = new Set(speeds.map(({ scenario }) => scenario));
  return [...names].map((name) => scenarioOf(recipe, name));
}

async function readCosts(
  { recipe, parent, onEvent, llama }: BaseContext,
  { file, anyVersion }: NonNullable<Recipe["costs"]>,
): Promise<CostTable> {
  const table = await readCostTable(file);
  const { package: binding, llamaCpp } = await llama.version();
  const versions = { espalier: packageVersion(), "llama.cpp": llamaCpp, "node-llama-cpp": binding };
  const { processor } = await machineFacts();
  const use = { config: parent.config, type: recipe.type, processor, where: file, ...(!anyVersion && { versions }) };
  for (const message of checkCostUse(table, use)) onEvent({ event: "notice", level: "info", message });
  return table;
}
