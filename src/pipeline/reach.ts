import { EspalierError, formatBytes } from "../base/index.js";
import { reachOf } from "../plan/index.js";
import { blockChoices } from "../puzzle/index.js";
import { type CostName, costNames } from "./budget.js";
import type { RunContext } from "./context.js";

/**
 * Refuses a budget that no choice of blocks meets before anything is computed. Budgets that can be met one by one but not
 * together are found by the search.
 */
export function checkReach({
  parent,
  space,
  costs,
  budgets,
  parentCosts,
}: Pick<RunContext, "parent" | "space" | "costs" | "budgets" | "parentCosts">): void {
  const choices = space.layers.map(blockChoices);
  const unmet = costNames.flatMap((name) => {
    const [bound, { least }] = [budgets[name], reachOf(costs[name], parent.config.blocks, choices)];
    return bound === undefined || least <= bound ? [] : [{ name, bound, least }];
  });
  if (unmet.length === 0) return;
  throw new EspalierError({
    where: "--budget",
    expected: "a budget that some choice of blocks meets",
    found: unmet.map(({ name, bound }) => shown(name, bound, parentCosts)).join(" and "),
    fix: `the nearest that can be met: ${unmet.map(({ name, least }) => shown(name, least, parentCosts)).join(" and ")}`,
    exitCode: 2,
  });
}

/** The share is rounded up, so that it can be asked for as it stands. */
function shown(name: CostName, value: number, parent: Record<CostName, number>): string {
  const share = Math.ceil((1000 * value) / parent[name] - 1e-6) / 10;
  const amount = name === "memory" ? formatBytes(value) : Math.ceil(value).toLocaleString("en-US");
  return `${name} ${amount} (${share.toFixed(1)} % of the parent)`;
}
