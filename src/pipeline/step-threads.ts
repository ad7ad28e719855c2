/**
 * @module How many threads a decoding step is given. A step reads all weights for one token, so one core may already read
 * as fast as memory gives, and more then only wait for each other: measured on the parent's shape, once for a machine.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { digestJson, mean, type OnEvent, readJson, writeJsonAtomic } from "../base/index.js";
import { type LlamaCpp, threadsForBytes } from "../llamacpp/index.js";
import { type ModelConfig, writeGguf } from "../models/index.js";
import { ggufBytes, type WeightType } from "../plan/index.js";
import { randomModel } from "./block-files.js";
import { machineFacts } from "./machine-facts.js";
import type { Store } from "./store.js";

export interface ThreadsRequest {
  config: ModelConfig;
  type: WeightType;
  /** Tokens before the step. */
  depth: number;
  /** Taken for both where given. */
  threads?: number | undefined;
  llama: Pick<LlamaCpp, "version" | "timeMany">;
  store: Store;
  onEvent: OnEvent;
  signal: AbortSignal;
}

export interface Threads {
  /** Of prompts. */
  threads: number;
  /** Of decoding steps. */
  stepThreads: number;
}

/** More threads must be worth it: a step must be this much shorter by them. */
const worthwhile = 0.9;

/** Threads for models of a parent's shape. */
export async function chooseThreads(request: ThreadsRequest): Promise<Threads> {
  const { config, type, depth, llama, store } = request;
  if (request.threads !== undefined) return { threads: request.threads, stepThreads: request.threads };
  const { package: binding, llamaCpp, mathCores } = await llama.version({ signal: request.signal });
  const threads = threadsForBytes(ggufBytes(config, type), mathCores);
  if (threads === 1) return { threads, stepThreads: 1 };
  const { processor, platform } = await machineFacts();
  const artifact = await store.produce(
    {
      stage: "threads",
      title: "threads of a decoding step",
      version: 1,
      options: { type, depth, threads, shape: digestJson(config), processor, platform, binding, llamaCpp },
      inputs: {},
      run: async (directory) =>
        writeJsonAtomic(join(directory, "threads.json"), await timeThreads(request, threads, directory)),
    },
    request,
  );
  const { stepThreads } = (await readJson(join(artifact.directory, "threads.json"))) as Threads;
  return { threads, stepThreads };
}

/** Times a step with 1, 2, 4 ... threads, in turns. */
async function timeThreads(
  { config, type, depth, llama, signal }: ThreadsRequest,
  threads: number,
  directory: string,
): Promise<Threads & { seconds: Record<string, number> }> {
  const counts = [...new Set([...Array.from({ length: 12 }, (_, i) => 2 ** i), threads])].filter((n) => n <= threads);
  const gguf = join(directory, "parent.gguf");
  await writeGguf(randomModel(config), gguf, { type, overwrite: true, signal });
  const decode = [{ batch: 1, depth }];
  const files = counts.map((stepThreads) => ({ gguf, prefill: [], decode, stepThreads }));
  const samples = await llama.timeMany(files, { threads, repeats: 3, signal });
  await rm(gguf);
  const seconds = samples.map((own) => mean(own.decode[0]!));
  return {
    threads,
    stepThreads: counts[chosen(seconds)]!,
    seconds: Object.fromEntries(counts.map((n, i) => [n, seconds[i]!])),
  };
}

/** The first that no later one beats clearly. */
export function chosen(seconds: readonly number[]): number {
  return seconds.reduce((best, own, at) => (own < worthwhile * seconds[best]! ? at : best), 0);
}
