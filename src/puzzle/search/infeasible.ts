import { EspalierError } from "../../base/index.js";
import type { Solver } from "./highs.js";
import type { Constraint, SearchProblem } from "./library.js";
import { exactSum, findOptimum, type OptimumOptions, objectiveOf, type Selection, toProgram } from "./optimum.js";
import type { Infeasibility } from "./types.js";

/** Why no selection keeps all constraints, and the nearest budgets that some selection does keep. */
export function explainInfeasible(solver: Solver, problem: SearchProblem, options: OptimumOptions): Infeasibility {
  const selection = { layers: problem.layers.length, choices: problem.choices, constraints: problem.constraints };
  const constraints = problem.constraints.map((constraint) => {
    const reachable = reachableAlone(solver, selection, constraint, options);
    return {
      name: constraint.name,
      kind: constraint.kind,
      budget: constraint.budget,
      reachable: toBudget(problem, constraint, reachable),
      holdsAlone: reachable <= constraint.limit + constraint.tolerance,
    };
  });
  const nearest = findNearest(solver, problem, selection, options);
  return { message: describe(constraints, nearest), constraints, nearest };
}

/** The least sum of one constraint's values when it is the only one. */
function reachableAlone(
  solver: Solver,
  { layers, choices }: Selection,
  { values }: Constraint,
  options: OptimumOptions,
): number {
  const priced = choices.map((choice, i) => ({ ...choice, objective: values[i]! }));
  const least = findOptimum(solver, { layers, choices: priced, constraints: [] }, options);
  if (least) return least.objective;
  throw new EspalierError({
    where: "search",
    expected: "choices that can cover every layer exactly once",
    found: "choices over several layers that only overlap or leave gaps",
    fix: "give each layer at least one variant of its own",
    exitCode: 2,
  });
}

/** A sum of (possibly negated) values as the user states the budget: with its sign and the fixed costs. */
function toBudget({ fixed }: SearchProblem, { name, kind }: Constraint, sum: number): number {
  return (kind === "max" ? sum : -sum) + (fixed[name] ?? 0);
}

/** Moves the budgets as little as possible (sum of relative moves) so that all hold, then takes the best choice. */
function findNearest(
  solver: Solver,
  problem: SearchProblem,
  selection: Selection,
  options: OptimumOptions,
): Infeasibility["nearest"] {
  const chosen = leastViolation(solver, selection);
  const moved = selection.constraints.map((constraint) => {
    const sum = exactSum(chosen.map((choice) => constraint.values[choice]!));
    return { ...constraint, limit: Math.max(constraint.limit, sum) };
  });
  const best = findOptimum(solver, { ...selection, constraints: moved }, options);
  const choices = best?.chosen ?? chosen;
  const budgets = (kind: "max" | "min") =>
    Object.fromEntries(moved.filter((c) => c.kind === kind).map((c) => [c.name, toBudget(problem, c, c.limit)]));
  return {
    max: budgets("max"),
    min: budgets("min"),
    objective: objectiveOf(selection, choices),
    choice: Object.fromEntries(choices.map((i) => [problem.choices[i]!.home, problem.choices[i]!.name])),
  };
}

function leastViolation(solver: Solver, selection: Selection): number[] {
  const { layers, choices, constraints } = selection;
  const { program, scales } = toProgram(selection, 0);
  const rows = program.rows.map((row, at) =>
    at < layers
      ? row
      : { ...row, columns: [...row.columns, choices.length + at - layers], values: [...row.values, -1] },
  );
  // A move is counted in shares of the budget; of a budget of nothing, in shares of the largest single value.
  const weights = constraints.map(({ limit }, k) => 1000 / Math.max(Math.abs(limit) * scales[k]!, 1));
  const reach = constraints.map(({ values, limit }, k) => {
    const most = values.reduce((sum, value) => sum + Math.abs(value), Math.abs(limit));
    return most * scales[k]!;
  });
  const solution = solver.solve(
    {
      cost: [...program.cost, ...weights],
      upper: [...choices.map(() => 1), ...reach],
      integers: choices.length,
      rows,
    },
    { relativeGap: 1e-4, limitSeconds: 20 },
  );
  return [...choices.keys()].filter((choice) => solution.values[choice]! > 0.5);
}

function describe(constraints: Infeasibility["constraints"], { max, min }: Infeasibility["nearest"]): string {
  const alone = constraints.filter(({ holdsAlone }) => !holdsAlone);
  const parts = alone.map(
    ({ name, kind, budget, reachable }) =>
      `${name} cannot ${kind === "max" ? "go below" : "rise above"} ${show(reachable)} (${kind} ${show(budget)})`,
  );
  if (alone.length === 0) {
    parts.push(`each budget can be met alone, but not ${constraints.map(({ name }) => name).join(" and ")} together`);
  }
  const nearest = [
    ...Object.entries(max).map(([name, budget]) => `${name} <= ${show(budget)}`),
    ...Object.entries(min).map(([name, budget]) => `${name} >= ${show(budget)}`),
  ];
  return `${parts.join("; ")}; the nearest that holds: ${nearest.join(", ")}`;
}

function show(value: number): string {
  return String(Number(value.toPrecision(10)));
}
