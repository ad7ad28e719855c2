/** @module The one place that meets HiGHS. */
import type { Highs, Model } from "highs";
import { EspalierError, internal } from "../../base/index.js";

/** Minimise cost·x, 0 <= x <= upper, lower <= row·x <= upper for each row. */
export interface Program {
  cost: readonly number[];
  /** Upper bound of each variable. Defaults to 1. */
  upper?: readonly number[];
  /** How many of the first variables are whole numbers; the rest are continuous. Defaults to all. */
  integers?: number;
  rows: readonly Row[];
}

export interface Row {
  lower: number;
  upper: number;
  columns: readonly number[];
  values: readonly number[];
}

export interface ProgramSolution {
  /** `limit`: stopped by time, with the best point known, if any. */
  status: "optimal" | "infeasible" | "limit";
  objective: number;
  /** Proven lower bound. */
  bound: number;
  /** Empty where no point is known. */
  values: Float64Array;
  /** Change of the objective per unit of each row's bound; linear programs only. */
  rowDuals: Float64Array;
}

export interface SolveOptions {
  /** Drop the whole-number conditions. Defaults to false. */
  relaxed?: boolean;
  /** Defaults to no limit. */
  limitSeconds?: number;
  /** Defaults to 0. */
  relativeGap?: number;
}

export interface Solver {
  solve(program: Program, options?: SolveOptions): ProgramSolution;
}

/**
 * Loads the solver. WebAssembly memory grows and is never given back while the instance lives, so each search makes
 * its own instance and drops it.
 */
export async function createSolver(): Promise<Solver> {
  const module = await import("highs");
  // The package's types describe its CommonJS form, where the loader sits one `default` deeper.
  const load = module.default as unknown as typeof module.default.default;
  const highs = await load({ print: () => {}, printErr: () => {} });
  return { solve: (program, options = {}) => solve(highs, program, options) };
}

function solve(highs: Highs, program: Program, options: SolveOptions): ProgramSolution {
  const { relaxed = false, limitSeconds = Number.POSITIVE_INFINITY, relativeGap = 0 } = options;
  const model = createModel(highs, program, relaxed);
  try {
    model.options.set({
      output_flag: false,
      // HiGHS stops at an absolute gap of 1e-6 and a relative one of 1e-4 unless told otherwise.
      mip_rel_gap: relativeGap,
      mip_abs_gap: 1e-9,
      mip_feasibility_tolerance: 1e-8,
      primal_feasibility_tolerance: 1e-9,
      random_seed: 0,
      ...(Number.isFinite(limitSeconds) && { time_limit: limitSeconds }),
    });
    model.run();
    return readSolution(highs, model, relaxed);
  } catch (cause) {
    throw new EspalierError({
      where: "search",
      expected: "HiGHS to finish",
      found: cause instanceof Error ? cause.message : String(cause),
      fix: "costs that differ by more than a factor of 1e9 can be the reason; state them in larger units",
      cause,
    });
  } finally {
    model.dispose();
  }
}

function createModel(highs: Highs, { cost, upper, integers = cost.length, rows }: Program, relaxed: boolean): Model {
  const starts = [0];
  for (const { columns } of rows) starts.push(starts.at(-1)! + columns.length);
  return highs.createModel({
    numCols: cost.length,
    numRows: rows.length,
    colCost: cost,
    colLower: cost.map(() => 0),
    colUpper: upper ?? cost.map(() => 1),
    rowLower: rows.map(({ lower }) => (lower === Number.NEGATIVE_INFINITY ? -highs.infinity : lower)),
    rowUpper: rows.map((row) => (row.upper === Number.POSITIVE_INFINITY ? highs.infinity : row.upper)),
    matrix: {
      format: "csr",
      numRows: rows.length,
      numCols: cost.length,
      starts,
      indices: rows.flatMap(({ columns }) => columns),
      values: rows.flatMap(({ values }) => values),
    },
    ...(relaxed ? {} : { integrality: cost.map((_, column) => (column < integers ? 1 : 0)) }),
  });
}

function readSolution(highs: Highs, model: Model, relaxed: boolean): ProgramSolution {
  const none = new Float64Array();
  const status = model.getModelStatus();
  const { optimal, infeasible, unboundedOrInfeasible, timeLimit } = highs.constants.modelStatus;
  // Every variable is bounded, so "unbounded or infeasible" can only mean the latter.
  if (status === infeasible || status === unboundedOrInfeasible) {
    const infinity = Number.POSITIVE_INFINITY;
    return { status: "infeasible", objective: infinity, bound: infinity, values: none, rowDuals: none };
  }
  if (status !== optimal && status !== timeLimit) internal(`HiGHS ended with model status ${status}`);
  const solution = model.getSolution();
  const known = model.info.get("primal_solution_status") === highs.constants.solutionStatus.feasible;
  const objective = known ? model.getObjectiveValue() : Number.POSITIVE_INFINITY;
  return {
    status: status === optimal ? "optimal" : "limit",
    objective,
    bound: relaxed ? objective : Number(model.info.get("mip_dual_bound")),
    values: known ? Float64Array.from(solution.colValue) : none,
    rowDuals: relaxed ? Float64Array.from(solution.rowDual) : none,
  };
}
