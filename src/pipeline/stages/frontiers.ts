import { join } from "node:path";
import { readJson, writeJsonAtomic } from "../../base/index.js";
import { reachOf } from "../../plan/index.js";
import { blockChoices, type SearchResult, search } from "../../puzzle/index.js";
import type { RunContext } from "../context.js";
import type { ChildPlan } from "../pricing.js";
import type { Scored } from "./library.js";
import { fixedOf, withCosts } from "./search.js";

export interface Frontier {
  /** Constraint that is swept alone. */
  name: string;
  points: SearchResult["frontier"];
}

const sweepPoints = 12;

/** The least sum of scores under each of a row of budgets, for the report. */
export async function sweepFrontiers(context: RunContext, scored: Scored, plan: ChildPlan): Promise<Frontier[]> {
  const { store, costs } = context;
  const frontiers: Frontier[] = [];
  for (const name of sweptCosts(context, plan)) {
    const library = withCosts(scored.library, [name]);
    const fixed = fixedOf(costs, [name]);
    const values = sweepValues(context, name);
    const artifact = await store.produce(
      {
        stage: `frontier/${name}`,
        title: `the least loss under any bound on ${name}`,
        version: 1,
        options: { fixed, values, library },
        inputs: { scores: scored.scoresArtifact },
        async run(directory) {
          const max = { [name]: values.at(-1)! };
          const { frontier } = await search(library, { max, fixed, sweep: { name, values }, signal: context.signal });
          await writeJsonAtomic(join(directory, "frontier.json"), { name, points: frontier } satisfies Frontier);
        },
      },
      context,
    );
    frontiers.push((await readJson(join(artifact.directory, "frontier.json"))) as Frontier);
  }
  return frontiers;
}

/** The first cost that the child bounds, or all of them. */
function sweptCosts({ recipe, costs }: RunContext, { bounds }: ChildPlan): string[] {
  const first = Object.keys(bounds)[0]!;
  return recipe.search.sweep ? [first, ...Object.keys(costs).filter((name) => name !== first)] : [first];
}

/** Budgets from just above the least that any choice reaches to the whole parent. */
function sweepValues({ space, parent, costs, parentCosts }: RunContext, name: string): number[] {
  const { least } = reachOf(costs[name]!, parent.config.blocks, space.layers.map(blockChoices));
  const step = (parentCosts[name]! - least) / sweepPoints;
  const values = Array.from({ length: sweepPoints }, (_, i) => least + (i + 1) * step);
  return name === "params" || name === "memory" ? values.map(Math.ceil) : values;
}
