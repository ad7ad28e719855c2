import { Command, InvalidArgumentError } from "commander";
import type { Generation } from "../../engine/index.js";
import type { Model } from "../../models/index.js";
import type { StreamDecoder, Tokenizer } from "../../tokenizer/index.js";
import { loadModel, openRuntime } from "../load-model.js";
import { nonNegativeNumber, positiveInteger } from "../options.js";
import { type CommandIo, runCommand } from "../output.js";

export function createCommand(): Command {
  return new Command("generate")
    .description("Continues a prompt. Greedy unless a temperature is given; the same seed gives the same text.")
    .argument("<model>", "Hugging Face directory or .gguf file")
    .requiredOption("--prompt <text>", "text to continue, or with --chat the user's message")
    .option("--max-tokens <n>", "at most this many new tokens", positiveInteger, 128)
    .option("--temperature <t>", "0 takes the most probable token", nonNegativeNumber, 0)
    .option("--top-p <p>", "draw among the most probable tokens up to this probability", probability, 1)
    .option("--seed <n>", "seed of the draws", wholeNumber, 0)
    .option("--chat", "render the prompt with the model's chat template")
    .addHelpText("after", '\nExample:\n  $ espalier generate models/stories260K --prompt "Once upon a time"')
    .action((path: string, options: GenerateCommandOptions, command: Command) =>
      runCommand(command, (io) => continuePrompt(io, path, options)),
    );
}

interface GenerateCommandOptions {
  prompt: string;
  maxTokens: number;
  temperature: number;
  topP: number;
  seed: number;
  chat?: boolean;
}

function probability(text: string): number {
  const value = nonNegativeNumber(text);
  if (value > 0 && value <= 1) return value;
  throw new InvalidArgumentError(`Expected a probability above 0 and at most 1, found "${text}".`);
}

function wholeNumber(text: string): number {
  const value = nonNegativeNumber(text);
  if (Number.isSafeInteger(value)) return value;
  throw new InvalidArgumentError(`Expected a whole number, found "${text}".`);
}

async function continuePrompt(io: CommandIo, path: string, options: GenerateCommandOptions): Promise<void> {
  const { prompt, chat = false, ...sampling } = options;
  const { generate } = await import("../../engine/index.js");
  const { createStreamDecoder } = await import("../../tokenizer/index.js");
  const runtime = await openRuntime(io);
  const { model, engine, tokenizer } = await loadModel(io, runtime, path);
  try {
    const promptIds = chat ? await chatIds(model, tokenizer, prompt) : tokenizer.encode(prompt);
    const shown = chat ? "" : prompt;
    const live = !io.json && process.stdout.isTTY;
    const output = createOutput(createStreamDecoder(tokenizer, { after: promptIds }), live);
    if (live) process.stdout.write(shown);
    const made = await generate(engine, promptIds, {
      ...sampling,
      stop: [...new Set([...engine.config.eosTokenIds, ...tokenizer.eosTokenIds])],
      signal: io.signal,
      onToken: output.push,
    });
    const text = output.end();
    const { ids, finish, tokensPerSecond, prefillTokensPerSecond } = made;
    const result = { text, ids, promptIds, finish, tokensPerSecond, prefillTokensPerSecond };
    io.result(result, () => (live ? "" : shown + text));
    io.onEvent({ event: "notice", level: "info", message: summary(made) });
  } finally {
    await model.close();
    await runtime.dispose();
  }
}

/** Gathers the text, and shows it while it grows. */
function createOutput(decoder: StreamDecoder, live: boolean) {
  let text = "";
  const emit = (piece: string) => {
    text += piece;
    if (live) process.stdout.write(piece);
  };
  return {
    push: (id: number) => emit(decoder.push(id)),
    end() {
      emit(decoder.end());
      return text;
    },
  };
}

/** The prompt as the user's turn of a conversation. */
async function chatIds(model: Model, tokenizer: Tokenizer, prompt: string): Promise<number[]> {
  const { chatTemplateOf } = await import("../../models/index.js");
  const rendered = chatTemplateOf(model, tokenizer).render([{ role: "user", content: prompt }]);
  // Templates write the start token themselves.
  return tokenizer.encode(rendered, { addSpecial: false });
}

const endings = {
  stop: "ended by the model",
  length: "cut at --max-tokens",
  context: "the model's context is full",
} as const satisfies Record<Generation["finish"], string>;

function summary({ ids, finish, tokensPerSecond }: Generation): string {
  return `${ids.length} tokens, ${tokensPerSecond.toFixed(1)} tokens/s, ${endings[finish]}`;
}
