/**
 * @module Whether block-wise distillation pays: on two layers of the parent, what it takes off the replace-one-block KL a
 * second, on top of the closed form, against what the closed form took off the slices a second.
 */
import { join } from "node:path";
import { mean, readJson, writeJsonAtomic } from "../../base/index.js";
import { sliceSequences } from "../../data/index.js";
import {
  capture,
  distilBlocks,
  type LayerSpace,
  openBlockLibrary,
  readScores,
  type Space,
  scoreLayer,
  writeScores,
} from "../../puzzle/index.js";
import type { RunContext } from "../context.js";
import type { Artifact } from "../store.js";
import { buildStarts } from "./children.js";
import { textOf } from "./library.js";
import type { Prepared } from "./prepare.js";

/** Kullback-Leibler divergence summed over the probed variants, nats a token, and the seconds that a method took. */
export interface BlockProbe {
  layers: number[];
  /** Tokens of block-wise distillation of each variant. */
  tokens: number;
  kl: { sliced: number; refitted: number; distilled: number };
  seconds: { refitted: number; distilled: number };
  /** KL taken off a second. */
  rate: { refitted: number; distilled: number };
  /** Block-wise distillation takes off at least as much a second. */
  pays: boolean;
}

const probeTokens = 16_384;
const probeSequences = 4;

/** Probes with the measures of a run in the store, so that a resumed run decides alike. */
export async function probeBlocks(
  context: RunContext,
  prepared: Prepared,
  { statistics, starts, captured }: { statistics: Artifact; starts: Artifact; captured: Artifact },
): Promise<BlockProbe> {
  const { recipe, store, parent } = context;
  const layers = probedLayers(parent.config.blocks.length);
  const space = onlyLayers(context.space, layers);
  const sliced = await buildStarts(context, statistics, { refit: false, space, stage: "probe/sliced", ranked: starts });
  const refitted = await buildStarts(context, statistics, { refit: true, space, stage: "probe/refitted" });
  const distilled = await distil(context, prepared, refitted);
  const klOf = (variants: Artifact) => score(context, { prepared, captured, space, layers, variants });
  const kl = { sliced: await klOf(sliced), refitted: await klOf(refitted), distilled: await klOf(distilled) };
  const artifact = await store.produce(
    {
      stage: "probe",
      title: "does block-wise distillation pay?",
      version: 1,
      options: { kl, tokens: probeTokens, learningRate: recipe.blocks.learningRate },
      inputs: { sliced, refitted, distilled },
      async run(directory) {
        // Slicing is a part of the closed form's seconds, and ranking the channels of both.
        const seconds = { refitted: refitted.seconds, distilled: distilled.seconds };
        const rate = {
          refitted: (kl.sliced - kl.refitted) / seconds.refitted,
          distilled: (kl.refitted - kl.distilled) / seconds.distilled,
        };
        const pays = rate.distilled >= rate.refitted;
        await writeJsonAtomic(join(directory, "probe.json"), { layers, tokens: probeTokens, kl, seconds, rate, pays });
      },
    },
    context,
  );
  return (await readJson(join(artifact.directory, "probe.json"))) as BlockProbe;
}

/** One in the first half and one in the second: the first layers and the last are unlike the others. */
function probedLayers(count: number): number[] {
  return [...new Set([Math.floor(count / 3), Math.floor((2 * count) / 3)])];
}

/** Other layers keep their own blocks. */
function onlyLayers({ layers: all, omitted }: Space, layers: readonly number[]): Space {
  const own = ({ attention, ffn, ...place }: LayerSpace) => ({
    ...place,
    attention: attention.slice(0, 1),
    ffn: ffn.slice(0, 1),
  });
  return { layers: all.map((place) => (layers.includes(place.layer) ? place : own(place))), omitted };
}

async function distil(context: RunContext, prepared: Prepared, starts: Artifact): Promise<Artifact> {
  const { recipe, store, parent, parentDigest, engine, runtime, onEvent, signal } = context;
  const whole = textOf(context, prepared, "distil");
  const sequences = sliceSequences(whole.sequences, 0, Math.ceil(probeTokens / recipe.length));
  const text = { ...whole, sequences };
  const { learningRate } = recipe.blocks;
  return store.produce(
    {
      stage: "probe/distilled",
      version: 1,
      options: { tokens: probeTokens, learningRate, seed: recipe.seed },
      inputs: { parent: parentDigest, starts, text: prepared.artifact },
      async run(directory) {
        const captured = join(directory, "captured");
        await capture({ engine, text, directory: captured, onEvent, signal });
        const library = openBlockLibrary(starts.directory, parent);
        const work = { engine, runtime, library, text, captured, directory, onEvent, signal };
        await distilBlocks({ ...work, tokens: probeTokens, learningRate, seed: recipe.seed });
      },
    },
    context,
  );
}

interface ProbeScore {
  prepared: Prepared;
  captured: Artifact;
  space: Space;
  layers: number[];
  variants: Artifact;
}

/** A few sequences are enough to tell rates that lie far apart. */
async function score(
  context: RunContext,
  { prepared, captured, space, layers, variants }: ProbeScore,
): Promise<number> {
  const { store, parent, parentDigest, engine, onEvent, signal } = context;
  const text = textOf(context, prepared, "score");
  const range = { start: 0, count: Math.min(probeSequences, text.sequences.count) };
  const artifact = await store.produce(
    {
      stage: `${variants.stage}-score`,
      version: 2,
      options: { layers, range },
      inputs: { parent: parentDigest, captured, variants },
      async run(directory) {
        const library = openBlockLibrary(variants.directory, parent);
        const request = { engine, space, library, text, captured: captured.directory, directory, joint: false };
        for (const layer of layers) {
          await writeScores(directory, await scoreLayer({ ...request, onEvent, signal }, layer, { range }));
        }
      },
    },
    context,
  );
  const scores = await Promise.all(layers.map((layer) => readScores(artifact.directory, layer)));
  return scores.reduce((sum, { kl }) => sum + Object.values(kl).reduce((total, each) => total + mean(each), 0), 0);
}
