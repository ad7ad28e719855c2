import { Command } from "commander";
import type { SearchOptions, SearchResult } from "../../puzzle/search/index.js";
import { collect, nonNegativeNumber, positiveInteger } from "../options.js";
import { runCommand } from "../output.js";

export function createCommand(): Command {
  return new Command("search")
    .description(
      "Chooses one variant per layer of a block library: the least summed objective within all budgets, proven.",
    )
    .argument("<library>", "JSON: {layer: {variant: {stats: {NAME: number}, metrics: {NAME: number}}}}")
    .option("--max <NAME=NUMBER>", "largest total of a cost; may be given several times", collect)
    .option("--min <NAME=NUMBER>", "smallest total of a cost; may be given several times", collect)
    .option("--fixed <NAME=NUMBER>", "cost outside the blocks, counted in the total", collect)
    .option("--objective <NAME>", "the metric to minimise", "kl_div")
    .option("--solutions <N>", "how many choices to return, best first", positiveInteger, 1)
    .option("--min-distance <N>", "layers in which any two of them differ at least", positiveInteger, 1)
    .option("--sweep <NAME=FROM..TO/COUNT>", "solve again for each of these budgets")
    .option("--gap <X>", "relative gap that counts as proven", nonNegativeNumber, 0)
    .option("--limit <SECONDS>", "give up on a solve after this long", nonNegativeNumber, 300)
    .addHelpText(
      "after",
      `
Example:
  $ espalier search library.json --max memory_mib=80000 --max runtime_ms=51200 --solutions 4 --min-distance 2

Exit codes: 0 found and proven, 1 nothing satisfies the budgets (the reason is in the result) or the time ran out,
2 a faulty library or option.`,
    )
    .action((path: string, options: CommandOptions, command: Command) =>
      runCommand(command, async (io) => {
        const { readJson } = await import("../../base/index.js");
        const { checkLibrary, search } = await import("../../puzzle/search/index.js");
        const request = await readRequest(options);
        const library = checkLibrary(await readJson(path), path);
        const result = await search(library, { ...request, signal: io.signal });
        if (result.status === "infeasible") process.exitCode = 1;
        io.result(result, () => render(result));
      }),
    );
}

interface CommandOptions {
  max?: string[];
  min?: string[];
  fixed?: string[];
  objective: string;
  solutions: number;
  minDistance: number;
  sweep?: string;
  gap: number;
  limit: number;
}

async function readRequest(options: CommandOptions): Promise<SearchOptions> {
  const { parseBound, parseSweep } = await import("../../puzzle/search/index.js");
  const bounds = (texts: string[] = [], option: string) =>
    Object.fromEntries(texts.map((text) => parseBound(text, option)));
  return {
    objective: options.objective,
    max: bounds(options.max, "--max"),
    min: bounds(options.min, "--min"),
    fixed: bounds(options.fixed, "--fixed"),
    solutions: options.solutions,
    minDistance: options.minDistance,
    ...(options.sweep !== undefined && { sweep: parseSweep(options.sweep) }),
    gap: options.gap,
    limitSeconds: options.limit,
  };
}

function render(result: SearchResult): string {
  const lines = result.status === "optimal" ? renderOptimum(result) : [`infeasible: ${result.reason?.message}`];
  if (result.solutions.length > 1) lines.push("", ...renderSolutions(result));
  if (result.frontier.length > 0) lines.push("", ...renderFrontier(result));
  return lines.join("\n");
}

function renderOptimum({ objective, bound, gap, seconds, totals, choice, shadowPrices }: SearchResult): string[] {
  const width = Math.max(...Object.keys(choice).map(({ length }) => length));
  return [
    ...Object.entries(choice).map(([layer, variant]) => `${layer.padEnd(width)}  ${variant}`),
    "",
    `objective ${show(objective)}, bound ${show(bound)}, gap ${gap === 0 ? "0 (proven optimal)" : gap}, ${seconds.toFixed(2)} s`,
    ...Object.entries(totals).map(([name, total]) => {
      const price = shadowPrices[name];
      return `${name} ${show(total)}${price === undefined ? "" : price > 0 ? `  (one more saves ${Number(price.toPrecision(3))})` : "  (not binding)"}`;
    }),
  ];
}

function renderSolutions({ solutions, choice }: SearchResult): string[] {
  const apart = (other: Record<string, string>) =>
    Object.keys({ ...choice, ...other }).filter((layer) => choice[layer] !== other[layer]).length;
  return solutions.map(
    (solution, i) =>
      `${String(i + 1).padStart(3)}.  ${show(solution.objective)}  ${apart(solution.choice)} layers from the best`,
  );
}

function renderFrontier({ frontier }: SearchResult): string[] {
  return frontier.map(
    ({ budget, status, objective }) =>
      `${show(budget).padStart(14)}  ${status === "optimal" ? show(objective ?? null) : status}`,
  );
}

function show(value: number | null): string {
  return value === null ? "-" : String(Number(value.toPrecision(10)));
}
