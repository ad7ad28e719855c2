import { sliceSequences } from "../../data/index.js";
import type { BatchedText, LayerScores, RaceReport } from "../../puzzle/index.js";
import {
  calibrate,
  capture,
  composeLibrary,
  distilBlocks,
  type Library,
  openBlockLibrary,
  raceBlocks,
  raceBudgets,
  readRace,
  readScores,
  scoreBlocks,
  scoresJointly,
} from "../../puzzle/index.js";
import type { RunContext } from "../context.js";
import type { Artifact } from "../store.js";
import { type BlockProbe, probeBlocks } from "./block-probe.js";
import { buildStarts } from "./children.js";
import type { Part, Prepared } from "./prepare.js";

/** Sequences that run at once, so that a batch has about 2048 tokens. */
export function textOf({ recipe }: RunContext, prepared: Prepared, part: Part) {
  return { sequences: prepared.sequences[part], batch: Math.max(1, Math.round(2048 / recipe.length)) };
}

export interface Scored {
  /** Directory of the variants' weights. */
  variants: Artifact;
  statistics: Artifact;
  scores: LayerScores[];
  scoresArtifact: Artifact;
  scoring: Scoring;
  /** How the race went, where the space was too large to score every pair. */
  race?: RaceReport;
  /** What decided about block-wise distillation, where the recipe left it open. */
  probe?: BlockProbe;
  /** Costs and scores of every block that the search may choose. */
  library: Library;
}

/** What whole candidates are measured on as well. */
export interface Scoring {
  text: BatchedText;
  captured: Artifact;
}

/** Calibrates, builds every variant, and scores each in the parent's place. */
export async function buildLibrary(context: RunContext, prepared: Prepared): Promise<Scored> {
  const { recipe, store, parent, parentDigest, engine, runtime, space, onEvent, signal } = context;
  const shared = { engine, runtime, space, onEvent, signal };
  const offered = space.layers;

  const statistics = await store.produce(
    {
      stage: "calibrate",
      title: "what the parent's blocks see and do",
      version: 2,
      options: { offered },
      inputs: { parent: parentDigest, text: prepared.artifact },
      run: (directory) => calibrate({ ...shared, text: textOf(context, prepared, "calibrate"), directory }),
    },
    context,
  );

  const starts = await buildStarts(context, statistics, { refit: recipe.variants.refit });

  const captured = await store.produce(
    {
      stage: "capture",
      title: "what each block reads of the scoring text",
      version: 1,
      options: {},
      inputs: { parent: parentDigest, text: prepared.artifact },
      run: (directory) => capture({ ...shared, text: textOf(context, prepared, "score"), directory }),
    },
    context,
  );

  const probe =
    recipe.blocks.tokens === "auto"
      ? await probeBlocks(context, prepared, { statistics, starts, captured })
      : undefined;
  const tokens = probe ? (probe.pays ? probe.tokens : 0) : Number(recipe.blocks.tokens);
  const variants = tokens > 0 ? await trainBlocks(context, prepared, starts, tokens) : starts;

  const scoring = { text: textOf(context, prepared, "score"), captured };
  const scoresArtifact = await scoreStage(context, variants, scoring);

  const scores: LayerScores[] = [];
  for (let layer = 0; layer < parent.config.blocks.length; layer++) {
    scores.push(await readScores(scoresArtifact.directory, layer));
  }
  const library = composeLibrary(parent.config, space, scores, {
    costs: (block) =>
      Object.fromEntries(Object.entries(context.costs).map(([name, cost]) => [name, cost.block(block)])),
  });
  const race = scoresJointly(space) ? undefined : await readRace(scoresArtifact.directory);
  const told = { ...(probe && { probe }), ...(race && { race }) };
  return { statistics, variants, scores, scoresArtifact, scoring, library, ...told };
}

/** Scores all pairs of a small space; halves of a large one are raced, for budgets of any child. */
async function scoreStage(context: RunContext, variants: Artifact, scoring: Scoring): Promise<Artifact> {
  const { store, parent, parentDigest, engine, space, onEvent, signal } = context;
  const { text, captured } = scoring;
  const request = { engine, space, library: openBlockLibrary(variants.directory, parent), text };
  const joint = scoresJointly(space);
  return store.produce(
    {
      stage: "score",
      title: "KL from the parent with one block replaced",
      version: 3,
      options: { offered: space.layers },
      inputs: { parent: parentDigest, captured, variants },
      async run(directory) {
        const whole = { ...request, captured: captured.directory, directory, onEvent, signal };
        if (joint) return scoreBlocks(whole);
        const race = await raceBlocks({ ...whole, ...raceBudgets(parent.config, space), joint });
        onEvent({ event: "notice", level: "info", message: describeRace(race) });
      },
    },
    context,
  );
}

/** One line on what was scored. */
export function describeRace(race: RaceReport): string {
  const { evaluations, pairEvaluations, fullEvaluations, pairs, pairFactor } = race;
  const share = Math.round((100 * (evaluations + pairEvaluations)) / fullEvaluations);
  const factor = pairFactor ? `, which cost ${pairFactor.factor.toFixed(2)} of the sum of their halves (median)` : "";
  return `Scores were raced for any budget: ${share} % of the work of scoring every half on all of the text, ${pairs} pairs of halves among it${factor}.`;
}

/** Block-wise distillation of every variant, on the first sequences of the text that the child is distilled on. */
async function trainBlocks(
  context: RunContext,
  prepared: Prepared,
  starts: Artifact,
  tokens: number,
): Promise<Artifact> {
  const { recipe, store, parent, parentDigest, engine, runtime, onEvent, signal } = context;
  const { learningRate } = recipe.blocks;
  const whole = textOf(context, prepared, "distil");
  const text = { ...whole, sequences: sliceSequences(whole.sequences, 0, Math.ceil(tokens / recipe.length)) };
  const captured = await store.produce(
    {
      stage: "capture/blocks",
      title: "what each block reads of the text it is trained on",
      version: 1,
      options: { tokens },
      inputs: { parent: parentDigest, text: prepared.artifact },
      run: (directory) => capture({ engine, text, directory, onEvent, signal }),
    },
    context,
  );
  return store.produce(
    {
      stage: "blocks",
      title: "every variant trained towards the parent's block",
      version: 1,
      options: { tokens, learningRate, seed: recipe.seed },
      inputs: { parent: parentDigest, starts, captured },
      run: (directory) =>
        distilBlocks({
          engine,
          runtime,
          library: openBlockLibrary(starts.directory, parent),
          text,
          captured: captured.directory,
          tokens,
          learningRate,
          seed: recipe.seed,
          directory,
          onEvent,
          signal,
        }),
    },
    context,
  );
}
