import { rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { type Interval, meanInterval, readJson, writeJsonAtomic } from "../../base/index.js";
import { type Model, writeGguf } from "../../models/index.js";
import type { RunContext } from "../context.js";
import { chooseThreads, type Threads } from "../step-threads.js";
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

const stage = "speed";

/** Writes models as GGUF and measures them in turns, so that a drift of the machine touches all alike. */
export async function measureSpeed(context: RunContext, runners: readonly Runner[]): Promise<Record<string, Speed>> {
  const { recipe, store, parent } = context;
  const { type } = recipe;
  const threads = await chooseThreads({ ...context, config: parent.config, type, depth: promptOf(recipe) });
  const inputs = Object.fromEntries(runners.map(({ name, digest }) => [name, digest]));
  const artifact = await store.produce(
    {
      stage,
      title: "tokens a second in llama.cpp",
      version: 2,
      options: {
        type,
        ...threads,
        ...recipe.measure,
        input: recipe.input,
        output: recipe.output,
        names: runners.map(({ name }) => name),
      },
      inputs,
      run: async (directory) =>
        writeJsonAtomic(join(directory, "speed.json"), await measureGroups(context, runners, threads, directory)),
    },
    context,
  );
  return (await readJson(join(artifact.directory, "speed.json"))) as Record<string, Speed>;
}

/** Bytes of the files that are loaded and take turns together. */
const mostBytesAtOnce = 0.75 * 2 ** 30;

/** The first runner is in every group, and has the samples of all. */
async function measureGroups(
  context: RunContext,
  [first, ...others]: readonly Runner[],
  threads: Threads,
  directory: string,
): Promise<Record<string, Speed>> {
  const reference = await writeRunner(context, first!, directory);
  const speeds: Record<string, Speed> = {};
  const groups = Math.ceil((others.length * reference.fileBytes) / mostBytesAtOnce) || 1;
  const size = Math.ceil(others.length / groups);
  for (let at = 0; at === 0 || at < others.length; at += size) {
    const files: RunnerFile[] = [];
    for (const runner of others.slice(at, at + size)) files.push(await writeRunner(context, runner, directory));
    const done = { done: at, total: others.length };
    const measured = await measureFiles(context, [reference, ...files], { threads, ...done });
    for (const [name, speed] of Object.entries(measured)) speeds[name] = joined(speeds[name], speed);
    for (const { path } of files) await rm(path);
  }
  await rm(reference.path);
  return speeds;
}

interface RunnerFile {
  name: string;
  path: string;
  fileBytes: number;
}

async function writeRunner(
  { recipe: { type }, signal }: RunContext,
  { name, open }: Runner,
  directory: string,
): Promise<RunnerFile> {
  const model = await open();
  const path = join(directory, `${name.replaceAll(" ", "-")}.${type}.gguf`);
  await writeGguf(model, path, { type, overwrite: true, signal });
  await model.close();
  return { name, path, fileBytes: (await stat(path)).size };
}

async function measureFiles(
  { recipe, llama, onEvent, signal }: RunContext,
  files: readonly RunnerFile[],
  { threads, done, total }: { threads: Threads; done: number; total: number },
): Promise<Record<string, Speed>> {
  const measured = await llama.measureMany(
    files.map(({ path }) => path),
    {
      ...threads,
      promptTokens: promptOf(recipe),
      generateTokens: recipe.measure.generate ?? recipe.output,
      repeats: recipe.measure.repeats,
      signal,
      onProgress: (part, all) =>
        onEvent({
          event: "progress",
          stage,
          done: done + Math.floor(((files.length - 1) * part) / all),
          total,
          unit: "models",
        }),
    },
  );
  return Object.fromEntries(
    files.map(({ name, fileBytes }, i) => {
      const { prefill, decode, samples } = measured[i]!;
      return [name, { prefill, decode, samples, fileBytes }];
    }),
  );
}

function joined(before: Speed | undefined, { samples: { prefill, decode }, fileBytes }: Speed): Speed {
  const samples = {
    prefill: [...(before?.samples.prefill ?? []), ...prefill],
    decode: [...(before?.samples.decode ?? []), ...decode],
  };
  return { samples, prefill: meanInterval(samples.prefill), decode: meanInterval(samples.decode), fileBytes };
}

function promptOf({ measure, input }: RunContext["recipe"]): number {
  return measure.prompt ?? input;
}
