import { checkSchema, EspalierError, z } from "../../base/index.js";
import type { Library, SearchOptions, Variant } from "./types.js";

const numbers = z.record(z.string(), z.number());

/** Loose: libraries made elsewhere carry descriptions of their blocks. */
export const librarySchema = z
  .record(
    z.string(),
    z.record(
      z.string(),
      z.looseObject({
        stats: numbers.describe("Costs of the choice, any names."),
        metrics: numbers.describe("Scores of the choice, any names."),
        layers: z
          .array(z.string())
          .min(1)
          .optional()
          .describe("All layers that the choice replaces, its own among them."),
      }),
    ),
  )
  .superRefine((library, context) => {
    for (const [path, message] of structureProblems(library as Library)) {
      context.addIssue({ code: "custom", path, message });
    }
  });

/** Checks a block library that came from outside. Throws with every problem and its path. */
export function checkLibrary(value: unknown, where: string): Library {
  return checkSchema(librarySchema, value, where) as Library;
}

type Problem = [path: string[], message: string];

function structureProblems(library: Library): Problem[] {
  const layers = Object.keys(library);
  if (layers.length === 0) return [[[], "expected at least one layer, found none"]];
  const problems: Problem[] = [];
  const covered = new Set<string>();
  for (const [home, name, { layers: span }] of variantsOf(library)) {
    for (const layer of span ?? [home]) {
      covered.add(layer);
      if (!(layer in library)) problems.push([[home, name, "layers"], `"${layer}" is not a layer of this library`]);
    }
    if (span && !span.includes(home)) problems.push([[home, name, "layers"], `must name its own layer "${home}"`]);
    if (span && new Set(span).size < span.length) problems.push([[home, name, "layers"], "names a layer twice"]);
  }
  for (const layer of layers) {
    if (!covered.has(layer)) problems.push([[layer], "expected at least one variant, found none"]);
  }
  return problems;
}

export function* variantsOf(library: Library): Generator<[layer: string, name: string, variant: Variant]> {
  for (const [layer, variants] of Object.entries(library)) {
    for (const [name, variant] of Object.entries(variants)) yield [layer, name, variant];
  }
}

/** One thing that can be chosen: a variant, and the layers it covers. */
export interface Choice {
  /** The layer that lists it. */
  home: string;
  name: string;
  /** Indices of the layers it covers. */
  layers: number[];
  objective: number;
  /** Costs and scores by name; a name that is both a cost and a score means the cost. */
  values: Record<string, number>;
}

/** sum of `values` over the chosen <= `limit`. A `min` is held as the `max` of the negated values. */
export interface Constraint {
  name: string;
  kind: "max" | "min";
  /** As the user stated it, fixed costs included. */
  budget: number;
  limit: number;
  /** By choice. */
  values: Float64Array;
  /** Rounding of sums: totals above `limit` by no more than this still satisfy it. */
  tolerance: number;
}

/** A library as the search sees it. */
export interface SearchProblem {
  layers: string[];
  choices: Choice[];
  constraints: Constraint[];
  fixed: Record<string, number>;
  /** Names that totals state. */
  totalNames: string[];
}

/** Checks the names in the options against the library and lays the choices out. Throws with every problem at once. */
export function buildProblem(library: Library, options: SearchOptions): SearchProblem {
  const { objective = "kl_div", max = {}, min = {}, fixed = {} } = options;
  checkNames(library, options);
  const layers = Object.keys(library);
  const index = new Map(layers.map((layer, i) => [layer, i]));
  const choices = [...variantsOf(library)].map(([home, name, variant]) => ({
    home,
    name,
    layers: (variant.layers ?? [home]).map((layer) => index.get(layer)!).sort((a, b) => a - b),
    objective: variant.metrics[objective]!,
    values: { ...variant.metrics, ...variant.stats },
  }));
  // An order of its own, so that ties do not depend on the order of keys in a file.
  choices.sort((a, b) => a.layers[0]! - b.layers[0]! || a.objective - b.objective || (a.name < b.name ? -1 : 1));
  const constraints = [
    ...Object.entries(max).map(([name, budget]) => constraint("max", name, budget, fixed[name] ?? 0, choices)),
    ...Object.entries(min).map(([name, budget]) => constraint("min", name, budget, fixed[name] ?? 0, choices)),
  ];
  const constrained = constraints.map(({ name }) => name);
  return { layers, choices, constraints, fixed, totalNames: [...new Set([...commonStats(library), ...constrained])] };
}

function constraint(
  kind: "max" | "min",
  name: string,
  budget: number,
  fixed: number,
  choices: readonly Choice[],
): Constraint {
  const sign = kind === "max" ? 1 : -1;
  const values = Float64Array.from(choices, (choice) => sign * choice.values[name]!);
  const limit = sign * (budget - fixed);
  let largest = Math.abs(limit);
  for (const value of values) largest = Math.max(largest, Math.abs(value));
  return { name, kind, budget, limit, values, tolerance: 1e-12 * largest };
}

function commonStats(library: Library): string[] {
  const variants = [...variantsOf(library)].map(([, , { stats }]) => stats);
  return Object.keys(variants[0] ?? {}).filter((name) => variants.every((stats) => name in stats));
}

function checkNames(
  library: Library,
  { objective = "kl_div", max = {}, min = {}, fixed = {}, sweep }: SearchOptions,
): void {
  const variants = [...variantsOf(library)];
  const metrics = new Set(variants.flatMap(([, , variant]) => Object.keys(variant.metrics)));
  const names = new Set([...variants.flatMap(([, , variant]) => Object.keys(variant.stats)), ...metrics]);
  const problems: string[] = [];
  const missing = (what: string, name: string, has: (variant: Variant) => boolean) => {
    for (const [layer, variant, values] of variants) {
      if (!has(values)) problems.push(`${layer}.${variant}: has no ${what} "${name}"`);
    }
  };
  if (!metrics.has(objective)) problems.push(`objective "${objective}": the library's metrics are ${list(metrics)}`);
  else missing("metric", objective, (variant) => objective in variant.metrics);
  for (const [what, bounds] of [
    ["max", max],
    ["min", min],
    ["fixed", fixed],
  ] as const) {
    for (const [name, value] of Object.entries(bounds)) {
      if (!Number.isFinite(value)) problems.push(`${what} "${name}": expected a finite number, found ${value}`);
      if (!names.has(name)) problems.push(`${what} "${name}": the library's names are ${list(names)}`);
      else if (what !== "fixed") missing("stat", name, ({ stats, metrics }) => name in stats || name in metrics);
    }
  }
  if (sweep && !names.has(sweep.name)) problems.push(`sweep "${sweep.name}": the library's names are ${list(names)}`);
  if (problems.length === 0) return;
  const count = problems.length === 1 ? "one problem" : `${problems.length} problems`;
  throw new EspalierError({
    where: `search: ${count}\n${problems.map((line) => `  ${line}`).join("\n")}`,
    exitCode: 2,
  });
}

function list(names: Iterable<string>): string {
  return [...names].map((name) => `"${name}"`).join(", ") || "empty";
}
