#!/usr/bin/env node
import { readFileSync } from "node:fs";
import { Command } from "commander";
import { withCommonOptions } from "./options.js";

/** Every command, loaded only when it is asked for, so that --help stays quick and needs no native library. */
const commands: Record<string, { summary: string; load: () => Promise<{ createCommand(): Command }> }> = {
  plan: { summary: "how large a model is, what it needs, which GPUs run it", load: () => import("./commands/plan.js") },
  pull: { summary: "fetch a model into the Hugging Face cache", load: () => import("./commands/pull.js") },
  list: { summary: "models of the Hugging Face cache", load: () => import("./commands/list.js") },
  rm: { summary: "take a model out of the cache", load: () => import("./commands/rm.js") },
  run: { summary: "run a recipe (default: recipes/start.json)", load: () => import("./commands/run.js") },
  reshape: { summary: "make a smaller child of a model under a budget", load: () => import("./commands/reshape.js") },
  train: { summary: "train a model: pretrain, distill, sft", load: () => import("./commands/train.js") },
  align: {
    summary: "align a model: reward, dpo, rpo, reinforce, grpo, rank",
    load: () => import("./commands/align.js"),
  },
  init: { summary: "write a recipe to start from", load: () => import("./commands/init.js") },
  measure: {
    summary: "seconds of every sub-block in llama.cpp, for speed budgets",
    load: () => import("./commands/measure.js"),
  },
  search: { summary: "choose one variant per layer of a block library", load: () => import("./commands/search.js") },
  show: { summary: "configuration, blocks, parameters and sizes of a model", load: () => import("./commands/show.js") },
  export: { summary: "write a model as GGUF or Hugging Face directory", load: () => import("./commands/export.js") },
  quantize: {
    summary: "write a model in a smaller type, and measure the loss",
    load: () => import("./commands/quantize.js"),
  },
  generate: { summary: "continue a prompt", load: () => import("./commands/generate.js") },
  chat: { summary: "talk with a model, or with two side by side", load: () => import("./commands/chat.js") },
  serve: {
    summary: "serve models to clients of OpenAI, Anthropic and Ollama",
    load: () => import("./commands/serve.js"),
  },
  perplexity: { summary: "measure a model on a text", load: () => import("./commands/perplexity.js") },
  doctor: { summary: "devices, libraries, memory and versions", load: () => import("./commands/doctor.js") },
  clean: { summary: "what the store holds, and freeing it", load: () => import("./commands/clean.js") },
};

export async function main(argv: readonly string[]): Promise<void> {
  const program = new Command("espalier")
    .description("Reshape, distil, measure and export Llama-family language models.")
    .version(packageVersion())
    .showSuggestionAfterError()
    .showHelpAfterError("(--help shows the options)")
    .enablePositionalOptions();
  const asked = argv.find((word) => !word.startsWith("-"));
  for (const [name, { summary, load }] of Object.entries(commands)) {
    const command = name === asked ? (await load()).createCommand() : new Command(name);
    program.addCommand(withCommonOptions(command.summary(summary)));
  }
  program.addHelpText(
    "after",
    "\nExample:\n  $ espalier reshape models/stories260K --budget params=60% --out out/child",
  );
  exitWithTwoOnUsageErrors(program);
  await program.parseAsync(argv, { from: "user" });
}

function exitWithTwoOnUsageErrors(program: Command): void {
  for (const command of [program, ...program.commands]) {
    command.exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2));
  }
}

function packageVersion(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

await main(process.argv.slice(2));
