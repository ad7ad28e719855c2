import { join } from "node:path";
import { readJson, writeJsonAtomic } from "../../base/index.js";
import { createEngine, generate } from "../../engine/index.js";
import type { RunContext } from "../context.js";
import type { Subject } from "./evaluate.js";

export interface Sample {
  model: string;
  text: string;
}

/** What each model writes after the same prompt, likeliest token by token. */
export async function sampleModels(context: RunContext, subjects: readonly Subject[]): Promise<Sample[]> {
  const { recipe, store, runtime, tokenizer, signal } = context;
  const artifact = await store.produce(
    {
      stage: "sample",
      title: "the same beginning, continued by each",
      version: 1,
      options: { ...recipe.sample, names: subjects.map(({ name }) => name) },
      inputs: Object.fromEntries(subjects.map(({ name, digest }) => [name, digest])),
      async run(directory) {
        const samples: Sample[] = [];
        for (const { name, open } of subjects) {
          const model = await open();
          const prompt = tokenizer.encode(recipe.sample.prompt, { addSpecial: true });
          const { ids } = await generate(createEngine(runtime, model), prompt, {
            maxTokens: Math.min(recipe.sample.tokens, model.config.maxPositions - prompt.length),
            temperature: 0,
            signal,
          });
          samples.push({ model: name, text: tokenizer.decode([...prompt, ...ids], { skipSpecial: true }) });
          await model.close();
        }
        await writeJsonAtomic(join(directory, "samples.json"), samples);
      },
    },
    context,
  );
  return (await readJson(join(artifact.directory, "samples.json"))) as Sample[];
}
