import { formatBytes } from "../base/index.js";
import { isSpeedCost, type Scenario, shownSpeed } from "../plan/index.js";
import type { RunContext } from "./context.js";
import { scenarioOf } from "./recipe.js";

type Priced = Pick<RunContext, "recipe" | "parentCosts">;

/** A total with its name and its share of the parent's: `memory 300 MiB (62.1 % of the parent)`, `decode 41.2 tok/s (1.50x)`. */
export function showCost({ recipe, parentCosts }: Priced, name: string, value: number): string {
  const parent = parentCosts[name]!;
  const [cost, scenario] = name.split("@");
  if (!isSpeedCost(cost!)) {
    // Rounded up, so that it can be asked for as it stands.
    const share = Math.ceil((1000 * value) / parent - 1e-6) / 10;
    const amount = name === "memory" ? formatBytes(value) : Math.ceil(value).toLocaleString("en-US");
    return `${name} ${amount} (${share.toFixed(1)} % of the parent)`;
  }
  const shown = showSpeed(name, value, scenarioOf(recipe, scenario));
  return cost === "latency"
    ? `${name} ${shown} (${((100 * value) / parent).toFixed(1)} % of the parent)`
    : `${name} ${shown} (${(parent / value).toFixed(2)}x of the parent)`;
}

/** Seconds as people read them: a rate, or for `latency` a time. */
export function showSpeed(name: string, seconds: number, scenario: Scenario): string {
  const cost = name.split("@")[0]!;
  if (!isSpeedCost(cost)) return String(seconds);
  const value = shownSpeed(cost, seconds, scenario);
  if (cost !== "latency") return `${value.toPrecision(3)} tok/s`;
  return value >= 1 ? `${value.toPrecision(3)} s` : `${(1000 * value).toPrecision(3)} ms`;
}
