/** @module What users bound: parameters, memory, and speeds in llama.cpp, each as upper bounds on sums over the blocks. */
import { EspalierError } from "../base/index.js";
import {
  isSpeedCost,
  parseSpeedBudget,
  type Scenario,
  type SpeedBudget,
  type SpeedCostName,
  speedBound,
  speedCostNames,
} from "../plan/index.js";

export const sizeCostNames = ["params", "memory"] as const;
export const costNames = [...sizeCostNames, ...speedCostNames] as const;
type SizeCostName = (typeof sizeCostNames)[number];
export type CostName = SizeCostName | SpeedCostName;

type Bound = ({ cost: SizeCostName } & ({ absolute: number } | { share: number })) | SpeedBudget;

/** A bound on one named cost: a number in the cost's own unit, or a share of the parent's. */
export type Budget = Bound & {
  /** The use that a speed is meant for; absent: the recipe's own `input`, `output` and `batch`. */
  scenario?: string;
  /** Share by which the bound may be missed, such as 0.03. */
  margin?: number;
};

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

/** Reads `params=80%`, `memory=300MiB`, `decode=1.5x`, `latency@chat=2s`, `decode=1.5x~3%`. */
export function parseBudget(text: string): Budget {
  const [name, value, ...rest] = text.split("=");
  if (!name || !value || rest.length > 0) throw badBudget(text, "NAME=VALUE");
  return parseBudgetValue(name.trim(), value.trim());
}

/** `name` is a cost, or `COST@SCENARIO`; `value` a bound, or `BOUND~MARGIN%`. */
export function parseBudgetValue(name: string, value: string): Budget {
  const [costText, scenario, ...more] = name.split("@");
  const cost = costNames.find((known) => known === costText);
  const text = `${name}=${value}`;
  if (!cost || more.length > 0) throw badBudget(text, `one of ${costNames.join(", ")} before the =`);
  const [boundText, marginText, ...rest] = value.split("~").map((part) => part.trim());
  if (rest.length > 0) throw badBudget(text, "a bound, then at most one ~MARGIN%");
  const bound = isSpeedCost(cost) ? parseSpeedBudget(cost, boundText!) : parseSizeBudget(cost, boundText!, text);
  if (scenario !== undefined && (scenario === "" || !isSpeedCost(cost))) {
    throw badBudget(text, `a scenario's name after @, and only for ${speedCostNames.join(", ")}`);
  }
  return {
    ...bound,
    ...(scenario !== undefined && { scenario }),
    ...(marginText !== undefined && { margin: parseMargin(marginText, text) }),
  };
}

function parseMargin(margin: string, text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*%$/.exec(margin);
  const share = Number(match?.[1]) / 100;
  if (!match || !(share > 0 && share < 0.5))
    throw badBudget(text, "a margin of more than 0 % and less than 50 % after ~");
  return share;
}

function parseSizeBudget(cost: SizeCostName, value: string, text: string): Bound {
  const match = /^(\d+(?:\.\d+)?)\s*(%|x|[a-z]*)$/i.exec(value);
  if (!match) throw badBudget(text, "a number, then %, x or a unit");
  const amount = Number(match[1]);
  const unit = match[2]!;
  if (unit === "%" || unit === "x") {
    const share = unit === "%" ? amount / 100 : amount;
    if (share <= 0 || share > 1) throw badBudget(text, "more than nothing and at most the whole parent");
    return { cost, share };
  }
  // A bare B after a number of parameters means billions, as people write it.
  const size = cost === "params" && unit.toUpperCase() === "B" ? 1e9 : sizes[unit.toUpperCase()];
  if (size === undefined || amount === 0) {
    throw badBudget(text, cost === "params" ? "a count such as 100M or 1.2B" : "a size such as 300MiB");
  }
  return { cost, absolute: amount * size };
}

function badBudget(found: string, expected: string): EspalierError {
  return new EspalierError({
    where: "--budget",
    expected,
    found: `"${found}"`,
    fix: "for example --budget params=80% --budget decode=1.5x",
    exitCode: 2,
  });
}

/** What a search calls the cost: its name, and of a named scenario `COST@SCENARIO`. */
export function constraintOf({ cost, scenario }: Pick<Budget, "cost" | "scenario">): string {
  return scenario === undefined ? cost : `${cost}@${scenario}`;
}

/**
 * Upper bounds in the costs' own units (parameters, bytes, seconds), the tightest of each cost, margins granted.
 * `parent`: the parent's totals by constraint; `scenarioOf`: the use behind a scenario's name.
 */
export function resolveBudgets(
  budgets: readonly Budget[],
  parent: Record<string, number>,
  scenarioOf: (name: string | undefined) => Scenario,
): Record<string, number> {
  const bounds: Record<string, number> = {};
  for (const budget of budgets) {
    const name = constraintOf(budget);
    const bound = boundOf(budget, parent[name]!, scenarioOf) * (1 + (budget.margin ?? 0));
    bounds[name] = Math.min(bounds[name] ?? Number.POSITIVE_INFINITY, bound);
  }
  return bounds;
}

function boundOf(budget: Budget, parent: number, scenarioOf: (name: string | undefined) => Scenario): number {
  if ("share" in budget) return budget.share * parent;
  if ("absolute" in budget) return budget.absolute;
  return speedBound(budget, parent, scenarioOf(budget.scenario));
}
