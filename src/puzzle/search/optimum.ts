import { EspalierError } from "../../base/index.js";
import { searchCore } from "./core.js";
import type { Program, Row, Solver } from "./highs.js";
import type { Choice, Constraint } from "./library.js";

/** Exactly one choice for every layer, every constraint kept, the sum of objectives least. */
export interface Selection {
  /** How many layers there are to cover. */
  layers: number;
  choices: readonly Choice[];
  constraints: readonly Constraint[];
}

export interface Optimum {
  /** Indices of the chosen, in the order of layers. */
  chosen: number[];
  objective: number;
  bound: number;
}

export interface OptimumOptions {
  gap: number;
  limitSeconds: number;
}

/** Seconds that branch and bound gets before the core is counted out; nearly all libraries need less. */
const firstTrySeconds = 1;
/** Sums of equal values in another order differ by about this much; a smaller gap is rounding. */
const rounding = 1e-9;

/** The best selection, with its proof, or undefined when there is none. Throws when time runs out. */
export function findOptimum(solver: Solver, whole: Selection, options: OptimumOptions): Optimum | undefined {
  const kept = undominated(whole);
  const selection = restrict(whole, kept);
  const started = performance.now();
  const relaxation = solveRelaxation(solver, selection);
  if (!relaxation) return undefined;
  const cuts: Constraint[] = [];
  for (;;) {
    const cut = { ...selection, constraints: [...selection.constraints, ...cuts] };
    const prices = [...relaxation.prices, ...cuts.map(() => 0)];
    const left = options.limitSeconds - (performance.now() - started) / 1000;
    const found = solveWhole(solver, cut, { ...relaxation, prices }, { ...options, limitSeconds: left });
    if (!found) return undefined;
    if (keeps(selection, found.chosen)) return { ...found, chosen: found.chosen.map((choice) => kept[choice]!) };
    // The solver's tolerance let a selection pass that breaks a constraint by a hair: forbid just that one.
    cuts.push(atMost("cut", selection, found.chosen, found.chosen.length - 1, () => 1));
  }
}

/** A constraint on how much of an earlier selection may be repeated. */
export function atMost(
  name: string,
  { choices }: Selection,
  chosen: readonly number[],
  limit: number,
  weight: (choice: Choice) => number,
): Constraint {
  const values = new Float64Array(choices.length);
  for (const choice of chosen) values[choice] = weight(choices[choice]!);
  return { name, kind: "max", budget: limit, limit, values, tolerance: 1e-6 };
}

export function objectiveOf({ choices }: Selection, chosen: readonly number[]): number {
  return exactSum(chosen.map((choice) => choices[choice]!.objective));
}

/** Neumaier's compensated sum: what a sum of decimal fractions should read, whatever the order. */
export function exactSum(values: readonly number[]): number {
  let sum = 0;
  let lost = 0;
  for (const value of values) {
    const next = sum + value;
    lost += Math.abs(sum) >= Math.abs(value) ? sum - next + value : value - next + sum;
    sum = next;
  }
  return sum + lost;
}

/** Whether every constraint holds, in plain double arithmetic. */
export function keeps({ constraints }: Selection, chosen: readonly number[]): boolean {
  return constraints.every(
    ({ values, limit, tolerance }) => exactSum(chosen.map((choice) => values[choice]!)) <= limit + tolerance,
  );
}

/** Leaves out choices that another one over the same layers beats or equals in the objective and in every constraint. */
function undominated({ choices, constraints }: Selection): number[] {
  const groups = new Map<string, number[]>();
  for (const [choice, { layers }] of choices.entries()) {
    const key = layers.join();
    groups.set(key, [...(groups.get(key) ?? []), choice]);
  }
  const beats = (a: number, b: number) =>
    choices[a]!.objective <= choices[b]!.objective && constraints.every(({ values }) => values[a]! <= values[b]!);
  const kept = [...groups.values()].flatMap((group) =>
    // Of two equal ones the first stays, which settles ties the same way on every machine.
    group.filter((b) => group.every((a) => a === b || !beats(a, b) || (beats(b, a) && b < a))),
  );
  return kept.sort((a, b) => a - b);
}

function restrict({ layers, choices, constraints }: Selection, kept: readonly number[]): Selection {
  return {
    layers,
    choices: kept.map((choice) => choices[choice]!),
    constraints: constraints.map((constraint) => ({
      ...constraint,
      values: Float64Array.from(kept, (choice) => constraint.values[choice]!),
    })),
  };
}

export interface Relaxation {
  /** Lower bound of the objective. */
  bound: number;
  /** What one unit of each constraint's limit saves, >= 0. */
  prices: number[];
}

/** The selection with fractions of choices allowed, or undefined when even that is impossible. */
export function solveRelaxation(solver: Solver, selection: Selection): Relaxation | undefined {
  const { layers, constraints } = selection;
  const { program, scales } = toProgram(selection, 1);
  const { status, objective, rowDuals } = solver.solve(program, { relaxed: true });
  if (status === "infeasible") return undefined;
  // Of `<=` rows the dual is the change of the least objective per unit of the bound: zero or negative.
  const prices = constraints.map((_, k) => Math.max(0, -rowDuals[layers + k]! * scales[k]!));
  return { bound: objective, prices };
}

/** The relaxation's bound and what each choice adds to it at least, >= 0; undefined when there is no selection. */
export function reducedCosts(solver: Solver, selection: Selection): { bound: number; reduced: number[] } | undefined {
  const { layers, choices, constraints } = selection;
  const { program, scales } = toProgram(selection, 1);
  const { status, objective, rowDuals } = solver.solve(program, { relaxed: true });
  if (status === "infeasible") return undefined;
  const reduced = choices.map(({ layers: covered, objective: own }, choice) => {
    const duals = covered.map((layer) => -rowDuals[layer]!);
    const priced = constraints.map(({ values }, k) => -rowDuals[layers + k]! * scales[k]! * values[choice]!);
    return Math.max(0, exactSum([own, ...duals, ...priced]));
  });
  return { bound: objective, reduced };
}

function solveWhole(
  solver: Solver,
  selection: Selection,
  relaxation: Relaxation,
  { gap, limitSeconds }: OptimumOptions,
): Optimum | undefined {
  const started = performance.now();
  const secondsLeft = () => Math.max(0.1, limitSeconds - (performance.now() - started) / 1000);
  const single = selection.choices.every(({ layers }) => layers.length === 1);
  const first = branch(
    solver,
    selection,
    relaxation,
    gap,
    single ? Math.min(firstTrySeconds, limitSeconds) : limitSeconds,
  );
  if (first.status !== "limit") return first.optimum;
  if (single) {
    const counted = countOut(selection, relaxation, first.optimum, secondsLeft() / 2);
    if (counted) return counted;
    const again = branch(solver, selection, relaxation, gap, secondsLeft());
    if (again.status !== "limit") return again.optimum;
    return outOfTime(again.optimum ?? first.optimum, limitSeconds);
  }
  return outOfTime(first.optimum, limitSeconds);
}

function outOfTime(best: Optimum | undefined, seconds: number): never {
  const known = best && relativeGap(best.objective, best.bound);
  throw new EspalierError({
    where: "search",
    expected: `a proven optimum within ${Math.round(seconds)} s`,
    found: best ? `a choice of ${best.objective} with a gap of ${known!.toExponential(1)}` : "no choice yet",
    fix: best
      ? `give it longer (--limit), or accept that gap (--gap ${known!.toPrecision(2)})`
      : "give it longer (--limit)",
  });
}

/** Branch and bound by HiGHS. */
function branch(
  solver: Solver,
  selection: Selection,
  relaxation: Relaxation,
  gap: number,
  limitSeconds: number,
): { status: "optimal" | "infeasible" | "limit"; optimum: Optimum | undefined } {
  const scale = objectiveScale(selection, relaxation.bound);
  const { program } = toProgram(selection, scale);
  const { status, bound, values } = solver.solve(program, { relativeGap: gap, limitSeconds });
  if (values.length === 0) return { status, optimum: undefined };
  const chosen = [...selection.choices.keys()].filter((choice) => values[choice]! > 0.5);
  const place = (choice: number) => selection.choices[choice]!.layers[0] ?? selection.layers;
  chosen.sort((a, b) => place(a) - place(b));
  const objective = objectiveOf(selection, chosen);
  return {
    status,
    optimum: { chosen, objective, bound: tidyBound(objective, Math.max(bound / scale, relaxation.bound)) },
  };
}

/** Enumeration of the core: proves what branch and bound could not, or gives up. */
function countOut(
  selection: Selection,
  { prices }: Relaxation,
  incumbent: Optimum | undefined,
  limitSeconds: number,
): Optimum | undefined {
  const layers = Array.from({ length: selection.layers }, (): number[] => []);
  for (const [choice, { layers: covered }] of selection.choices.entries()) layers[covered[0]!]!.push(choice);
  const { constraints, choices } = selection;
  const objective = Float64Array.from(choices, (choice) => choice.objective);
  const known = incumbent && keeps(selection, incumbent.chosen) ? incumbent : undefined;
  const result = searchCore(
    { layers, objective, constraints, prices },
    { incumbent: known?.objective ?? Number.POSITIVE_INFINITY, limitSeconds },
  );
  if (result.found === "unknown") return undefined;
  if (result.found === "incumbent") return known && { ...known, bound: known.objective };
  const total = objectiveOf(selection, result.selection);
  return { chosen: result.selection, objective: total, bound: total };
}

/**
 * Rows: one per layer (covered exactly once), then one per constraint. Costs are scaled so that what the constraints
 * cost is about 1000, and constraints so that their largest value is, because the solver's tolerances are absolute.
 */
export function toProgram(
  { layers, choices, constraints }: Selection,
  objectiveScale: number,
): { program: Program; scales: number[] } {
  const rows: Row[] = Array.from({ length: layers }, () => ({ lower: 1, upper: 1, columns: [], values: [] }));
  for (const [column, choice] of choices.entries()) {
    for (const layer of choice.layers) {
      (rows[layer]!.columns as number[]).push(column);
      (rows[layer]!.values as number[]).push(1);
    }
  }
  const scales = constraints.map(({ values }) => 1000 / (values.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1000));
  for (const [k, { values, limit, tolerance }] of constraints.entries()) {
    const columns = [...choices.keys()].filter((column) => values[column] !== 0);
    rows.push({
      lower: Number.NEGATIVE_INFINITY,
      upper: (limit + tolerance) * scales[k]!,
      columns,
      values: columns.map((column) => values[column]! * scales[k]!),
    });
  }
  return { program: { cost: choices.map(({ objective }) => objective * objectiveScale), rows }, scales };
}

/** 1000 over the price of the constraints: the relaxation's bound less the best objective without any. */
function objectiveScale({ layers, choices }: Selection, bound: number): number {
  const least = new Array<number>(layers).fill(Number.POSITIVE_INFINITY);
  for (const { layers: covered, objective } of choices) {
    for (const layer of covered) least[layer] = Math.min(least[layer]!, objective / covered.length);
  }
  const price = bound - least.reduce((sum, value) => sum + value, 0);
  const largest = choices.reduce((most, { objective }) => Math.max(most, Math.abs(objective)), 0) || 1;
  return price > 1e-9 * largest ? Math.min(1000 / price, 1e8 / largest) : 1000 / largest;
}

function tidyBound(objective: number, bound: number): number {
  return relativeGap(objective, bound) <= rounding ? objective : bound;
}

export function relativeGap(objective: number, bound: number): number {
  const difference = objective - bound;
  return difference <= 0 ? 0 : difference / Math.max(Math.abs(objective), 1e-300);
}
