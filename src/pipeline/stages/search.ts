import { join } from "node:path";
import { readJson, writeJsonAtomic } from "../../base/index.js";
import type { BlockConfig } from "../../models/index.js";
import { reachOf, totalCost } from "../../plan/index.js";
import {
  architectureOf,
  type Baseline,
  blockChoices,
  buildSpace,
  choiceOf,
  chooseBaselines,
  type Library,
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
  /** The least sum of scores under each of a row of budgets, by constraint; the first is the one first bounded. */
  frontiers: Frontier[];
}

export interface Frontier {
  /** Constraint that is swept alone. */
  name: string;
  points: SearchResult["frontier"];
}

interface SearchFile {
  /** Feed-forward width of the uniform baseline; absent where no width alone meets the budgets. */
  uniformWidth?: number;
  result: SearchResult;
  baselines: Baseline[];
  frontiers: Frontier[];
}

const sweepPoints = 12;

/** Chooses a child's blocks under its bounds, and its baselines' under the same. */
export async function searchBlocks(context: RunContext, scored: Scored, plan: ChildPlan): Promise<Searched> {
  const { recipe, store, costs, parent } = context;
  const { scoresArtifact } = scored;
  const { bounds } = plan;
  const swept = sweptCosts(context, plan);
  // No other cost, so that another child's leave this search as it was.
  const library = withCosts(scored.library, [...Object.keys(bounds), ...swept]);
  const fixedOf = (names: readonly string[]) => Object.fromEntries(names.map((name) => [name, costs[name]!.fixed]));
  const fixed = fixedOf([...new Set([...Object.keys(bounds), ...swept])]);
  const artifact = await store.produce(
    {
      stage: `search/${plan.name}`,
      title: `the best blocks under ${plan.text}, and baselines`,
      version: 1,
      options: { bounds, fixed, search: recipe.search, baselines: recipe.baselines, seed: recipe.seed, library },
      inputs: { scores: scoresArtifact },
      async run(directory) {
        const result = await search(library, {
          max: bounds,
          fixed,
          solutions: recipe.search.solutions,
          minDistance: recipe.search.minDistance,
          signal: context.signal,
        });
        if (result.reason) throw infeasible(result.reason, context, plan.name);
        const frontiers: Frontier[] = [];
        for (const name of swept) frontiers.push(await sweep(context, library, fixed, name));
        const uniform = recipe.baselines.includes("uniform") ? uniformWidth(context, plan) : undefined;
        const kinds = recipe.baselines.filter((kind) => kind !== "uniform" || uniform === undefined);
        const baselines = chooseBaselines(library, { max: bounds, fixed, seed: recipe.seed, kinds });
        const file: SearchFile = {
          result,
          baselines,
          frontiers,
          ...(uniform !== undefined && { uniformWidth: uniform }),
        };
        await writeJsonAtomic(join(directory, "search.json"), file);
      },
    },
    context,
  );
  const file = (await readJson(join(artifact.directory, "search.json"))) as SearchFile;
  const { result, baselines, frontiers, uniformWidth: width } = file;
  const settled = await settleCandidates(context, {
    scored,
    library: withCosts(library, Object.keys(bounds)),
    plan,
    fixed: fixedOf(Object.keys(bounds)),
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
    frontiers,
  };
}

/** The same scores with some of the costs. */
function withCosts(library: Library, names: readonly string[]): Library {
  const kept = (stats: Record<string, number>) =>
    Object.fromEntries(Object.entries(stats).filter(([name]) => names.includes(name)));
  const variantsOf = (variants: Library[string]) =>
    Object.fromEntries(Object.entries(variants).map(([id, own]) => [id, { ...own, stats: kept(own.stats) }]));
  return Object.fromEntries(Object.entries(library).map(([layer, variants]) => [layer, variantsOf(variants)]));
}

function keyOf({ children }: RunContext, { name }: ChildPlan, baseline: string): string {
  return children.length === 1 ? baseline : `${name} ${baseline}`;
}

/** The first cost that the child bounds, or all of them. */
function sweptCosts({ recipe, costs }: RunContext, { bounds }: ChildPlan): string[] {
  const first = Object.keys(bounds)[0]!;
  return recipe.search.sweep ? [first, ...Object.keys(costs).filter((name) => name !== first)] : [first];
}

async function sweep(
  context: RunContext,
  library: Scored["library"],
  fixed: Record<string, number>,
  name: string,
): Promise<Frontier> {
  const values = sweepValues(context, name);
  const max = { [name]: values.at(-1)! };
  const { frontier } = await search(library, { max, fixed, sweep: { name, values }, signal: context.signal });
  return { name, points: frontier };
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

/** Budgets from just above the least that any choice reaches to the whole parent. */
function sweepValues({ space, parent, costs, parentCosts }: RunContext, name: string): number[] {
  const { least } = reachOf(costs[name]!, parent.config.blocks, space.layers.map(blockChoices));
  const step = (parentCosts[name]! - least) / sweepPoints;
  const values = Array.from({ length: sweepPoints }, (_, i) => least + (i + 1) * step);
  return name === "params" || name === "memory" ? values.map(Math.ceil) : values;
}
