/**
 * @module Reduced costs: how much worse the best selection gets, at the least, when a given choice is forced into it.
 * With the duals of the linear relaxation, r(j) = objective(j) + sum of prices times costs - duals of its layers, and
 * every selection that contains j has an objective of at least `bound` + r(j).
 */
import type { Solver } from "./highs.js";
import { buildProblem } from "./library.js";
import { exactSum, findOptimum, reducedCosts } from "./optimum.js";
import { selectionOf } from "./pair-terms.js";
import type { Library, SearchOptions } from "./types.js";

export interface Relaxed {
  /** Lower bound of the objective. */
  bound: number;
  /** layer -> variant -> reduced cost, >= 0; 0 for those that the relaxation mixes. */
  reduced: Record<string, Record<string, number>>;
}

export interface PricedChoices extends Relaxed {
  /** layer -> variant of the best selection. */
  choice: Record<string, string>;
  /** Its objective. */
  objective: number;
}

/** Prices libraries one after the other with one solver; undefined where nothing keeps the budgets. */
export interface Pricer {
  /** The relaxation alone, in milliseconds. */
  relax(library: Library, options: SearchOptions): Relaxed | undefined;
  /** The best selection as well. */
  price(library: Library, options: SearchOptions): PricedChoices | undefined;
}

export async function createPricer(): Promise<Pricer> {
  const { createSolver } = await import("./highs.js");
  const solver = await createSolver();
  return {
    relax: (library, options) => relax(solver, library, options)?.relaxed,
    price(library, options) {
      const found = relax(solver, library, options);
      const { gap = 0, limitSeconds = 300 } = options;
      const optimum = found && findOptimum(solver, found.selection, { gap, limitSeconds });
      if (!optimum) return undefined;
      const columns = optimum.chosen.map((choice) => found.selection.choices[choice]!);
      // Columns of pair terms cover no layer.
      const chosen = columns.filter(({ layers }) => layers.length > 0);
      return {
        ...found.relaxed,
        choice: Object.fromEntries(chosen.map(({ home, name }) => [home, name])),
        objective: exactSum(columns.map(({ objective }) => objective)),
      };
    },
  };
}

function relax(solver: Solver, library: Library, options: SearchOptions) {
  options.signal?.throwIfAborted();
  const problem = buildProblem(library, options);
  const selection = selectionOf(problem, options);
  const priced = reducedCosts(solver, selection);
  if (!priced) return undefined;
  const reduced: Relaxed["reduced"] = {};
  problem.choices.forEach(({ home, name }, i) => {
    reduced[home] ??= {};
    reduced[home][name] = priced.reduced[i]!;
  });
  return { selection, relaxed: { bound: priced.bound, reduced } };
}
