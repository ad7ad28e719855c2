import { join } from "node:path";
import { digestJson, type Interval, pairedInterval, readJson, writeJsonAtomic } from "../../base/index.js";
import {
  architectureOf,
  type Baseline,
  type Library,
  meanByKind,
  openBlockLibrary,
  type SearchResult,
  type Settled,
  scoreCandidates,
  settleChoice,
} from "../../puzzle/index.js";
import type { RunContext } from "../context.js";
import type { ChildPlan } from "../pricing.js";
import type { Scored } from "./library.js";

export interface SettledChoice extends Settled {
  /** True KL of the chosen one by kind of text; absent where the text is of one kind. */
  byKind?: Record<string, Interval>;
}

export interface SettleWork {
  scored: Scored;
  /** Scores and the costs that the child bounds. */
  library: Library;
  plan: ChildPlan;
  fixed: Record<string, number>;
  /** What the search found under the scores as they are. */
  searched: SearchResult;
  baselines: readonly Baseline[];
}

/** Sequences on which every candidate is measured: a quarter of the text, but no fewer than these. */
const fewestLooked = 4;

/** Measures the best candidates whole and searches again with corrected scores until the choice stands. */
export async function settleCandidates(
  context: RunContext,
  { scored, library, plan, fixed, searched, baselines }: SettleWork,
): Promise<SettledChoice> {
  const { recipe, store, parent, parentDigest, engine, onEvent, signal } = context;
  const { text, captured } = scored.scoring;
  const { variants, scoresArtifact } = scored;
  const { solutions, minDistance } = recipe.search;
  const also = baselines.filter(({ kind }) => kind !== "random").map(({ choice }) => choice);
  const artifact = await store.produce(
    {
      stage: `candidates/${plan.name}`,
      title: `candidates under ${plan.text} put together and measured whole`,
      version: 2,
      options: { bounds: plan.bounds, fixed, solutions, minDistance, also, library },
      inputs: { parent: parentDigest, scores: scoresArtifact, variants, captured },
      async run(directory) {
        const request = { engine, library: openBlockLibrary(variants.directory, parent), text, signal };
        const settled = await settleChoice({
          library,
          search: { max: plan.bounds, fixed, solutions, minDistance },
          searched,
          also,
          signal,
          sequences: text.sequences.count,
          look: Math.max(fewestLooked, Math.ceil(text.sequences.count / 4)),
          measure: (choices, range) =>
            scoreCandidates(
              { ...request, range, captured: captured.directory, directory: join(directory, "measured"), onEvent },
              choices.map((choice) => architectureOf(parent.config, choice)),
            ),
        });
        for (const message of describeSettled(plan, settled)) onEvent({ event: "notice", level: "info", message });
        await writeJsonAtomic(join(directory, "settled.json"), settled);
      },
    },
    context,
  );
  const settled = (await readJson(join(artifact.directory, "settled.json"))) as Settled;
  const { kinds } = text.sequences;
  const chosen = settled.candidates.find(({ aboveChosen }) => aboveChosen.mean === 0);
  return { ...settled, ...(kinds && chosen && { byKind: meanByKind(chosen.kl, kinds) }) };
}

/** One line for each search, and one for the outcome. */
export function describeSettled(
  { name }: ChildPlan,
  { rounds, candidates, choice, measured, predicted, stands }: Settled,
): string[] {
  const shown = (kl: number) => kl.toFixed(3);
  const lines = rounds.map(
    (round) =>
      `Search ${round.round} for ${name}: proposed at a KL of ${shown(round.corrected)} (sum of scores ${shown(round.predicted)}), measured ${shown(round.measured.mean)}; ${round.candidates} more candidates measured whole.`,
  );
  const klOf = (wanted: unknown) =>
    candidates.find(({ choice }) => digestJson(choice) === digestJson(wanted))?.kl ?? [];
  const gain = pairedInterval(klOf(rounds[0]?.choice), klOf(choice));
  const better = gain.mean > 0 ? `, ${shown(gain.mean)} below the first proposal` : "";
  const { mean, low, high, n } = measured;
  const end = stands ? "The last search proposed it again." : "The searches ended before one proposed it again.";
  return [
    ...lines,
    `${name}: sum of scores ${shown(predicted)}, measured ${shown(mean)} (95 % ${shown(low)} to ${shown(high)}, ${n} sequences of the scoring text)${better}. ${end}`,
  ];
}
