/**
 * Exact choice of one variant per layer under any number of named budgets: a mixed-integer program, solved by HiGHS.
 * arXiv:2411.19146, appendix B.
 *
 * Departures: choices may cover several layers; budgets have no fixed meaning (costs are free text and come from the
 * library); solutions of a pool differ in a number of layers rather than a share.
 */
import { EspalierError } from "../../base/index.js";
import type { Solver } from "./highs.js";
import { explainInfeasible } from "./infeasible.js";
import { buildProblem, type SearchProblem } from "./library.js";
import {
  atMost,
  exactSum,
  findOptimum,
  type Optimum,
  type OptimumOptions,
  relativeGap,
  type Selection,
  solveRelaxation,
} from "./optimum.js";
import { selectionOf } from "./pair-terms.js";
import type { FrontierPoint, Library, SearchOptions, SearchResult, Solution } from "./types.js";

/**
 * Finds the choice of least summed objective, one variant per layer, within all budgets, and proves it.
 *
 * @throws EspalierError for names that the library lacks, or when a solve runs out of time.
 * @example
 * const { status, objective, choice } = await search(library, { max: { memory_mib: 80_000, runtime_ms: 51_200 } });
 */
export async function search(library: Library, options: SearchOptions = {}): Promise<SearchResult> {
  const started = performance.now();
  const problem = buildProblem(library, options);
  const { createSolver } = await import("./highs.js");
  const solver = await createSolver();
  const limits = { gap: options.gap ?? 0, limitSeconds: options.limitSeconds ?? 300 };
  const selection = selectionOf(problem, options);
  const found = await findPool(solver, selection, options, limits);
  const solutions = found.map((optimum) => describeSolution(problem, optimum));
  const frontier = await sweep(solver, library, options, limits);
  const reason = found.length > 0 ? null : explainInfeasible(solver, problem, limits);
  const [best] = solutions;
  return {
    status: best ? "optimal" : "infeasible",
    objective: best?.objective ?? null,
    bound: best?.bound ?? null,
    gap: best?.gap ?? null,
    seconds: (performance.now() - started) / 1000,
    totals: best?.totals ?? {},
    choice: best?.choice ?? {},
    shadowPrices: best ? shadowPrices(solver, problem, selection) : {},
    solutions,
    frontier,
    reason,
  };
}

/** Names in the options that the library lacks, and other faults of a request, without solving anything. */
export function checkSearch(library: Library, options: SearchOptions): void {
  buildProblem(library, options);
}

/** The optimum, then again and again the best selection that differs enough from all before it. */
async function findPool(
  solver: Solver,
  whole: Selection,
  options: SearchOptions,
  limits: OptimumOptions,
): Promise<Optimum[]> {
  const { solutions = 1, minDistance = 1, signal } = options;
  const found: Optimum[] = [];
  let selection = whole;
  while (found.length < solutions) {
    await yieldTo(signal);
    const next = findOptimum(solver, selection, limits);
    if (!next) break;
    found.push(next);
    const repeated = atMost("repeat", whole, next.chosen, whole.layers - minDistance, ({ layers }) => layers.length);
    selection = { ...selection, constraints: [...selection.constraints, repeated] };
  }
  return found;
}

/** The solver holds the thread: between two solves others have their turn, a Ctrl-C among them. */
export async function yieldTo(signal: AbortSignal | undefined): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
  signal?.throwIfAborted();
}

async function sweep(
  solver: Solver,
  library: Library,
  { sweep: range, ...options }: SearchOptions,
  limits: OptimumOptions,
): Promise<FrontierPoint[]> {
  if (!range) return [];
  const points: FrontierPoint[] = [];
  for (const budget of range.values) {
    await yieldTo(options.signal);
    const problem = buildProblem(library, { ...options, max: { ...options.max, [range.name]: budget } });
    const optimum = findOptimum(solver, selectionOf(problem, options), limits);
    points.push(
      optimum ? { status: "optimal", budget, ...describeSolution(problem, optimum) } : { status: "infeasible", budget },
    );
  }
  return points;
}

function describeSolution(problem: SearchProblem, { chosen, objective, bound }: Optimum): Solution {
  // Columns of pair terms stand behind the choices.
  const choices = chosen.flatMap((choice) => problem.choices[choice] ?? []);
  const total = (name: string) => exactSum([problem.fixed[name] ?? 0, ...choices.map(({ values }) => values[name]!)]);
  return {
    objective,
    bound,
    gap: relativeGap(objective, bound),
    totals: Object.fromEntries(problem.totalNames.map((name) => [name, total(name)])),
    choice: Object.fromEntries(choices.map(({ home, name }) => [home, name])),
  };
}

function shadowPrices(solver: Solver, problem: SearchProblem, selection: Selection): Record<string, number> {
  const prices = solveRelaxation(solver, selection)?.prices ?? [];
  return Object.fromEntries(
    problem.constraints.map(({ name, kind }, k) => [nameOf(problem, name, kind), prices[k] ?? 0]),
  );
}

// A cost with both a `max` and a `min` has two prices; then the second one is named for what it is.
function nameOf({ constraints }: SearchProblem, name: string, kind: "max" | "min"): string {
  const twice = constraints.filter((constraint) => constraint.name === name).length > 1;
  return twice && kind === "min" ? `min ${name}` : name;
}

/** Reads `memory_mib=80000`; the name is free text, the last `=` ends it. */
export function parseBound(text: string, option: string): [name: string, value: number] {
  const at = text.lastIndexOf("=");
  const value = text.slice(at + 1).trim();
  if (at < 1 || value === "" || !Number.isFinite(Number(value))) throw badOption(option, "NAME=NUMBER", text);
  return [text.slice(0, at).trim(), Number(value)];
}

/** Reads `memory_mib=30000..90000/8`: eight evenly spaced budgets, both ends among them. */
export function parseSweep(text: string): { name: string; values: number[] } {
  const match = /^(.+)=([^=]+?)\.\.([^=]+?)\/(\d+)$/.exec(text);
  const [from, to, count] = [Number(match?.[2]), Number(match?.[3]), Number(match?.[4])];
  if (!match || !Number.isFinite(from) || !Number.isFinite(to) || count < 1 || count > 10_000) {
    throw badOption("--sweep", "NAME=FROM..TO/COUNT", text);
  }
  const step = count === 1 ? 0 : (to - from) / (count - 1);
  return {
    name: match[1]!.trim(),
    values: Array.from({ length: count }, (_, i) => (i === count - 1 && count > 1 ? to : from + i * step)),
  };
}

function badOption(where: string, expected: string, found: string): EspalierError {
  return new EspalierError({ where, expected, found: `"${found}"`, exitCode: 2 });
}
