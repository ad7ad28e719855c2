import { once } from "node:events";
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { Command, Option } from "commander";
import { EspalierError } from "../../base/index.js";
import type { LoadOptions } from "../../llamacpp/index.js";
import type { ServedModel, ServerOptions } from "../../serve/index.js";
import { byteCount, collect, durationMs, nonNegativeNumber, positiveInteger } from "../options.js";
import { type CommandIo, runCommand } from "../output.js";
import { createRunnables, type Runnables } from "../runnable.js";

export function createCommand(): Command {
  return new Command("serve")
    .description(
      "Serves models to clients of OpenAI, Anthropic and Ollama. Each is loaded when it is first asked for, and `parent|child` as a model's name compares two.",
    )
    .argument("<models...>", "a .gguf file, a model's directory or hf:owner/name; NAME=MODEL gives it another name")
    .option("--host <address>", "address to listen on; others than this machine's need an API key", "127.0.0.1")
    .option("--port <n>", "0 takes any that is free", nonNegativeNumber, 11434)
    .option("--api-key <key>", "lets a request in; may be repeated (or ESPALIER_API_KEY)", collect, [])
    .option("--cors <origin>", "web pages that may ask, `*` for all; may be repeated", collect, [])
    .option(
      "--context <n>",
      "tokens of context for each request (default: the model's own, at most 4096)",
      positiveInteger,
    )
    .option("--parallel <n>", "requests of a model that run at once", positiveInteger, 4)
    .option("--queue <n>", "requests of a model that may wait; the others get 503", nonNegativeNumber, 512)
    .option("--memory <bytes>", "what loaded models may take together (default: 80 % of this machine's)", byteCount)
    .option("--keep-alive <time>", "how long a model stays after its last request; -1 for ever", durationMs, 300_000)
    .option("--max-tokens <n>", "tokens of one answer (default: what the context holds)", positiveInteger)
    .option("--timeout <time>", "for one request, waiting included", durationMs, 600_000)
    .option("--max-body <bytes>", "of one request", byteCount, 16 << 20)
    .option("--draft <gguf>", "a smaller model of the same vocabulary that proposes tokens to the first model's")
    .addOption(
      new Option("--cache <type>", "of keys and values; f32 for exact log-probabilities")
        .choices(["f16", "f32"])
        .default("f16"),
    )
    .option("--gpu <layer>", "cuda, vulkan or metal, where that build of llama.cpp is installed")
    .addHelpText(
      "after",
      `
Examples:
  $ espalier serve child.gguf
  $ espalier serve parent=parent.gguf child=out/child/child --api-key secret --host 0.0.0.0
  $ curl http://127.0.0.1:11434/v1/chat/completions -d '{"model": "child", "messages": [{"role": "user", "content": "Hi"}]}'`,
    )
    .action((models: string[], options: ServeOptions, command: Command) =>
      runCommand(command, (io) => serve(io, models, options)),
    );
}

interface ServeOptions {
  host: string;
  port: number;
  apiKey: string[];
  cors: string[];
  context?: number;
  parallel: number;
  queue: number;
  memory?: number;
  keepAlive: number;
  maxTokens?: number;
  timeout: number;
  maxBody: number;
  draft?: string;
  cache: "f16" | "f32";
  gpu?: string;
}

async function serve(io: CommandIo, words: readonly string[], options: ServeOptions): Promise<void> {
  const { createInferenceEngine } = await import("../../llamacpp/index.js");
  const { startServer } = await import("../../serve/index.js");
  const runnables = createRunnables(io.onEvent);
  const engine = createInferenceEngine();
  try {
    const models = await namedModels(words, runnables);
    const load = await loadOptions(io, options, runnables);
    const server = await startServer({ engine, models, load, ...serverOptions(io, options) });
    const { url } = server;
    io.result({ url, models }, () => renderStart(url, models));
    if (!io.signal.aborted) await once(io.signal, "abort");
    await server.stop();
  } finally {
    await engine.dispose();
    await runnables.dispose();
  }
}

function serverOptions(io: CommandIo, options: ServeOptions): Omit<ServerOptions, "engine" | "models" | "load"> {
  const { host, port, apiKey, cors, memory, keepAlive, queue, maxTokens, timeout, maxBody } = options;
  const known = process.env.ESPALIER_API_KEY;
  return {
    host,
    port,
    apiKeys: [...apiKey, ...(known ? [known] : [])],
    corsOrigins: cors,
    keepAliveMs: keepAlive,
    queue,
    timeoutMs: timeout,
    maxBodyBytes: maxBody,
    version: packageVersion(),
    onEvent: io.onEvent,
    ...(memory !== undefined && { memoryBytes: memory }),
    ...(maxTokens !== undefined && { maxTokens }),
  };
}

async function loadOptions(io: CommandIo, options: ServeOptions, { ggufOf }: Runnables): Promise<LoadOptions> {
  const { context, parallel, cache, draft, gpu } = options;
  return {
    sequences: parallel,
    cache,
    ...(context !== undefined && { contextSize: context }),
    ...(io.threads !== undefined && { threads: io.threads }),
    ...(draft !== undefined && { draft: await ggufOf(draft) }),
    ...(gpu !== undefined && { gpu: checkGpu(gpu) }),
  };
}

function checkGpu(gpu: string): "cuda" | "vulkan" | "metal" {
  if (gpu === "cuda" || gpu === "vulkan" || gpu === "metal") return gpu;
  throw new EspalierError({ where: "--gpu", expected: "cuda, vulkan or metal", found: gpu, exitCode: 2 });
}

/** `NAME=MODEL`, or a model under the name of its file. */
async function namedModels(words: readonly string[], { ggufOf }: Runnables): Promise<ServedModel[]> {
  const models: ServedModel[] = [];
  for (const word of words) {
    const [, alias, model] = /^([^=/\\]+)=(.+)$/.exec(word) ?? [undefined, undefined, word];
    const name = alias ?? nameOf(model!);
    if (models.some((known) => known.name === name)) {
      throw new EspalierError({
        where: word,
        found: `a second model "${name}"`,
        fix: "give it another: NAME=MODEL",
        exitCode: 2,
      });
    }
    models.push({ name, gguf: await ggufOf(model!) });
  }
  return models;
}

function nameOf(model: string): string {
  return model.startsWith("hf:") ? model : basename(model).replace(/\.gguf$/i, "");
}

function renderStart(url: string, models: readonly ServedModel[]): string {
  const lines = models.map(({ name, gguf }) => `  ${name}: ${gguf}`);
  return [`serving on ${url} (OpenAI: ${url}/v1, Anthropic and Ollama: ${url}); Ctrl-C stops`, ...lines].join("\n");
}

function packageVersion(): string {
  const text = readFileSync(new URL("../../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}
