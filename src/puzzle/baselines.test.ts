import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { repositoryPath } from "../base/testing.js";
import { chooseBaselines } from "./baselines.js";
import { type Library, search } from "./search/index.js";

const golden = JSON.parse(readFileSync(repositoryPath("test/golden/mip.json"), "utf8")) as {
  cases: { name: string; library: Library }[];
};
const seventy = golden.cases.find(({ name }) => name === "seventy")!.library;

function library(...layers: Record<string, [size: number, loss: number]>[]): Library {
  return Object.fromEntries(
    layers.map((variants, i) => [
      `layer ${i}`,
      Object.fromEntries(
        Object.entries(variants).map(([name, [size, loss]]) => [name, { stats: { size }, metrics: { kl_div: loss } }]),
      ),
    ]),
  );
}

describe("by hand", () => {
  const three = library(
    { full: [10, 0], half: [5, 4], none: [0, 9] },
    { full: [10, 0], half: [5, 1], none: [0, 2] },
    { full: [10, 0], half: [5, 2], none: [0, 7] },
  );

  test("uniform: the best variant that fits everywhere", () => {
    const [uniform] = chooseBaselines(three, { max: { size: 22 }, kinds: ["uniform"] });
    // full needs 30, half 15; 4 + 1 + 2 = 7.
    expect(uniform).toMatchObject({ name: "uniform", objective: 7, totals: { size: 15 } });
  });

  test("greedy: easiest layer first, leftovers roll on", () => {
    const [greedy] = chooseBaselines(three, { max: { size: 22 }, kinds: ["greedy"] });
    // Mean losses 13/3, 1, 3: order 1, 2, 0. Share 22/3 = 7.3: half (5). 17/2 = 8.5: half. Rest 12: full.
    expect(greedy!.choice).toEqual({ "layer 0": "full", "layer 1": "half", "layer 2": "half" });
    expect(greedy!.totals.size).toBe(20);
  });

  test("fixed costs come off the budget first", () => {
    const [uniform] = chooseBaselines(three, { max: { size: 22 }, fixed: { size: 8 }, kinds: ["uniform"] });
    expect(uniform!.totals.size).toBe(8);
  });

  test("none where the budget is out of reach", () => {
    expect(chooseBaselines(library({ only: [5, 1] }), { max: { size: 4 } })).toEqual([]);
  });
});

describe("80 layers", () => {
  const options = { max: { memory_mib: 57_600, runtime_ms: 21_600 }, seed: 3 };
  const baselines = chooseBaselines(seventy, options);

  test("all within the budgets, all worse than the optimum", async () => {
    const { objective } = await search(seventy, options);
    expect(baselines.map(({ name }) => name)).toEqual(["uniform", "greedy", "random 1", "random 2", "random 3"]);
    for (const baseline of baselines) {
      expect(baseline.totals.memory_mib).toBeLessThanOrEqual(57_600);
      expect(baseline.totals.runtime_ms).toBeLessThanOrEqual(21_600);
      expect(baseline.objective).toBeGreaterThan(objective!);
    }
  });

  test("random ones fill the budget that binds, differ, and come again with the seed", () => {
    const random = baselines.filter(({ kind }) => kind === "random");
    for (const { totals } of random) {
      expect(Math.max(totals.memory_mib! / 57_600, totals.runtime_ms! / 21_600)).toBeGreaterThan(0.998);
    }
    expect(new Set(random.map(({ choice }) => JSON.stringify(choice))).size).toBe(3);
    expect(chooseBaselines(seventy, options)).toEqual(baselines);
    expect(chooseBaselines(seventy, { ...options, seed: 4 })[2]!.choice).not.toEqual(baselines[2]!.choice);
  });
});
