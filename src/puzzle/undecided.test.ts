import { describe, expect, test } from "vitest";
import { createRng, mean } from "../base/index.js";
import { type Library, search } from "./search/index.js";
import { findUndecided, type Samples } from "./undecided.js";

/** Three layers, each with its own block, one of half the size and none; scores by sequence around `means`. */
function made(means: number[][], noise: number, sequences: number): { library: Library; samples: Samples } {
  const rng = createRng("undecided");
  const names = ["full", "half", "none"];
  const samples: Samples = Object.fromEntries(
    means.map((row, layer) => [
      String(layer),
      Object.fromEntries(
        row.map((centre, i) => [
          names[i]!,
          Array.from({ length: sequences }, () => centre * (1 + noise * rng.normal())),
        ]),
      ),
    ]),
  );
  const library = Object.fromEntries(
    Object.entries(samples).map(([layer, variants]) => [
      layer,
      Object.fromEntries(
        Object.entries(variants).map(([name, values]) => [
          name,
          { stats: { size: 10 - 5 * names.indexOf(name) }, metrics: { kl_div: mean(values) } },
        ]),
      ),
    ]),
  );
  return { library, samples };
}

const budgets = [{ max: { size: 20 } }];

describe("what is still open", () => {
  // The best under 20: halve layers 1 and 2 (0.1 + 0.2). Next: drop layer 1 (0.31).
  const means = [
    [0, 5, 9],
    [0, 0.1, 0.31],
    [0, 0.2, 4],
  ];

  test("exact scores leave the choice alone", async () => {
    const { library, samples } = made(means, 0, 4);
    const { open, choices, reduced } = await findUndecided({ library, samples, budgets });
    expect(choices).toEqual([{ "0": "full", "1": "half", "2": "half" }]);
    expect(open["0"]).toEqual(["full"]);
    expect(open["1"]).not.toContain("full");
    expect(open["2"]).not.toContain("none");
    // Whatever the price of size between 0.2 / 5 and 0.21 / 5: halving layer 0 saves 5 and costs 5.
    expect(reduced["0"]!.half).toBeGreaterThan(4.7);
  });

  test("noise keeps the near contender open and not the far one", async () => {
    const { library, samples } = made(means, 0.3, 6);
    const { open } = await findUndecided({ library, samples, budgets });
    expect(open["1"]).toContain("none");
    expect(open["2"]).toContain("full");
    expect(open["0"]).toEqual(["full"]);
  });

  test("one sequence settles nothing; several budgets keep what any of them needs", async () => {
    const one = made(means, 0.1, 1);
    expect((await findUndecided({ ...one, budgets })).open["0"]).toHaveLength(3);
    const exact = made(means, 0, 3);
    const both = await findUndecided({ ...exact, budgets: [...budgets, { max: { size: 10 } }] });
    expect(both.choices[1]).toEqual({ "0": "full", "1": "none", "2": "none" });
    expect(both.open["1"]!.sort()).toEqual(["half", "none"]);
  });

  test("a variant that another beats in score and cost is dropped", async () => {
    const { library, samples } = made(means, 0.01, 5);
    library["1"]!.bad = { stats: { size: 6 }, metrics: { kl_div: 0.104 } };
    const worse = { ...samples, "1": { ...samples["1"], bad: samples["1"]!.half!.map((value) => value + 0.004) } };
    const { open } = await findUndecided({ library, samples: worse, budgets });
    expect(open["1"]).not.toContain("bad");
  });
});

test.each([1, 2, 3, 4, 5, 6])("what the truth would choose is open after a few sequences, library %i", async (seed) => {
  const rng = createRng(`truth ${seed}`);
  const [layers, variants, sequences] = [8, 6, 64];
  const truth: Samples = {};
  const stats: Record<string, Record<string, number>> = {};
  for (let layer = 0; layer < layers; layer++) {
    const importance = Math.exp(rng.normal());
    const columns: Record<string, number[]> = {};
    for (let j = 0; j < variants; j++) {
      const centre = importance * (j / variants) ** 2 * (0.7 + 0.6 * rng.next());
      columns[`v${j}`] = Array.from({ length: sequences }, () => centre * Math.exp(0.3 * rng.normal()));
    }
    truth[layer] = columns;
    stats[layer] = Object.fromEntries(Object.keys(columns).map((id, j) => [id, 10 - 1.5 * j + rng.next()]));
  }
  const library = (samples: Samples): Library =>
    Object.fromEntries(
      Object.entries(samples).map(([layer, own]) => [
        layer,
        Object.fromEntries(
          Object.entries(own).map(([id, values]) => [
            id,
            { stats: { size: stats[layer]![id]! }, metrics: { kl_div: mean(values) } },
          ]),
        ),
      ]),
    );
  const few: Samples = Object.fromEntries(
    Object.entries(truth).map(([layer, own]) => [
      layer,
      Object.fromEntries(Object.entries(own).map(([id, values]) => [id, values.slice(0, 8)])),
    ]),
  );
  const bounds = { max: { size: 45 } };
  const { choice } = await search(library(truth), bounds);
  const { open } = await findUndecided({ library: library(few), samples: few, budgets: [bounds] });
  for (const [layer, id] of Object.entries(choice)) expect(open[layer]).toContain(id);
  const left = Object.values(open).reduce((sum, ids) => sum + ids.length, 0);
  expect(left).toBeLessThan(0.8 * layers * variants);
});
