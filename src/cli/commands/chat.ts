import { basename } from "node:path";
import { text as readAll } from "node:stream/consumers";
import { Command, Option } from "commander";
import { EspalierError } from "../../base/index.js";
import type { InferenceEngine, LoadedModel, LoadOptions } from "../../llamacpp/index.js";
import type { ChatAnswer, ChatSettings, Speaker } from "../../serve/index.js";
import { nonNegativeNumber, positiveInteger } from "../options.js";
import { type CommandIo, runCommand } from "../output.js";
import { createRunnables, type Runnables } from "../runnable.js";

export function createCommand(): Command {
  return new Command("chat")
    .description(
      "Talks with a model in llama.cpp. Without --prompt: line by line on a terminal (/help), or one question from standard input.",
    )
    .argument("<model>", "a .gguf file, a model's directory, or hf:owner/name of the cache")
    .option("--prompt <text>", "ask this and end")
    .option("--system <text>", "system text")
    .addOption(
      new Option("--thinking <mode>", "the reasoning switch; auto leaves it to the model").choices([
        "on",
        "off",
        "auto",
      ]),
    )
    .option("--thinking-budget <n>", "tokens of thought, which is then closed; turns thinking on", positiveInteger)
    .option(
      "--temperature <t>",
      "0 takes the likeliest token (default: 0, or what the mode of thinking asks for)",
      nonNegativeNumber,
    )
    .option("--top-p <p>", "draw among the likeliest tokens up to this probability", nonNegativeNumber)
    .option("--seed <n>", "seed of the draws", nonNegativeNumber)
    .option(
      "--max-tokens <n>",
      "tokens of an answer (default: 1024, or with thinking on what the context holds)",
      positiveInteger,
    )
    .option("--context <n>", "tokens of context (default: the model's own, at most 4096)", positiveInteger)
    .option("--compare <parent>", "let this model answer too, and show both with their speeds")
    .option(
      "--draft <child>",
      "a smaller model of the same vocabulary that proposes tokens; it changes the speed alone",
    )
    .option("--speed-up", "with --draft and one question: answer it again without the draft, and compare")
    .addOption(
      new Option("--gpu <layer>", "where that build of llama.cpp is installed").choices(["cuda", "vulkan", "metal"]),
    )
    .addHelpText(
      "after",
      `
Examples:
  $ espalier chat child.gguf
  $ espalier chat out/child/child --compare parent.gguf --prompt "Why is the sky blue?"
  $ espalier chat parent.gguf --draft child.gguf --speed-up --prompt "Tell a story."`,
    )
    .action((model: string, options: ChatOptions, command: Command) =>
      runCommand(command, (io) => chat(io, model, options)),
    );
}

interface ChatOptions {
  prompt?: string;
  system?: string;
  thinking?: "on" | "off" | "auto";
  thinkingBudget?: number;
  temperature?: number;
  topP?: number;
  seed?: number;
  maxTokens?: number;
  context?: number;
  compare?: string;
  draft?: string;
  speedUp?: boolean;
  gpu?: "cuda" | "vulkan" | "metal";
}

async function chat(io: CommandIo, model: string, options: ChatOptions): Promise<void> {
  checkOptions(options);
  const { createInferenceEngine } = await import("../../llamacpp/index.js");
  const prompt = options.prompt ?? (process.stdin.isTTY ? undefined : await readAll(process.stdin));
  checkPrompt(prompt, io.json);
  const room: Room = { io, options, engine: createInferenceEngine(), runnables: createRunnables(io.onEvent) };
  try {
    const speakers = [await openSpeaker(room, model, options.draft)];
    if (options.compare !== undefined) speakers.push(await openSpeaker(room, options.compare));
    if (prompt !== undefined) await answerOnce(room, model, speakers, prompt);
    else await talk(io, speakers);
  } finally {
    await room.engine.dispose();
    await room.runnables.dispose();
  }
}

interface Room {
  io: CommandIo;
  options: ChatOptions;
  engine: InferenceEngine;
  runnables: Runnables;
}

function checkOptions({ draft, speedUp, topP, seed }: ChatOptions): void {
  const problem = (where: string, expected: string, found: string) =>
    new EspalierError({ where, expected, found, exitCode: 2 });
  if (speedUp && draft === undefined) throw problem("--speed-up", "a --draft to compare with", "none");
  if (topP !== undefined && topP > 1) throw problem("--top-p", "a probability", String(topP));
  if (seed !== undefined && !Number.isSafeInteger(seed)) throw problem("--seed", "a whole number", String(seed));
}

function checkPrompt(prompt: string | undefined, json: boolean): void {
  if (prompt === undefined && !json) return;
  if (prompt?.trim()) return;
  throw new EspalierError({
    where: "espalier chat",
    expected: json ? "a question: --prompt, or text on standard input" : "a question on standard input",
    found: "none",
    fix: '--prompt "..."',
    exitCode: 2,
  });
}

async function openSpeaker({ io, options, engine, runnables }: Room, model: string, draft?: string): Promise<Speaker> {
  const { createSpeaker } = await import("../../serve/index.js");
  const gguf = await runnables.ggufOf(model);
  const name = model.startsWith("hf:") ? model : basename(model).replace(/\.gguf$/i, "");
  const load: LoadOptions = {
    sequences: 1,
    signal: io.signal,
    onProgress: progressOf(io, name),
    ...(options.context !== undefined && { contextSize: options.context }),
    ...(io.threads !== undefined && { threads: io.threads }),
    ...(options.gpu !== undefined && { gpu: options.gpu }),
    ...(draft !== undefined && { draft: await runnables.ggufOf(draft) }),
  };
  const loaded = await engine.loadModel(gguf, load);
  sayTemplate(io, name, loaded);
  return createSpeaker(name, loaded, settingsOf(options));
}

/** Loading is spoken of only where it takes a while. */
function progressOf({ onEvent }: CommandIo, name: string): NonNullable<LoadOptions["onProgress"]> {
  const begun = performance.now();
  let told = 0;
  return (share) => {
    const done = Math.floor(100 * share);
    if (performance.now() - begun < 3000 || done === told) return;
    told = done;
    onEvent({ event: "progress", stage: `load ${name}`, done, total: 100, unit: "%" });
  };
}

function sayTemplate({ onEvent }: CommandIo, name: string, { info }: LoadedModel): void {
  if (info.chatTemplate !== undefined) return;
  const message = `${name} has no chat template: it is shown turns as "User: ..." and "Assistant: ..."`;
  onEvent({ event: "notice", level: "warning", message });
}

/** Enough for an answer, and an end for a small model that repeats itself. */
const usualTokens = 1024;

function settingsOf(options: ChatOptions): ChatSettings {
  const { system, thinking, thinkingBudget, temperature, topP, seed } = options;
  const thinks = thinking === "on" || thinkingBudget !== undefined;
  const maxTokens = options.maxTokens ?? (thinks ? undefined : usualTokens);
  return {
    ...(system !== undefined && { system }),
    ...(thinking !== undefined && { thinking }),
    ...(thinkingBudget !== undefined && { thinkingBudget }),
    ...(temperature !== undefined && { temperature }),
    ...(topP !== undefined && { topP }),
    ...(seed !== undefined && { seed }),
    ...(maxTokens !== undefined && { maxTokens }),
  };
}

async function talk(io: CommandIo, speakers: readonly Speaker[]): Promise<void> {
  const { runRepl } = await import("../chat-terminal.js");
  io.onEvent({ event: "notice", level: "info", message: "/help lists the commands" });
  await runRepl({ input: process.stdin, output: process.stdout, speakers, signal: io.signal });
}

async function answerOnce(room: Room, model: string, speakers: readonly Speaker[], prompt: string): Promise<void> {
  const { io, options } = room;
  const { describeAnswers, showAnswers } = await import("../chat-terminal.js");
  const screen = io.json ? { write: () => {} } : process.stdout;
  const answers = await showAnswers(screen, speakers, prompt, io.signal);
  io.signal.throwIfAborted();
  const told = describeAnswers(speakers, answers);
  const draft = options.speedUp ? await measureSpeedUp(room, model, prompt, answers[0]!) : undefined;
  if (draft) told.push(draft.told);
  for (const message of told) io.onEvent({ event: "notice", level: "info", message });
  if (!io.json) return;
  const [first, second] = answers.map((answer, i) => resultOf(speakers[i]!, answer));
  io.result({ ...first, ...(second && { compared: second }), ...(draft && { draft: draft.result }) }, () => "");
}

function resultOf({ name, model }: Speaker, answer: ChatAnswer) {
  const { text, thought, finish, tokensPerSecond, timings } = answer;
  return { model: name, gguf: model.info.gguf, text, thinking: thought, finish, tokensPerSecond, timings };
}

/** The same question to the same model without its draft; the rates are those of the answers after the prompt. */
async function measureSpeedUp(room: Room, model: string, prompt: string, drafted: ChatAnswer) {
  const speaker = await openSpeaker(room, model);
  const alone = await speaker.conversation.say(prompt, { signal: room.io.signal });
  await speaker.model.unload();
  room.io.signal.throwIfAborted();
  const { draftedTokens = 0, acceptedTokens = 0 } = drafted.timings ?? {};
  const result = {
    draftedTokens,
    acceptedTokens,
    acceptance: draftedTokens > 0 ? acceptedTokens / draftedTokens : 0,
    tokensPerSecond: drafted.tokensPerSecond,
    tokensPerSecondAlone: alone.tokensPerSecond,
    speedUp: drafted.tokensPerSecond / alone.tokensPerSecond,
    sameText: alone.text === drafted.text,
  };
  const same = result.sameText ? "the same text" : "another text";
  const told = `${result.speedUp.toFixed(2)} times as fast with the draft: ${drafted.tokensPerSecond.toFixed(1)} tokens/s, alone ${alone.tokensPerSecond.toFixed(1)} on the same question, ${same}`;
  return { result, told };
}
