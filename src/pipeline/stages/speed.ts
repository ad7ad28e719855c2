import { rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { type Interval, readJson, writeJsonAtomic } from "../../base/index.js";
import { type Model, writeGguf } from "../../models/index.js";
import type { RunContext } from "../context.js";
import type { Artifact } from "../store.js";

/** Tokens a second in llama.cpp, all models in the recipe's type and in turns. */
export interface Speed {
  prefill: Interval;
  decode: Interval;
  /** Size of the GGUF. */
  fileBytes: number;
  samples: { prefill: number[]; decode: number[] };
}

export interface Runner {
  name: string;
  digest: string | Artifact;
  open(): Promise<Model>;
}

/** Writes every model as a GGUF and measures them in turns, so that a drift of the machine touches all alike. */
export async function measureSpeed(context: RunContext, runners: readonly Runner[]): Promise<Record<string, Speed>> {
  const { recipe, store, llama, onEvent, signal } = context;
  const { type } = recipe;
  const stage = "speed";
  const inputs = Object.fromEntries(runners.map(({ name, digest }) => [name, digest]));
  const artifact = await store.produce(
    {
      stage,
      title: "tokens a second in llama.cpp",
      version: 1,
      options: {
        type,
        ...recipe.measure,
        input: recipe.input,
        output: recipe.output,
        names: runners.map(({ name }) => name),
      },
      inputs,
      async run(directory) {
        const paths: string[] = [];
        for (const { name, open } of runners) {
          const model = await open();
          const path = join(directory, `${name.replaceAll(" ", "-")}.${type}.gguf`);
          await writeGguf(model, path, { type, overwrite: true, signal });
          await model.close();
          paths.push(path);
        }
        const measured = await llama.measureMany(paths, {
          promptTokens: recipe.measure.prompt ?? recipe.input,
          generateTokens: recipe.measure.generate ?? recipe.output,
          repeats: recipe.measure.repeats,
          signal,
          onProgress: (done, total) => onEvent({ event: "progress", stage, done, total, unit: "samples" }),
        });
        const speeds: Record<string, Speed> = {};
        for (const [i, { name }] of runners.entries()) {
          const { prefill, decode, samples } = measured[i]!;
          speeds[name] = { prefill, decode, samples, fileBytes: (await stat(paths[i]!)).size };
        }
        for (const path of paths) await rm(path);
        await writeJsonAtomic(join(directory, "speed.json"), speeds);
      },
    },
    context,
  );
  return (await readJson(join(artifact.directory, "speed.json"))) as Record<string, Speed>;
}
