import { join } from "node:path";
import { EspalierError, formatBytes, formatCount, readJson, writeJsonAtomic } from "../../base/index.js";
import type { BlockConfig } from "../../models/index.js";
import { reachOf, totalCost } from "../../plan/index.js";
import {
  architectureOf,
  type Baseline,
  blockChoices,
  buildSpace,
  choiceOf,
  chooseBaselines,
  type Infeasibility,
  predictedKl,
  type SearchResult,
  type Space,
  search,
} from "../../puzzle/index.js";
import type { CostName } from "../budget.js";
import type { RunContext } from "../context.js";
import type { Artifact } from "../store.js";
import type { Scored } from "./library.js";

/** A child to be made: the search's own, or one chosen in another way at the same budget. */
export interface Candidate {
  name: string;
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
  /** The other solutions of the search, best first. */
  pool: Candidate[];
  /** Name of the cost that the frontier is drawn over. */
  swept: CostName;
}

interface SearchFile {
  /** Feed-forward width of the uniform baseline; absent where no width alone meets the budgets. */
  uniformWidth?: number;
  result: SearchResult;
  baselines: Baseline[];
}

const sweepPoints = 12;

/** Chooses the child's blocks under the budgets, and the baselines' under the same. */
export async function searchBlocks(context: RunContext, { library, scoresArtifact }: Scored): Promise<Searched> {
  const { recipe, store, budgets, costs, parent } = context;
  const fixed = { params: costs.params.fixed, memory: costs.memory.fixed };
  const swept = Object.keys(budgets)[0] as CostName;
  const artifact = await store.produce(
    {
      stage: "search",
      title: "the best blocks under the budget, and baselines",
      version: 1,
      options: { budgets, fixed, search: recipe.search, baselines: recipe.baselines, seed: recipe.seed, library },
      inputs: { scores: scoresArtifact },
      async run(directory) {
        const result = await search(library, {
          max: budgets,
          fixed,
          ...recipe.search,
          sweep: { name: swept, values: sweepValues(context, swept) },
          signal: context.signal,
        });
        if (result.reason) throw infeasible(result.reason, context);
        const uniform = recipe.baselines.includes("uniform") ? uniformWidth(context) : undefined;
        const kinds = recipe.baselines.filter((kind) => kind !== "uniform" || uniform === undefined);
        const baselines = chooseBaselines(library, { max: budgets, fixed, seed: recipe.seed, kinds });
        const file: SearchFile = { result, baselines, ...(uniform !== undefined && { uniformWidth: uniform }) };
        await writeJsonAtomic(join(directory, "search.json"), file);
      },
    },
    context,
  );
  const file = (await readJson(join(artifact.directory, "search.json"))) as SearchFile;
  const { result, baselines, uniformWidth: width } = file;
  const candidate = (name: string, role: Candidate["role"], choice: Record<string, string>): Candidate => ({
    name,
    role,
    choice,
    blocks: architectureOf(parent.config, choice),
    predicted: predictedKl(library, choice),
  });
  return {
    artifact,
    result,
    child: candidate("child", "child", result.choice),
    baselines: [
      ...(width === undefined ? [] : [uniformCandidate(context, width)]),
      ...baselines.map(({ name, choice }) => candidate(name, "baseline", choice)),
    ],
    pool: result.solutions.slice(1).map(({ choice }, i) => candidate(`solution ${i + 2}`, "baseline", choice)),
    swept,
  };
}

/** The widest feed-forward that, the same in every layer, meets all budgets with the attention left as it is. */
function uniformWidth({ parent, costs, budgets }: RunContext): number | undefined {
  const widths = parent.config.blocks.map(({ ffn }) => (ffn.kind === "swiglu" ? ffn.width : 0));
  const step = widths.every((width) => width % 32 === 0) ? 32 : 4;
  const meets = (width: number) =>
    Object.entries(budgets).every(([name, bound]) => {
      const cost = costs[name as CostName];
      return totalCost(cost, withWidth(parent.config.blocks, width)) <= bound;
    });
  for (let width = Math.floor((Math.min(...widths) - 1) / step) * step; width > 0; width -= step) {
    if (meets(width)) return width;
  }
  return undefined;
}

function withWidth(blocks: readonly BlockConfig[], width: number): BlockConfig[] {
  return blocks.map(({ attention }) => ({ attention, ffn: { kind: "swiglu", width } }));
}

/** Made like every other child, but of a width that the library need not have. */
function uniformCandidate({ parent, recipe }: RunContext, width: number): Candidate {
  const { config } = parent;
  const widest = Math.max(...config.blocks.map(({ ffn }) => (ffn.kind === "swiglu" ? ffn.width : 0)));
  const narrow = { targets: recipe.targets, fewerKvHeads: false, linear: false, none: false };
  const space = buildSpace(config, { ...narrow, ffnFractions: [1, width / widest] });
  const blocks = withWidth(config.blocks, width);
  return { name: "uniform", role: "baseline", choice: choiceOf(config, blocks), blocks, space };
}

/** Budgets from just above the least that any choice reaches to the whole parent. */
function sweepValues({ space, parent, costs, parentCosts }: RunContext, name: CostName): number[] {
  const { least } = reachOf(costs[name], parent.config.blocks, space.layers.map(blockChoices));
  const step = (parentCosts[name] - least) / sweepPoints;
  return Array.from({ length: sweepPoints }, (_, i) => Math.ceil(least + (i + 1) * step));
}

function infeasible({ message, constraints, nearest }: Infeasibility, { parentCosts }: RunContext): EspalierError {
  const shown = (name: string, value: number) => {
    const share = `${((100 * value) / parentCosts[name as CostName]).toFixed(1)} % of the parent`;
    return `${name} ${name === "memory" ? formatBytes(value) : formatCount(value)} (${share})`;
  };
  const asked = constraints.map(({ name, budget }) => shown(name, budget)).join(" and ");
  const reachable = Object.entries(nearest.max).map(([name, value]) => shown(name, value));
  return new EspalierError({
    where: "--budget",
    expected: "a budget that some choice of blocks meets",
    found: `${asked}; ${message}`,
    fix: `the nearest that can be met: ${reachable.join(" with ")}`,
    exitCode: 2,
  });
}
