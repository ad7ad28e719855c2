/** @module What racing saves against scoring everything, and whether the choice is the same. */
import { mkdtemp } from "node:fs/promises";
import { join } from "node:path";
import { modelParameters } from "../src/models/index.js";
import {
  composeLibrary,
  type LayerScores,
  type RaceReport,
  type RaceRequest,
  raceBlocks,
  readScores,
  scoreBlocks,
  search,
} from "../src/puzzle/index.js";

export interface RaceRow {
  /** Blocks x sequences that were run, and what scoring everything takes; pairs at the end stand apart. */
  evaluations: number;
  pairEvaluations: number;
  fullEvaluations: number;
  /** Shares of the parent's parameters that were asked for. */
  budgets: readonly number[];
  /** By budget: does the search choose the same from both? */
  same: boolean[];
  pairFactor: RaceReport["pairFactor"];
}

const budgets = [0.8, 0.6];

/** Scores halves both ways and solves for two budgets; pairs that only the race scored are left out of the comparison. */
export async function compareRace(root: string, request: Omit<RaceRequest, "budgets" | "directory">): Promise<RaceRow> {
  const { engine, space } = request;
  const { config } = engine;
  const fixed = { params: modelParameters({ ...config, blocks: [] }) };
  const bounds = budgets.map((share) => ({ max: { params: share * modelParameters(config) }, fixed }));
  const [all, raced] = [await mkdtemp(join(root, "all-")), await mkdtemp(join(root, "raced-"))];
  await scoreBlocks({ ...request, directory: all });
  const { evaluations, pairEvaluations, fullEvaluations, pairFactor } = await raceBlocks({
    ...request,
    budgets: bounds,
    directory: raced,
  });
  const read = (directory: string) =>
    Promise.all(config.blocks.map((_, layer): Promise<LayerScores> => readScores(directory, layer)));
  const full = await read(all);
  const halves = (await read(raced)).map((entry, layer) => ({
    ...entry,
    kl: Object.fromEntries(Object.entries(entry.kl).filter(([id]) => id in full[layer]!.kl)),
  }));
  const same: boolean[] = [];
  for (const bound of bounds) {
    const choices = [full, halves].map((scores) => search(composeLibrary(config, space, scores), bound));
    const [a, b] = await Promise.all(choices);
    same.push(JSON.stringify(Object.entries(a!.choice).sort()) === JSON.stringify(Object.entries(b!.choice).sort()));
  }
  return { evaluations, pairEvaluations, fullEvaluations, budgets, same, pairFactor };
}

export function describeRace({ evaluations, pairEvaluations, fullEvaluations, same, pairFactor }: RaceRow): string {
  const share = ((100 * evaluations) / fullEvaluations).toFixed(0);
  const factor = pairFactor
    ? `; pairs cost ${pairFactor.factor.toFixed(2)} of the sum of halves (quartiles ${pairFactor.lower.toFixed(2)} to ${pairFactor.upper.toFixed(2)}, ${pairFactor.pairs} pairs)`
    : "";
  const chosen = same
    .map((equal, i) => `${equal ? "the same" : "another"} choice at ${100 * budgets[i]!} %`)
    .join(", ");
  return `racing: ${share} % of the evaluations (${evaluations} of ${fullEvaluations}, and ${pairEvaluations} for pairs), ${chosen}${factor}`;
}
