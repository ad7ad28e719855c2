import { join } from "node:path";
import { readJson, writeJsonAtomic } from "../../base/index.js";
import { createEngine, type Engine, generate } from "../../engine/index.js";
import { chatTemplateOf } from "../../models/index.js";
import type { RunContext } from "../context.js";
import type { Subject } from "./evaluate.js";

/** What each model writes after the same prompt. */
export interface SampleSet {
  prompt: string;
  outputs: { model: string; text: string }[];
}

/** What a model with a chat template is asked, where the recipe names no prompts. */
const questions = [
  "What is the capital of France, and what is it known for?",
  "Write a short poem about the sea.",
  "Explain to a child why the sky is blue.",
  "Name three healthy breakfasts and say why they are good.",
  "If a train travels 60 miles in an hour, how far does it travel in 3 hours?",
];

/** What each model writes after the same prompts, likeliest token by token; chat models answer, others continue. */
export async function sampleModels(context: RunContext, subjects: readonly Subject[]): Promise<SampleSet[]> {
  const { recipe, parent, store, runtime, signal, onEvent } = context;
  const chat = parent.sidecars.chatTemplate !== undefined && recipe.sample.chat;
  const prompts = recipe.sample.prompts ?? (chat ? questions : ["Once upon a time"]);
  const stage = "sample";
  const artifact = await store.produce(
    {
      stage,
      title: chat ? "the same questions, answered by each" : "the same beginning, continued by each",
      version: 2,
      options: { prompts, chat, tokens: recipe.sample.tokens, names: subjects.map(({ name }) => name) },
      inputs: Object.fromEntries(subjects.map(({ name, digest }) => [name, digest])),
      async run(directory) {
        const sets: SampleSet[] = prompts.map((prompt) => ({ prompt, outputs: [] }));
        for (const [at, { name, open }] of subjects.entries()) {
          const model = await open();
          const engine = createEngine(runtime, model);
          for (const [i, set] of sets.entries()) {
            signal.throwIfAborted();
            set.outputs.push({ model: name, text: await write(context, engine, set.prompt, chat) });
            const done = at * prompts.length + i + 1;
            onEvent({ event: "progress", stage, done, total: subjects.length * prompts.length, unit: "samples" });
          }
          await model.close();
        }
        await writeJsonAtomic(join(directory, "samples.json"), sets);
      },
    },
    context,
  );
  return (await readJson(join(artifact.directory, "samples.json"))) as SampleSet[];
}

/** An answer alone, or the prompt with what follows it. */
async function write(context: RunContext, engine: Engine, prompt: string, chat: boolean): Promise<string> {
  const { recipe, parent, tokenizer, signal } = context;
  const { config } = engine;
  const ids = chat
    ? tokenizer.encode(chatTemplateOf(parent, tokenizer).render([{ role: "user", content: prompt }]))
    : tokenizer.encode(prompt, { addSpecial: true });
  const maxTokens = Math.min(recipe.sample.tokens, config.maxPositions - ids.length);
  const written = await generate(engine, ids, { maxTokens, temperature: 0, signal });
  return tokenizer.decode(chat ? written.ids : [...ids, ...written.ids], { skipSpecial: true });
}
