import { Command } from "commander";
import { createRssMeter, formatBytes, readText } from "../../base/index.js";
import type { PerplexityResult } from "../../eval/index.js";
import { loadModel, openRuntime } from "../load-model.js";
import { positiveInteger } from "../options.js";
import { type CommandIo, runCommand } from "../output.js";

export function createCommand(): Command {
  return new Command("perplexity")
    .description("Measures a model on a text, over windows that do not overlap, and its divergence from a parent.")
    .argument("<model>", "Hugging Face directory or .gguf file")
    .requiredOption("--text <file>", "UTF-8 text")
    .option("--context <n>", "tokens of a window (default: 512, or the model's longest context)", positiveInteger)
    .option("--windows <n>", "take at most this many windows from the start", positiveInteger)
    .option("--against <parent>", "also the divergence from this model, with its 95 % interval")
    .addHelpText("after", "\nExample:\n  $ espalier perplexity models/stories260K --text stories.txt --context 256")
    .action((path: string, options: PerplexityCommandOptions, command: Command) =>
      runCommand(command, (io) => measure(io, path, options)),
    );
}

interface PerplexityCommandOptions {
  text: string;
  context?: number;
  windows?: number;
  against?: string;
}

async function measure(io: CommandIo, path: string, options: PerplexityCommandOptions): Promise<void> {
  const { measurePerplexity } = await import("../../eval/index.js");
  const meter = createRssMeter();
  const text = await readText(options.text);
  const runtime = await openRuntime(io);
  const { model, engine, tokenizer } = await loadModel(io, runtime, path);
  const parent = options.against === undefined ? undefined : await loadModel(io, runtime, options.against);
  try {
    const measured = await measurePerplexity(engine, tokenizer, text, {
      ...(options.context !== undefined && { context: options.context }),
      ...(options.windows !== undefined && { maxWindows: options.windows }),
      ...(parent && { parent: parent.engine }),
      onEvent: io.onEvent,
      signal: io.signal,
    });
    const result = { ...measured, peakRssBytes: meter.peakBytes() };
    io.result(result, () => render(result));
  } finally {
    meter.stop();
    await parent?.model.close();
    await model.close();
    await runtime.dispose();
  }
}

function render(result: PerplexityResult & { peakRssBytes: number }): string {
  const { tokens, nll, perplexity, bitsPerByte, windows, context, kl, parent, peakRssBytes } = result;
  const lines = [
    `perplexity    ${perplexity.toFixed(4)}`,
    `nll           ${nll.toFixed(5)} nats a token`,
    `bits per byte ${bitsPerByte.toFixed(4)}`,
    `over          ${tokens} tokens in ${windows} windows of up to ${context}`,
    `memory        ${formatBytes(peakRssBytes)} at its peak`,
  ];
  if (kl)
    lines.push(`kl            ${kl.mean.toFixed(5)} nats a token, 95 % ${kl.low.toFixed(5)} to ${kl.high.toFixed(5)}`);
  if (parent) lines.push(`parent        perplexity ${parent.perplexity.toFixed(4)}`);
  return lines.join("\n");
}
