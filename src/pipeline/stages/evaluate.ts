import { join } from "node:path";
import { type Interval, meanInterval, readJson, writeJsonAtomic } from "../../base/index.js";
import { createEngine, scoreSequences } from "../../engine/index.js";
import type { Model } from "../../models/index.js";
import type { RunContext } from "../context.js";
import type { Artifact } from "../store.js";
import { type Prepared, rowsOf } from "./prepare.js";

/** How a model does on the set-aside text. */
export interface Evaluation {
  perplexity: number;
  /** KL from the parent, nats a token, by sequence. Zero for the parent itself. */
  kl: Interval;
  /** KL of each sequence, for paired comparisons. */
  klBySequence: number[];
  tokens: number;
}

/** A model, by the digest of what it is made of. */
export interface Subject {
  name: string;
  digest: string | Artifact;
  open(): Promise<Model>;
}

export interface EvaluateOptions {
  /** Name of the stage. Defaults to `evaluate/NAME`. */
  stage?: string;
  /** The first so many sequences. Defaults to all. */
  sequences?: number;
}

/** Perplexity and KL from the parent on the set-aside text. */
export async function evaluate(
  context: RunContext,
  prepared: Prepared,
  subject: Subject,
  { stage = `evaluate/${subject.name}`, sequences = prepared.sequences.evaluate.count }: EvaluateOptions = {},
): Promise<Evaluation> {
  const { store, parentDigest, runtime, reference, onEvent, signal } = context;
  const artifact = await store.produce(
    {
      stage,
      version: 1,
      options: { sequences },
      inputs: { parent: parentDigest, model: subject.digest, text: prepared.artifact },
      async run(directory) {
        const model = await subject.open();
        const rows = rowsOf(prepared.sequences.evaluate).slice(0, sequences);
        const onProgress = (done: number) =>
          onEvent({ event: "progress", stage, done, total: rows.length, unit: "sequences" });
        const scores = await scoreSequences(createEngine(runtime, model), rows, {
          reference,
          signal,
          onProgress,
        });
        await model.close();
        const tokens = scores.reduce((sum, score) => sum + score.tokens, 0);
        const nll = scores.reduce((sum, score) => sum + score.nll, 0);
        const klBySequence = scores.map(({ kl }) => kl!);
        await writeJsonAtomic(join(directory, "evaluation.json"), {
          perplexity: Math.exp(nll / tokens),
          klBySequence,
          tokens,
        });
      },
    },
    context,
  );
  const file = (await readJson(join(artifact.directory, "evaluation.json"))) as Omit<Evaluation, "kl">;
  return { ...file, kl: meanInterval(file.klBySequence) };
}
