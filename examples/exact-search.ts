/** Chooses one variant for each layer of a block library so that the summed loss is least under two budgets, proven. */
import { search } from "espalier";

// Costs and scores have any names; the search knows nothing of models.
const widths = { full: 1, half: 0.5, quarter: 0.25, none: 0 };
const sensitivity = { embed: 3, early: 1, middle: 0.2, late: 0.5, last: 2 };
const library = Object.fromEntries(
  Object.entries(sensitivity).map(([layer, weight]) => [
    layer,
    Object.fromEntries(
      Object.entries(widths).map(([variant, share]) => [
        variant,
        {
          stats: { memory_mib: 100 * share, runtime_ms: 2 + 8 * share },
          metrics: { kl_div: weight * (1 - share) ** 2 },
        },
      ]),
    ),
  ]),
);

const result = await search(library, {
  max: { memory_mib: 250, runtime_ms: 32 },
  solutions: 3,
  sweep: { name: "memory_mib", values: [100, 200, 300, 400, 500] },
});
console.log(`${result.status}: KL ${result.objective}, gap ${result.gap}`, result.choice);
console.log("totals", result.totals, "one more unit saves", result.shadowPrices);
for (const { objective, choice } of result.solutions) console.log(objective, Object.values(choice).join(" "));
for (const { budget, objective } of result.frontier) {
  console.log(`${budget} MiB  KL ${objective ?? "out of reach"}`);
}

const { reason } = await search(library, { max: { memory_mib: 100, runtime_ms: 9 } });
console.log(reason?.message, reason?.nearest.max);
