import { sliceSequences } from "../../data/index.js";
import type { LayerScores } from "../../puzzle/index.js";
import {
  calibrate,
  capture,
  composeLibrary,
  distilBlocks,
  type Library,
  openBlockLibrary,
  readScores,
  scoreBlocks,
} from "../../puzzle/index.js";
import type { RunContext } from "../context.js";
import type { Artifact } from "../store.js";
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
  /** Costs and scores of every block that the search may choose. */
  library: Library;
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
      version: 1,
      options: { offered },
      inputs: { parent: parentDigest, text: prepared.artifact },
      run: (directory) => calibrate({ ...shared, text: textOf(context, prepared, "calibrate"), directory }),
    },
    context,
  );

  const starts = await buildStarts(context, statistics, { refit: recipe.variants.refit });
  const variants = recipe.blocks.tokens > 0 ? await trainBlocks(context, prepared, starts) : starts;

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

  const scoresArtifact = await store.produce(
    {
      stage: "score",
      title: "KL from the parent with one block replaced",
      version: 1,
      options: { offered },
      inputs: { parent: parentDigest, captured, variants },
      run: (directory) =>
        scoreBlocks({
          ...shared,
          library: openBlockLibrary(variants.directory, parent),
          text: textOf(context, prepared, "score"),
          captured: captured.directory,
          directory,
        }),
    },
    context,
  );

  const scores: LayerScores[] = [];
  for (let layer = 0; layer < parent.config.blocks.length; layer++) {
    scores.push(await readScores(scoresArtifact.directory, layer));
  }
  const library = composeLibrary(parent.config, space, scores, {
    costs: (block) =>
      Object.fromEntries(Object.entries(context.costs).map(([name, cost]) => [name, cost.block(block)])),
  });
  return { statistics, variants, scores, scoresArtifact, library };
}

/** Block-wise distillation of every variant, on the first sequences of the text that the child is distilled on. */
async function trainBlocks(context: RunContext, prepared: Prepared, starts: Artifact): Promise<Artifact> {
  const { recipe, store, parent, parentDigest, engine, runtime, onEvent, signal } = context;
  const { tokens, learningRate } = recipe.blocks;
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
