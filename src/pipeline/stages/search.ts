import { join } from "node:path";
import { readJson, writeJsonAtomic } from "../../base/index.js";
import type { BlockConfig } from "../../models/index.js";
import { totalCost } from "../../plan/index.js";
import {
  architectureOf,
  type Baseline,
  buildSpace,
  choiceOf,
  chooseBaselines,
  type Library,
  nearestOf,
  predictedKl,
  type SearchResult,
  type Space,
  search,
} from "../../puzzle/index.js";
import type { RunContext } from "../context.js";
import type { ChildPlan } from "../pricing.js";
import { infeasible } from "../reach.js";
import type { Artifact } from "../store.js";
import { type SettledChoice, settleCandidates } from "./candidates.js";
import type { Scored } from "./library.js";

/** A child to be made: the search's own, or one chosen in another way at the same budget. */
export interface Candidate {
  /** In tables: the child's own name, "uniform", "random 2". */
  name: string;
  /** Among all candidates of a run: `name`, of several children's baselines `CHILD uniform`. */
  key: string;
  role: "child" | "baseline";
  choice: Record<string, string>;
  blocks: BlockConfig[];
  /** Summed scores, nats a token; absent for blocks that are not in the library. */
  predicted?: number;
  /** Where its starts come from when not from the library: a space that has them. */
  space?: Space;
}

export interface Searched {
  artifact: Artifact;
  result: SearchResult;
  child: Candidate;
  baselines: Candidate[];
  /** What was measured of whole candidates before the child was chosen, and how the search was corrected by it. */
  settled: SettledChoice;
}

interface SearchFile {
  /** Feed-forward width of the uniform baseline; absent where no width alone meets the budgets. */
  uniformWidth?: number;
  result: SearchResult;
  baselines: Baseline[];
}

/** Chooses a child's blocks under its bounds, and its baselines' under the same. */
export async function searchBlocks(context: RunContext, scored: Scored, plan: ChildPlan): Promise<Searched> {
  const { recipe, store, costs, parent } = context;
  const { scoresArtifact } = scored;
  const { minDistance } = recipe.search;
  const solutions = nearestOf(recipe.search.solutions);
  const { bounds } = plan;
  // No other cost, so that another child's leave this search as it was.
  const library = withCosts(scored.library, Object.keys(bounds));
  const fixed = fixedOf(costs, Object.keys(bounds));
  const artifact = await store.produce(
    {
      stage: `search/${plan.name}`,
      title: `the best blocks under ${plan.text}, and baselines`,
      version: 2,
      options: { bounds, fixed, solutions, minDistance, baselines: recipe.baselines, seed: recipe.seed, library },
      inputs: { scores: scoresArtifact },
      async run(directory) {
        const result = await search(library, {
          max: bounds,
          fixed,
          solutions,
          minDistance,
          signal: context.signal,
        });
        if (result.reason) throw infeasible(result.reason, context, plan.name);
        const uniform = recipe.baselines.includes("uniform") ? uniformWidth(context, plan) : undefined;
        const kinds = recipe.baselines.filter((kind) => kind !== "uniform" || uniform === undefined);
        const baselines = chooseBaselines(library, { max: bounds, fixed, seed: recipe.seed, kinds });
        const file: SearchFile = {
          result,
          baselines,
          ...(uniform !== undefined && { uniformWidth: uniform }),
        };
        await writeJsonAtomic(join(directory, "search.json"), file);
      },
    },
    context,
  );
  const file = (await readJson(join(artifact.directory, "search.json"))) as SearchFile;
  const { result, baselines, uniformWidth: width } = file;
  const settled = await settleCandidates(context, {
    scored,
    library,
    plan,
    fixed,
    searched: result,
    baselines,
  });
  const candidate = (name: string, role: Candidate["role"], choice: Record<string, string>): Candidate => ({
    name,
    key: role === "child" ? name : keyOf(context, plan, name),
    role,
    choice,
    blocks: architectureOf(parent.config, choice),
    predicted: predictedKl(library, choice),
  });
  return {
    artifact,
    result,
    child: candidate(plan.name, "child", settled.choice),
    baselines: [
      ...(width === undefined ? [] : [uniformCandidate(context, plan, width)]),
      ...baselines.map(({ name, choice }) => candidate(name, "baseline", choice)),
    ],
    settled,
  };
}

/** What a model costs outside of its blocks. */
export function fixedOf(costs: RunContext["costs"], names: readonly string[]): Record<string, number> {
  return Object.fromEntries(names.map((name) => [name, costs[name]!.fixed]));
}

/** The same scores with some of the costs. */
export function withCosts(library: Library, names: readonly string[]): Library {
  const kept = (stats: Record<string, number>) =>
    Object.fromEntries(Object.entries(stats).filter(([name]) => names.includes(name)));
  const variantsOf = (variants: Library[string]) =>
    Object.fromEntries(Object.entries(variants).map(([id, own]) => [id, { ...own, stats: kept(own.stats) }]));
  return Object.fromEntries(Object.entries(library).map(([layer, variants]) => [layer, variantsOf(variants)]));
}

function keyOf({ children }: RunContext, { name }: ChildPlan, baseline: string): string {
  return children.length === 1 ? baseline : `${name} ${baseline}`;
}

/** The widest feed-forward that, the same in every layer, meets all budgets with the attention left as it is. */
function uniformWidth({ parent, costs }: RunContext, { bounds }: ChildPlan): number | undefined {
  const widths = parent.config.blocks.map(({ ffn }) => (ffn.kind === "swiglu" ? ffn.width : 0));
  const step = widths.every((width) => width % 32 === 0) ? 32 : 4;
  const meets = (width: number) =>
    Object.entries(bounds).every(
      ([name, bound]) => totalCost(costs[name]!, withWidth(parent.config.blocks, width)) <= bound,
    );
  for (let width = Math.floor((Math.min(...widths) - 1) / step) * step; width > 0; width -= step) {
    if (meets(width)) return width;
  }
  return undefined;
}

function withWidth(blocks: readonly BlockConfig[], width: number): BlockConfig[] {
  return blocks.map(({ attention }) => ({ attention, ffn: { kind: "swiglu", width } }));
}

/** Made like every other child, but of a width that the library need not have. */
function uniformCandidate(context: RunContext, plan: ChildPlan, width: number): Candidate {
  const { parent, recipe } = context;
  const { config } = parent;
  const widest = Math.max(...config.blocks.map(({ ffn }) => (ffn.kind === "swiglu" ? ffn.width : 0)));
  const narrow = { targets: recipe.targets, fewerKvHeads: false, linear: false, none: false };
  const space = buildSpace(config, { ...narrow, ffnFractions: [1, width / widest] });
  const blocks = withWidth(config.blocks, width);
  const key = keyOf(context, plan, "uniform");
  return { name: "uniform", key, role: "baseline", choice: choiceOf(config, blocks), blocks, space };
}
