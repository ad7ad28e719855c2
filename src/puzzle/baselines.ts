/**
 * @module Children chosen in simpler ways over the same block library and budgets, to compare a search with.
 *
 * `uniform`: the same variant in every layer. `greedy`: arXiv:2411.19146 section 5 (the budget split evenly over the
 * layers, easiest layer first, leftovers roll on). `random`: three seeded draws, then filled up to the budget.
 *
 * Departures: the paper's greedy has one budget; with several, a variant must fit its share of each. Where no variant
 * fits its share, the one that overdraws least is taken and the layers after it pay. Choices over several layers are
 * left to the search.
 */
import { createRng, EspalierError, type Rng } from "../base/index.js";
import { buildProblem, type SearchProblem } from "./search/library.js";
import { exactSum } from "./search/optimum.js";
import type { Library, SearchOptions } from "./search/types.js";

export type BaselineKind = "uniform" | "greedy" | "random";

export interface Baseline {
  /** "uniform", "greedy", "random 1", "random 2", "random 3". */
  name: string;
  kind: BaselineKind;
  /** layer -> variant. */
  choice: Record<string, string>;
  /** Summed objective. */
  objective: number;
  totals: Record<string, number>;
}

export interface BaselineOptions extends Pick<SearchOptions, "objective" | "max" | "min" | "fixed"> {
  /** Seed of the random ones. Defaults to 0. */
  seed?: number;
  /** Defaults to all three. */
  kinds?: readonly BaselineKind[];
}

const randomDraws = 3;

/** The baselines asked for, each within the budgets; one that cannot meet them is left out. */
export function chooseBaselines(library: Library, options: BaselineOptions = {}): Baseline[] {
  const { seed = 0, kinds = ["uniform", "greedy", "random"] } = options;
  const grid = buildGrid(buildProblem(library, options));
  const makers: Record<BaselineKind, () => [name: string, chosen: number[] | undefined][]> = {
    uniform: () => [["uniform", chooseUniform(grid)]],
    greedy: () => [["greedy", chooseGreedy(grid)]],
    random: () =>
      Array.from({ length: randomDraws }, (_, i) => [
        `random ${i + 1}`,
        chooseRandom(grid, createRng(`baseline ${seed} ${i}`)),
      ]),
  };
  return kinds.flatMap((kind) =>
    makers[kind]().flatMap(([name, chosen]) => (chosen ? [describe(grid, name, kind, chosen)] : [])),
  );
}

/** One variant per layer, by index into the choices. */
interface Grid {
  problem: SearchProblem;
  layers: number[][];
  /** Cost of a choice in each constraint, as a share of the largest sum of costs there is; `min` costs are negative. */
  costs: number[][];
  limits: number[];
}

function buildGrid(problem: SearchProblem): Grid {
  const layers = problem.layers.map((_, layer) =>
    [...problem.choices.keys()].filter((choice) => {
      const { layers: covered } = problem.choices[choice]!;
      return covered.length === 1 && covered[0] === layer;
    }),
  );
  const empty = layers.findIndex((choices) => choices.length === 0);
  if (empty >= 0) {
    throw new EspalierError({
      where: `baselines: layer ${problem.layers[empty]}`,
      expected: "a variant of its own",
      found: "only choices over several layers",
    });
  }
  const scales = problem.constraints.map(({ values }) =>
    layers.reduce((sum, choices) => sum + Math.max(...choices.map((choice) => Math.abs(values[choice]!))), 0),
  );
  return {
    problem,
    layers,
    costs: problem.choices.map((_, choice) =>
      problem.constraints.map(({ values }, k) => values[choice]! / (scales[k]! || 1)),
    ),
    limits: problem.constraints.map(({ limit, tolerance }, k) => (limit + tolerance) / (scales[k]! || 1)),
  };
}

function describe({ problem }: Grid, name: string, kind: BaselineKind, chosen: number[]): Baseline {
  const choices = chosen.map((choice) => problem.choices[choice]!);
  const total = (stat: string) => exactSum([problem.fixed[stat] ?? 0, ...choices.map(({ values }) => values[stat]!)]);
  return {
    name,
    kind,
    choice: Object.fromEntries(choices.map(({ home, name }) => [home, name])),
    objective: exactSum(choices.map(({ objective }) => objective)),
    totals: Object.fromEntries(problem.totalNames.map((stat) => [stat, total(stat)])),
  };
}

function objectiveOf({ problem }: Grid, chosen: readonly number[]): number {
  return exactSum(chosen.map((choice) => problem.choices[choice]!.objective));
}

function within({ problem }: Grid, chosen: readonly number[]): boolean {
  return problem.constraints.every(
    ({ values, limit, tolerance }) => exactSum(chosen.map((choice) => values[choice]!)) <= limit + tolerance,
  );
}

function chooseUniform(grid: Grid): number[] | undefined {
  const { problem, layers } = grid;
  const byName = (choices: readonly number[]) =>
    new Map(choices.map((choice) => [problem.choices[choice]!.name, choice]));
  const places = layers.map(byName);
  const everywhere = [...places[0]!.keys()].filter((name) => places.every((place) => place.has(name)));
  const candidates = everywhere.map((name) => places.map((place) => place.get(name)!));
  return least(
    candidates.filter((chosen) => within(grid, chosen)),
    (chosen) => objectiveOf(grid, chosen),
  );
}

function chooseGreedy(grid: Grid): number[] | undefined {
  const { problem, layers, costs, limits } = grid;
  const difficulty = layers.map((choices) => objectiveOf(grid, choices) / choices.length);
  const order = [...layers.keys()].sort((a, b) => difficulty[a]! - difficulty[b]!);
  const left = [...limits];
  const chosen: number[] = [];
  for (const [done, layer] of order.entries()) {
    const share = left.map((budget) => budget / (order.length - done));
    const overdraw = (choice: number) =>
      Math.max(0, ...costs[choice]!.map((cost, k) => cost - share[k]! * (1 + Number.EPSILON)));
    const fitting = layers[layer]!.filter((choice) => overdraw(choice) === 0);
    const choice =
      least(fitting, (candidate) => problem.choices[candidate]!.objective) ?? least(layers[layer]!, overdraw)!;
    chosen[layer] = choice;
    for (const [k, cost] of costs[choice]!.entries()) left[k]! -= cost;
  }
  return within(grid, chosen) ? chosen : undefined;
}

/** A uniform draw, brought within the budgets by random steps that lessen the excess, then filled by random steps up. */
function chooseRandom(grid: Grid, rng: Rng): number[] | undefined {
  const chosen = grid.layers.map((choices) => choices[rng.int(choices.length)]!);
  while (excess(grid, chosen) > 0) if (!randomStep(grid, chosen, rng, lessens)) return undefined;
  while (randomStep(grid, chosen, rng, fills));
  return chosen;
}

/** How far the budgets are exceeded, in all. */
function excess({ costs, limits }: Grid, chosen: readonly number[]): number {
  return limits.reduce((sum, limit, k) => {
    const total = exactSum(chosen.map((choice) => costs[choice]![k]!));
    return sum + Math.max(0, total - limit);
  }, 0);
}

type Accept = (grid: Grid, before: readonly number[], after: readonly number[]) => boolean;

const lessens: Accept = (grid, before, after) => excess(grid, after) < excess(grid, before);

/** More of every budget used, none exceeded. */
const fills: Accept = (grid, before, after) => {
  const used = (chosen: readonly number[]) => exactSum(chosen.flatMap((choice) => grid.costs[choice]!));
  return excess(grid, after) === 0 && used(after) > used(before);
};

/** Makes the first change of one layer, in random order, that is acceptable; false if none is. */
function randomStep(grid: Grid, chosen: number[], rng: Rng, accept: Accept): boolean {
  for (const layer of rng.shuffle([...grid.layers.keys()])) {
    for (const choice of rng.shuffle(grid.layers[layer]!)) {
      const after = chosen.with(layer, choice);
      if (choice === chosen[layer] || !accept(grid, chosen, after)) continue;
      chosen[layer] = choice;
      return true;
    }
  }
  return false;
}

function least<T>(items: readonly T[], value: (item: T) => number): T | undefined {
  let best: T | undefined;
  for (const item of items) if (best === undefined || value(item) < value(best)) best = item;
  return best;
}
