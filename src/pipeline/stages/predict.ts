import { rm } from "node:fs/promises";
import { join } from "node:path";
import { type Interval, ignoreEvents, meanInterval, readJson, writeJsonAtomic } from "../../base/index.js";
import { createEngine, scoreSequences } from "../../engine/index.js";
import { openBlockLibrary, openChild, realise } from "../../puzzle/index.js";
import type { RunContext } from "../context.js";
import type { Artifact } from "../store.js";
import { textOf } from "./library.js";
import { type Prepared, rowsOf } from "./prepare.js";
import type { Candidate } from "./search.js";

/** A candidate's blocks put together as the library has them, without any further refit. */
export interface Prediction {
  name: string;
  /** Sum of its blocks' scores, nats a token. */
  predicted: number;
  measured: Interval;
}

/** Sequences on which the candidates are measured. */
const measuredSequences = 32;

/** Measures how far the sum of single-block scores is from the KL of the assembled model. */
export async function measurePredictions(
  context: RunContext,
  prepared: Prepared,
  variants: Artifact,
  candidates: readonly Candidate[],
): Promise<Prediction[]> {
  const { store, parentDigest, onEvent } = context;
  const scored = candidates.filter(({ predicted }) => predicted !== undefined);
  const stage = `predict/${candidates[0]!.name}`;
  const artifact = await store.produce(
    {
      stage,
      title: "predicted against measured KL of assembled candidates",
      version: 1,
      options: { candidates: scored.map(({ name, blocks }) => ({ name, blocks })), sequences: measuredSequences },
      inputs: { parent: parentDigest, variants, text: prepared.artifact },
      async run(directory) {
        const kl: Record<string, number[]> = {};
        for (const [done, candidate] of scored.entries()) {
          kl[candidate.name] = await measureAssembled(context, prepared, variants, candidate, directory);
          onEvent({ event: "progress", stage, done: done + 1, total: scored.length, unit: "candidates" });
        }
        await writeJsonAtomic(join(directory, "kl.json"), kl);
      },
    },
    context,
  );
  const kl = (await readJson(join(artifact.directory, "kl.json"))) as Record<string, number[]>;
  return scored.map(({ name, predicted }) => ({
    name,
    predicted: predicted!,
    measured: meanInterval(kl[name]!),
  }));
}

async function measureAssembled(
  context: RunContext,
  prepared: Prepared,
  variants: Artifact,
  { blocks }: Candidate,
  directory: string,
): Promise<number[]> {
  const { parent, engine, reference, runtime, signal } = context;
  const assembled = join(directory, "assembled");
  await rm(assembled, { recursive: true, force: true });
  const library = openBlockLibrary(variants.directory, parent);
  const text = textOf(context, prepared, "calibrate");
  await realise({
    engine,
    runtime,
    library,
    blocks,
    text,
    refit: false,
    directory: assembled,
    onEvent: ignoreEvents,
    signal,
  });
  const model = await openChild(parent, assembled);
  const rows = rowsOf(prepared.sequences.evaluate).slice(0, measuredSequences);
  const scores = await scoreSequences(createEngine(runtime, model), rows, { reference, signal });
  await model.close();
  await rm(assembled, { recursive: true, force: true });
  return scores.map(({ kl }) => kl!);
}
