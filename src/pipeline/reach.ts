import { EspalierError } from "../base/index.js";
import type { BlockConfig } from "../models/index.js";
import { reachOf } from "../plan/index.js";
import { blockChoices, blockId, type Infeasibility, type Library, search } from "../puzzle/index.js";
import type { RunContext } from "./context.js";
import { showCost } from "./costs-shown.js";

type Priced = Pick<RunContext, "recipe" | "parent" | "space" | "costs" | "parentCosts" | "children">;

/**
 * Refuses bounds that no choice of blocks meets before anything is computed: one by one, then together, and, unless the
 * recipe allows it, those that only a child without some whole layers meets.
 */
export async function checkReach(context: Priced): Promise<void> {
  const choices = context.space.layers.map(blockChoices);
  checkLeast(context, choices, "a budget that some choice of blocks meets", "the nearest that can be met: ");
  if (context.recipe.dropLayers) return checkTogether(context, choices);
  const kept = choices.map((blocks) => blocks.filter((block) => !isNothing(block)));
  const expected = "a budget that can be met without leaving whole layers out";
  checkLeast(context, kept, expected, "allow it with --drop-layers, or ask for what keeps every layer: ");
  await checkTogether(context, kept);
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

/** A search over costs alone: any choice that meets all of a child's bounds will do. */
async function checkTogether(context: Priced, choices: readonly BlockConfig[][]): Promise<void> {
  for (const { name, bounds } of context.children) {
    const names = Object.keys(bounds);
    if (names.length < 2) continue;
    const fixed = Object.fromEntries(names.map((cost) => [cost, context.costs[cost]!.fixed]));
    const { reason } = await search(costLibrary(context, choices, names), { max: bounds, fixed });
    if (reason) throw infeasible(reason, context, name);
  }
}

function costLibrary({ costs, parent }: Priced, choices: readonly BlockConfig[][], names: readonly string[]): Library {
  const variant = (block: BlockConfig) => ({
    stats: Object.fromEntries(names.map((cost) => [cost, costs[cost]!.block(block)])),
    metrics: { kl_div: 0 },
  });
  const layers = choices.map((blocks, layer) => {
    const own = parent.config.blocks[layer]!;
    return [String(layer), Object.fromEntries(blocks.map((block) => [blockId(block, own), variant(block)]))];
  });
  return Object.fromEntries(layers);
}

/** Says which bounds cannot hold together and the nearest that can. */
export function infeasible(
  { message, constraints, nearest }: Infeasibility,
  context: Priced,
  child: string,
): EspalierError {
  const shown = (name: string, value: number) => showCost(context, name, value);
  const asked = constraints.map(({ name, budget }) => shown(name, budget)).join(" and ");
  const reachable = Object.entries(nearest.max).map(([name, value]) => shown(name, value));
  return new EspalierError({
    where: context.children.length > 1 ? `--child ${child}` : "--budget",
    expected: "a budget that some choice of blocks meets",
    found: `${asked}; ${message}`,
    fix: `the nearest that can be met: ${reachable.join(" with ")}`,
    exitCode: 2,
  });
}

function isNothing({ attention, ffn }: BlockConfig): boolean {
  return attention.kind === "none" && ffn.kind === "none";
}
