/**
 * Seconds to a proven optimum of block libraries with 80 layers x 16 variants under three budgets. The libraries are
 * made here from seeds: like measured ones, and the classes that the knapsack literature calls hard.
 */
import { createRng, median, type Rng } from "../src/base/index.js";
import { type Library, search } from "../src/puzzle/search/index.js";
import type { BenchOptions } from "./main.js";

const [layers, variants] = [80, 16];
const names = ["memory_mib", "runtime_ms", "params"];

/** Costs and score of variant j of 16; `importance` is the layer's own. */
type Maker = (rng: Rng, j: number, importance: number) => { costs: number[]; score: number };

const kinds: Readonly<Record<string, Maker>> = {
  // Attention kept or dropped, eight widths; the score falls off with what is kept, as it does in measured libraries.
  blocks(rng, j, importance) {
    const [attention, width] = [j < 8 ? 1 : 0, (j % 8) / 7];
    const score = importance * ((attention ? 0 : 0.3 * rng.next()) + (1 - width) ** 2 * (0.8 + 0.4 * rng.next()));
    return {
      costs: [400 * attention + 600 * width, 300 * attention + 500 * width, 30 * attention + 60 * width],
      score,
    };
  },
  "measured costs": (rng, j, importance) => {
    const { costs, score } = kinds.blocks!(rng, j, importance);
    return { costs: costs.map((cost) => cost * (0.9 + 0.2 * rng.next())), score };
  },
  uncorrelated: (rng) => ({ costs: names.map(() => rng.int(1000)), score: rng.next() }),
  "weakly correlated": (rng) => correlated(rng, 0.2),
  "strongly correlated": (rng) => correlated(rng, 0.02),
};

function correlated(rng: Rng, noise: number): { costs: number[]; score: number } {
  const costs = names.map(() => rng.int(1000));
  return { costs, score: 1 - costs.reduce((sum, cost) => sum + cost, 0) / 3000 + noise * rng.next() };
}

export async function solve({ json }: BenchOptions): Promise<void> {
  const rows = [];
  for (const [kind, make] of Object.entries(kinds)) {
    for (const share of [0.3, 0.5, 0.7]) {
      const results = [];
      for (const seed of [1, 2, 3]) results.push(await search(...makeProblem(make, seed, share)));
      const seconds = results.map((result) => result.seconds);
      const row = {
        kind,
        share,
        median: median(seconds),
        most: Math.max(...seconds),
        gap: Math.max(...results.map(({ gap }) => gap!)),
      };
      rows.push(row);
      process.stderr.write(
        `${kind}, budgets at ${share}: median ${row.median.toFixed(2)} s, most ${row.most.toFixed(2)} s, gap ${row.gap}\n`,
      );
    }
  }
  if (json) process.stdout.write(`${JSON.stringify(rows)}\n`);
}

/** Budgets lie at a share of the way from the least to the largest total of each cost. */
function makeProblem(make: Maker, seed: number, share: number): [Library, { max: Record<string, number> }] {
  const rng = createRng(`solve ${seed}`);
  const range = names.map(() => ({ least: 0, most: 0 }));
  const library: Library = {};
  for (let layer = 0; layer < layers; layer++) {
    const importance = Math.exp(2 * rng.next() - 1);
    const made = Array.from({ length: variants }, (_, j) => make(rng, j, importance));
    library[`layer ${layer}`] = Object.fromEntries(
      made.map(({ costs, score }, j) => [
        `variant ${j}`,
        { stats: Object.fromEntries(names.map((name, k) => [name, costs[k]!])), metrics: { kl_div: score } },
      ]),
    );
    for (const [k, bounds] of range.entries()) {
      bounds.least += Math.min(...made.map(({ costs }) => costs[k]!));
      bounds.most += Math.max(...made.map(({ costs }) => costs[k]!));
    }
  }
  const max = Object.fromEntries(
    names.map((name, k) => [name, range[k]!.least + share * (range[k]!.most - range[k]!.least)]),
  );
  return [library, { max }];
}
