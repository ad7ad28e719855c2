/**
 * @module What two choices cost beyond the sum of both, as extra columns of the program. With y = 1 where both are
 * chosen: a term above zero needs x_a + x_b - y <= 1, one below zero y <= x_a and y <= x_b. The columns cover no layer.
 */
import { EspalierError } from "../../base/index.js";
import type { Choice, Constraint, SearchProblem } from "./library.js";
import type { Selection } from "./optimum.js";
import type { PairTerm, SearchOptions } from "./types.js";

/** What the problem and the options' pair terms let be chosen; the problem's own columns and constraints come first. */
export function selectionOf(problem: SearchProblem, { pairTerms = [] }: SearchOptions): Selection {
  const { layers, choices, constraints } = problem;
  if (pairTerms.length === 0) return { layers: layers.length, choices, constraints };
  const terms = buildPairTerms(problem, pairTerms);
  const columns = choices.length + terms.choices.length;
  return {
    layers: layers.length,
    choices: [...choices, ...terms.choices],
    constraints: [...constraints.map((constraint) => widened(constraint, columns)), ...terms.constraints],
  };
}

/** The columns and their constraints, to be put behind those of the problem. */
function buildPairTerms(
  { choices }: SearchProblem,
  terms: readonly PairTerm[],
): { choices: Choice[]; constraints: Constraint[] } {
  const index = new Map(choices.map(({ home, name }, i) => [`${home}\n${name}`, i]));
  const find = ([layer, variant]: PairTerm["a"]): number => {
    const found = index.get(`${layer}\n${variant}`);
    if (found !== undefined) return found;
    throw new EspalierError({
      where: "search: pair terms",
      expected: "variants of the library",
      found: `"${variant}" in layer "${layer}"`,
      exitCode: 2,
    });
  };
  const size = choices.length + terms.length;
  const row = (limit: number, entries: readonly [column: number, value: number][]): Constraint => {
    const values = new Float64Array(size);
    for (const [column, value] of entries) values[column] = value;
    return { name: "pair", kind: "max", budget: limit, limit, values, tolerance: 1e-9 };
  };
  const constraints = terms.flatMap(({ a, b, value }, i) => {
    const [first, second, both] = [find(a), find(b), choices.length + i];
    if (value >= 0)
      return [
        row(1, [
          [first, 1],
          [second, 1],
          [both, -1],
        ]),
      ];
    return [first, second].map((single) =>
      row(0, [
        [both, 1],
        [single, -1],
      ]),
    );
  });
  const columns = terms.map(({ value }) => ({ home: "", name: "", layers: [], objective: value, values: {} }));
  return { choices: columns, constraints };
}

/** Constraints of the problem itself, for a selection with more columns. */
function widened(constraint: Constraint, columns: number): Constraint {
  const values = new Float64Array(columns);
  values.set(constraint.values);
  return { ...constraint, values };
}
