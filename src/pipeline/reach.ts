import { EspalierError } from "../base/index.js";
import type { BlockConfig } from "../models/index.js";
import { reachOf } from "../plan/index.js";
import { blockChoices } from "../puzzle/index.js";
import type { RunContext } from "./context.js";
import { showCost } from "./costs-shown.js";

type Priced = Pick<RunContext, "recipe" | "parent" | "space" | "costs" | "parentCosts" | "children">;

/**
 * Refuses bounds that no choice of blocks meets before anything is computed, and, unless the recipe allows it, those that
 * only a child without some whole layers meets. Bounds that can be met one by one but not together are found by the search.
 */
export function checkReach(context: Priced): void {
  const choices = context.space.layers.map(blockChoices);
  checkLeast(context, choices, "a budget that some choice of blocks meets", "the nearest that can be met: ");
  if (context.recipe.dropLayers) return;
  const kept = choices.map((blocks) => blocks.filter((block) => !isNothing(block)));
  const expected = "a budget that can be met without leaving whole layers out";
  checkLeast(context, kept, expected, "allow it with --drop-layers, or ask for what keeps every layer: ");
}

function checkLeast(context: Priced, choices: readonly BlockConfig[][], expected: string, fix: string): void {
  const { costs, parent, children } = context;
  const unmet = children.flatMap(({ bounds }) =>
    Object.entries(bounds).flatMap(([name, bound]) => {
      const { least } = reachOf(costs[name]!, parent.config.blocks, choices);
      return least <= bound ? [] : [{ name, bound, least }];
    }),
  );
  if (unmet.length === 0) return;
  throw new EspalierError({
    where: "--budget",
    expected,
    found: unmet.map(({ name, bound }) => showCost(context, name, bound)).join(" and "),
    fix: fix + unmet.map(({ name, least }) => showCost(context, name, least)).join(" and "),
    exitCode: 2,
  });
}

function isNothing({ attention, ffn }: BlockConfig): boolean {
  return attention.kind === "none" && ffn.kind === "none";
}
