/** @module `espalier train inspect`: what would be learnt, before anything is trained. */
import { Command } from "commander";
import { formatCount } from "../base/index.js";
import type { InspectedSource } from "../pipeline/index.js";
import { collect, positiveInteger, withCommonOptions } from "./options.js";
import { runCommand } from "./output.js";

export function createInspectCommand(): Command {
  const command = new Command("inspect")
    .description("show what of conversations would be learnt; trains nothing")
    .argument("<model>", "Hugging Face directory or .gguf file, for its tokenizer and chat template")
    .requiredOption("--data <file>", "samples: .jsonl, packed or not; may be repeated", collect)
    .option("--reasoning", "read worked questions, each with its thoughts and without")
    .option("--count <n>", "samples shown of each file", positiveInteger, 2)
    .option("--length <n>", "tokens of a row; longer samples are counted", positiveInteger, 256)
    .option("--chat-template <file>", "a Jinja file, or `plain`, in place of the model's own")
    .addHelpText("after", "\nExample:\n  $ espalier train inspect models/chat --data conversations.jsonl")
    .action((model: string, options: InspectFlags, self: Command) =>
      runCommand(self, async (io) => {
        const { inspectSamples } = await import("../pipeline/index.js");
        const style = process.stdout.isTTY === true && !io.json ? "ansi" : "plain";
        const sources = await inspectSamples(model, { ...options, style });
        io.result(sources, () => sources.map((source) => renderSource(source, options.length)).join("\n\n"));
      }),
    );
  return withCommonOptions(command);
}

interface InspectFlags {
  data: string[];
  reasoning?: boolean;
  count: number;
  length: number;
  chatTemplate?: string;
}

function renderSource(
  { name, samples, tokens, learnt, longest, over, shown }: InspectedSource,
  length: number,
): string {
  const share = ((100 * learnt) / tokens).toFixed(1);
  return [
    `${name}: ${formatCount(samples)} samples, ${formatCount(tokens)} tokens, ${formatCount(learnt)} of them learnt (${share} %)`,
    `the longest has ${formatCount(longest)} tokens; ${formatCount(over)} have more than ${formatCount(length)}`,
    ...shown.map((sample, i) => `\n${i + 1}. ${sample.learnt} of ${sample.tokens} tokens learnt\n${sample.text}`),
  ].join("\n");
}
