import { EspalierError } from "../base/index.js";

/** A bound on one named cost: a number in the cost's own unit, or a share of the parent's. */
export type Budget = { cost: CostName } & ({ absolute: number } | { share: number });

export const costNames = ["params", "memory"] as const;
export type CostName = (typeof costNames)[number];

const sizes: Record<string, number> = {
  "": 1,
  K: 1e3,
  M: 1e6,
  B: 1,
  G: 1e9,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
};

/** Reads `params=80%`, `params=100M`, `memory=300MiB`, `memory=0.5x`. */
export function parseBudget(text: string): Budget {
  const [name, value, ...rest] = text.split("=");
  if (!name || !value || rest.length > 0) throw badBudget(text, "NAME=VALUE");
  return parseBudgetValue(name.trim(), value.trim());
}

export function parseBudgetValue(name: string, value: string): Budget {
  const cost = costNames.find((known) => known === name);
  if (!cost) throw badBudget(`${name}=${value}`, `one of ${costNames.join(", ")} before the =`);
  const match = /^(\d+(?:\.\d+)?)\s*(%|x|[a-z]*)$/i.exec(value);
  if (!match) throw badBudget(`${name}=${value}`, "a number, then %, x or a unit");
  const amount = Number(match[1]);
  const unit = match[2]!;
  if (unit === "%" || unit === "x") {
    const share = unit === "%" ? amount / 100 : amount;
    if (share <= 0 || share > 1) throw badBudget(`${name}=${value}`, "more than nothing and at most the whole parent");
    return { cost, share };
  }
  // A bare B after a number of parameters means billions, as people write it.
  const size = cost === "params" && unit.toUpperCase() === "B" ? 1e9 : sizes[unit.toUpperCase()];
  if (size === undefined || amount === 0) {
    throw badBudget(`${name}=${value}`, cost === "params" ? "a count such as 100M or 1.2B" : "a size such as 300MiB");
  }
  return { cost, absolute: amount * size };
}

function badBudget(found: string, expected: string): EspalierError {
  return new EspalierError({
    where: "--budget",
    expected,
    found: `"${found}"`,
    fix: "for example --budget params=80% --budget memory=300MiB",
    exitCode: 2,
  });
}

/** The bounds in the costs' own units. */
export function resolveBudgets(budgets: readonly Budget[], parent: Record<CostName, number>): Record<string, number> {
  const bounds: Record<string, number> = {};
  for (const budget of budgets) {
    const bound = "share" in budget ? budget.share * parent[budget.cost] : budget.absolute;
    bounds[budget.cost] = Math.min(bounds[budget.cost] ?? Number.POSITIVE_INFINITY, bound);
  }
  return bounds;
}
