import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { createRng, type Rng } from "../../base/index.js";
import { repositoryPath } from "../../base/testing.js";
import { searchCore } from "./core.js";
import {
  checkLibrary,
  type Library,
  type PairTerm,
  parseBound,
  parseSweep,
  type SearchOptions,
  search,
} from "./index.js";

interface GoldenCase {
  name: string;
  library: Library;
  expected: { max: Record<string, number>; status: string; objective: number | null }[];
}

const golden = JSON.parse(readFileSync(repositoryPath("test/golden/mip.json"), "utf8")) as { cases: GoldenCase[] };
const seventy = golden.cases.find(({ name }) => name === "seventy")!;

describe("optima proven by two other solvers", () => {
  const cases = golden.cases.flatMap(({ name, library, expected }) => expected.map((e) => ({ name, library, ...e })));
  test.each(cases)("$name $max", async ({ library, max, status, objective }) => {
    const result = await search(library, { max });
    expect(result.status).toBe(status);
    if (objective === null) return;
    expect(result.objective).toBeCloseTo(objective, 9);
    expect(result.gap).toBe(0);
    expect(result.bound).toBeCloseTo(objective, 9);
    expectSound(library, { max }, result.choice, result.totals);
  });
});

describe("against every selection", () => {
  test.each([1, 2, 3, 4, 5, 6, 7, 8])("random library %i: max, min and fixed costs", async (seed) => {
    const rng = createRng(seed);
    const library = randomLibrary(rng, 5, 4);
    const options: SearchOptions = {
      objective: "loss",
      max: { memory: 200 + rng.int(150), "time (ms)": 230 },
      min: { quality: 12 },
      fixed: { memory: 40 },
    };
    const best = selections(library, options)[0];
    const result = await search(library, options);
    expect(result.status).toBe(best ? "optimal" : "infeasible");
    if (!best) return;
    expect(result.objective).toBeCloseTo(best.objective, 9);
    expectSound(library, options, result.choice, result.totals);
  });

  test.each([11, 12, 13, 14])("choices over several layers, library %i", async (seed) => {
    const rng = createRng(seed);
    const library = randomLibrary(rng, 6, 3);
    for (const [home, span] of [
      ["b0", ["b0", "b1"]],
      ["b2", ["b2", "b3", "b4"]],
      ["b5", ["b4", "b5"]],
    ] as const) {
      library[home]!.fused = { ...randomVariant(rng), layers: [...span] };
    }
    const options: SearchOptions = { objective: "loss", max: { memory: 230 } };
    const [best] = selections(library, options);
    const result = await search(library, options);
    expect(result.objective).toBeCloseTo(best!.objective, 9);
    expectSound(library, options, result.choice, result.totals);
  });

  test.each([21, 22, 23])(
    "a pool of library %i is the greedy one, each solution far enough from all before",
    async (seed) => {
      const library = randomLibrary(createRng(seed), 5, 4);
      const options: SearchOptions = { objective: "loss", max: { memory: 300 }, solutions: 6, minDistance: 2 };
      const expected: ReturnType<typeof selections> = [];
      for (const candidate of selections(library, options)) {
        const far = expected.every(({ choice }) => distance(choice, candidate.choice) >= 2);
        if (far && expected.length < 6) expected.push(candidate);
      }
      const { solutions } = await search(library, options);
      expect(solutions.map(({ objective }) => objective.toFixed(9))).toEqual(
        expected.map(({ objective }) => objective.toFixed(9)),
      );
      for (const [i, a] of solutions.entries()) {
        for (const b of solutions.slice(0, i)) expect(distance(a.choice, b.choice)).toBeGreaterThanOrEqual(2);
      }
    },
  );

  test("a search is stopped between two solves", async () => {
    const stop = new AbortController();
    const searching = search(randomLibrary(createRng(51), 5, 4), {
      objective: "loss",
      max: { memory: 300 },
      solutions: 200,
      signal: stop.signal,
    });
    setTimeout(() => stop.abort(), 0);
    await expect(searching).rejects.toThrow("aborted");
  });

  test.each([41, 42, 43, 44, 45])("pair terms of both signs, library %i", async (seed) => {
    const rng = createRng(seed);
    const library = randomLibrary(rng, 5, 4);
    const pairTerms = Array.from({ length: 6 }, (_, i): PairTerm => {
      const layer = rng.int(4);
      const value = (i % 2 === 0 ? 1 : -1) * rng.next();
      return { a: [`b${layer}`, `v${rng.int(4)}`], b: [`b${layer + 1}`, `v${rng.int(4)}`], value };
    });
    const options: SearchOptions = { objective: "loss", max: { memory: 220 }, pairTerms, solutions: 3 };
    const withTerms = selections(library, options).map(({ objective, choice }) => ({
      choice,
      objective: pairTerms.reduce(
        (sum, { a, b, value }) => sum + (choice[a[0]] === a[1] && choice[b[0]] === b[1] ? value : 0),
        objective,
      ),
    }));
    withTerms.sort((a, b) => a.objective - b.objective);
    const { solutions, gap } = await search(library, options);
    expect(gap).toBe(0);
    expect(solutions.map(({ objective }) => objective.toFixed(9))).toEqual(
      withTerms.slice(0, 3).map(({ objective }) => objective.toFixed(9)),
    );
    for (const { choice, totals } of solutions) expectSound(library, options, choice, totals);
    const unknown = search(library, { ...options, pairTerms: [{ a: ["b0", "x"], b: ["b1", "v1"], value: 1 }] });
    await expect(unknown).rejects.toThrow('pair terms: expected variants of the library, found "x" in layer "b0"');
  });

  test.each([31, 32, 33, 34])("the core counted out, library %i", (seed) => {
    const rng = createRng(seed);
    const [layers, variants] = [7, 4];
    const count = layers * variants;
    const column = () => Float64Array.from({ length: count }, () => rng.next());
    const problem = {
      layers: Array.from({ length: layers }, (_, i) => Array.from({ length: variants }, (_, j) => i * variants + j)),
      objective: column(),
      constraints: [1, 2].map(() => ({ values: column(), limit: 2.6, tolerance: 1e-12 })),
      // Any prices >= 0 are valid; good ones only make it quicker.
      prices: [0.4, 0.6],
    };
    let best = Number.POSITIVE_INFINITY;
    const visit = (layer: number, sum: number, a: number, b: number): void => {
      if (a > 2.6 || b > 2.6) return;
      if (layer === layers) best = Math.min(best, sum);
      else
        for (const c of problem.layers[layer]!) {
          const [first, second] = problem.constraints;
          visit(layer + 1, sum + problem.objective[c]!, a + first!.values[c]!, b + second!.values[c]!);
        }
    };
    visit(0, 0, 0, 0);
    const result = searchCore(problem, { incumbent: Number.POSITIVE_INFINITY });
    expect(result.found).toBe("selection");
    const chosen = result.found === "selection" ? result.selection : [];
    expect(chosen.reduce((sum, c) => sum + problem.objective[c]!, 0)).toBeCloseTo(best, 12);
    expect(searchCore(problem, { incumbent: best - 1e-9 }).found).toBe("incumbent");
  });
});

describe("infeasible", () => {
  test("one budget that nothing reaches: the least reachable value, and the best choice there", async () => {
    const tiny = golden.cases.find(({ name }) => name === "tiny")!;
    const { reason, objective, choice } = await search(tiny.library, { max: { memory_mib: 36, runtime_ms: 5000 } });
    expect([objective, choice]).toEqual([null, {}]);
    expect(reason!.constraints).toEqual([
      // Three layers of 40 MiB at least.
      { name: "memory_mib", kind: "max", budget: 36, reachable: 120, holdsAlone: false },
      { name: "runtime_ms", kind: "max", budget: 5000, reachable: 90, holdsAlone: true },
    ]);
    expect(reason!.nearest.max).toEqual({ memory_mib: 120, runtime_ms: 5000 });
    expect(new Set(Object.values(reason!.nearest.choice))).toEqual(new Set(["attention 0/8, ffn 0%"]));
    expect(reason!.message).toBe(
      "memory_mib cannot go below 120 (max 36); the nearest that holds: memory_mib <= 120, runtime_ms <= 5000",
    );
  });

  test("two budgets that hold alone but not together", async () => {
    const variant = (memory: number, time: number, loss: number) => ({ stats: { memory, time }, metrics: { loss } });
    const library = { a: { small: variant(1, 10, 0), fast: variant(10, 1, 0), balanced: variant(6, 6, 1) } };
    const { status, reason } = await search(library, { objective: "loss", max: { memory: 5, time: 5 } });
    expect(status).toBe("infeasible");
    expect(reason!.constraints.map(({ holdsAlone }) => holdsAlone)).toEqual([true, true]);
    // Balanced needs 1/5 more of both (0.4 in all); the others need a whole budget more of one.
    expect(reason!.nearest).toEqual({ max: { memory: 6, time: 6 }, min: {}, objective: 1, choice: { a: "balanced" } });
    expect(reason!.message).toContain("not memory and time together");
  });

  test("fixed costs count in what is reachable", async () => {
    const library = { a: { only: { stats: { memory: 3 }, metrics: { kl_div: 0 } } } };
    const { reason } = await search(library, { max: { memory: 10 }, fixed: { memory: 8 } });
    expect(reason!.constraints[0]!.reachable).toBe(11);
    expect((await search(library, { max: { memory: 11 }, fixed: { memory: 8 } })).totals).toEqual({ memory: 11 });
  });
});

describe("certificate", () => {
  test("shadow prices are what the linear relaxation saves per unit", async () => {
    // One layer, two variants: 10 MiB costs 0, 0 MiB costs 5; each MiB of budget saves 0.5 of the relaxed objective.
    const library = { a: { big: cell(10, 0), small: cell(0, 5) }, b: { free: cell(0, 0) } };
    const { shadowPrices } = await search(library, { max: { memory: 6 } });
    expect(shadowPrices.memory).toBeCloseTo(0.5, 9);
    expect((await search(library, { max: { memory: 60 } })).shadowPrices).toEqual({ memory: 0 });
  });

  test("a budget is kept to the last parameter", async () => {
    const cost = (params: number, loss: number) => ({ stats: { params }, metrics: { kl_div: loss } });
    const library = {
      a: { big: cost(4_000_000_001, 0), small: cost(1, 1) },
      b: { big: cost(3e9, 0), small: cost(7, 2) },
    };
    expect((await search(library, { max: { params: 7_000_000_001 } })).objective).toBe(0);
    expect((await search(library, { max: { params: 7_000_000_000 } })).objective).toBe(1);
  });

  test("the order of variants in the file does not matter", async () => {
    const reversed = Object.fromEntries(
      Object.entries(seventy.library).map(([layer, variants]) => [
        layer,
        Object.fromEntries(Object.entries(variants).reverse()),
      ]),
    );
    const options = { max: { memory_mib: 57_600, runtime_ms: 21_600 } };
    const [a, b] = [await search(seventy.library, options), await search(reversed, options)];
    expect(a.choice).toEqual(b.choice);
  });

  test("a sweep of one budget under the others", async () => {
    const library = golden.cases.find(({ name }) => name === "tiny")!.library;
    const { frontier } = await search(library, {
      max: { runtime_ms: 675 },
      sweep: { name: "memory_mib", values: [36, 1800, 3600] },
    });
    expect(frontier.map(({ budget, status, objective }) => [budget, status, objective])).toEqual([
      [36, "infeasible", undefined],
      [1800, "optimal", 0.577305],
      [3600, "optimal", 0.577305],
    ]);
  });
});

describe("requests", () => {
  test("a bad library: all problems at once, with their paths", () => {
    const bad = { a: { v: { stats: { m: "1" }, metrics: {} }, w: { metrics: {} } }, b: {} };
    const message = caught(() => checkLibrary(bad, "library.json"));
    for (const part of ["library.json: ", "a.v.stats.m: ", "a.w.stats: "]) expect(message).toContain(part);
    expect(caught(() => checkLibrary({ b: {} }, "x"))).toContain("b: expected at least one variant");
    const span = { a: { v: { stats: {}, metrics: {}, layers: ["c"] } } };
    expect(caught(() => checkLibrary(span, "x"))).toContain('"c" is not a layer of this library');
  });

  test("unknown names list the known ones; a variant without one is named", async () => {
    const library = { a: { big: cell(1, 0), odd: { stats: {}, metrics: { kl_div: 0 } } } };
    await expect(search(library, { max: { memory: 1, time: 2 }, objective: "kl" })).rejects.toThrow(
      /3 problems[\s\S]*"kl_div"[\s\S]*a\.odd: has no stat "memory"[\s\S]*"time"/,
    );
  });

  test("bounds and sweeps are read to the last =", () => {
    expect(parseBound("memory=mib (b=1)=12.5", "--max")).toEqual(["memory=mib (b=1)", 12.5]);
    expect(() => parseBound("memory", "--max")).toThrow('--max: expected NAME=NUMBER, found "memory"');
    expect(parseSweep("m=30000..90000/4")).toEqual({ name: "m", values: [30000, 50000, 70000, 90000] });
    expect(() => parseSweep("m=1..2")).toThrow("NAME=FROM..TO/COUNT");
  });
});

function cell(memory: number, loss: number): Library[string][string] {
  return { stats: { memory }, metrics: { kl_div: loss } };
}

function caught(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return (error as Error).message;
  }
  return "";
}

function randomVariant(rng: Rng): Library[string][string] {
  return {
    stats: { memory: rng.int(100), "time (ms)": rng.int(100), quality: rng.int(8) },
    metrics: { loss: Math.round(1000 * rng.next()) / 1000 },
  };
}

function randomLibrary(rng: Rng, layers: number, variants: number): Library {
  const entry = () => Object.fromEntries(Array.from({ length: variants }, (_, j) => [`v${j}`, randomVariant(rng)]));
  return Object.fromEntries(Array.from({ length: layers }, (_, i) => [`b${i}`, entry()]));
}

/** Every selection that keeps the budgets, best first, by trying them all. */
function selections(library: Library, options: SearchOptions): { objective: number; choice: Record<string, string> }[] {
  const { objective = "kl_div" } = options;
  const layers = Object.keys(library);
  const found: { objective: number; choice: Record<string, string> }[] = [];
  const visit = (covered: Set<string>, choice: Record<string, string>): void => {
    const layer = layers.find((name) => !covered.has(name));
    if (layer === undefined) {
      if (withinBudgets(library, options, choice)) found.push({ objective: total(library, choice, objective), choice });
      return;
    }
    for (const [home, variants] of Object.entries(library)) {
      for (const [name, { layers: span = [home] }] of Object.entries(variants)) {
        if (!span.includes(layer) || span.some((other) => covered.has(other))) continue;
        visit(new Set([...covered, ...span]), { ...choice, [home]: name });
      }
    }
  };
  visit(new Set(), {});
  return found.sort((a, b) => a.objective - b.objective);
}

function total(library: Library, choice: Record<string, string>, name: string): number {
  return Object.entries(choice).reduce((sum, [layer, variant]) => {
    const { stats, metrics } = library[layer]![variant]!;
    return sum + (stats[name] ?? metrics[name])!;
  }, 0);
}

function withinBudgets(
  library: Library,
  { max = {}, min = {}, fixed = {} }: SearchOptions,
  choice: Record<string, string>,
): boolean {
  const sum = (name: string) => total(library, choice, name) + (fixed[name] ?? 0);
  return (
    Object.entries(max).every(([name, budget]) => sum(name) <= budget + 1e-9) &&
    Object.entries(min).every(([name, budget]) => sum(name) >= budget - 1e-9)
  );
}

function distance(a: Record<string, string>, b: Record<string, string>): number {
  return Object.keys({ ...a, ...b }).filter((layer) => a[layer] !== b[layer]).length;
}

/** Every layer covered once, budgets kept, totals right. */
function expectSound(
  library: Library,
  options: SearchOptions,
  choice: Record<string, string>,
  totals: Record<string, number>,
): void {
  const covered = Object.entries(choice).flatMap(([layer, variant]) => library[layer]![variant]!.layers ?? [layer]);
  expect([...covered].sort()).toEqual(Object.keys(library).sort());
  expect(withinBudgets(library, options, choice)).toBe(true);
  for (const name of Object.keys({ ...options.max, ...options.min })) {
    expect(totals[name]).toBeCloseTo(total(library, choice, name) + (options.fixed?.[name] ?? 0), 6);
  }
}
