/** @module A training recipe from its first model to its report: each stage an artifact of the store. */
import { cpus } from "node:os";
import { join } from "node:path";
import {
  createRssMeter,
  digestJson,
  hashFile,
  ignoreEvents,
  internal,
  readJson,
  writeFileAtomic,
  writeJsonAtomic,
  type z,
} from "../../base/index.js";
import { type Model, openModel } from "../../models/index.js";
import { createRuntime } from "../../runtime/index.js";
import { locate } from "../bundled.js";
import { digestModel, type RunOptions } from "../context.js";
import { checkOutput, markOutput, publishDirectory } from "../publish.js";
import { type Artifact, openStore, type Store } from "../store.js";
import { packageVersion } from "../version.js";
import { withChatTemplate } from "./chat-template.js";
import { removeWorkFiles } from "./common.js";
import type { Method, MethodOutcome, MethodWork } from "./method.js";
import { methodOf } from "./methods.js";
import { isRounds, nameOf, type Stage, type Step, stageReference, type TrainingRecipe } from "./recipe.js";
import { renderTrainingReport, renderTrainingTable } from "./report.js";

export interface TrainingOptions extends RunOptions {
  /** What the user typed, for the report. Defaults to `train(recipe)`. */
  command?: string;
}

export interface StageResult extends MethodOutcome {
  name: string;
  method: string;
  makes: Method<z.ZodRawShape>["makes"];
  /** Directory of what it made, below the output directory. */
  path: string;
  seconds: number;
  peakRssBytes: number;
}

export interface TrainingResult {
  kind: "train";
  model: { path: string; name: string };
  out: string;
  /** Of the last stage that made a policy. */
  policy?: string;
  stages: StageResult[];
  seconds: number;
  peakRssBytes: number;
  seed: number;
  command: string;
  versions: Record<string, string>;
  machine: string;
}

export interface TrainingOutcome {
  result: TrainingResult;
  /** The final tables as text. */
  table: string;
}

/**
 * Runs the stages of a recipe. Finished ones are found in the store, so that a run that was stopped or killed goes on, and
 * one whose recipe changed repeats only what depends on the change.
 */
export async function runTraining(recipe: TrainingRecipe, options: TrainingOptions = {}): Promise<TrainingOutcome> {
  const { command = "train(recipe)", onEvent = ignoreEvents, store = ".espalier" } = options;
  const { signal = new AbortController().signal } = options;
  const started = performance.now();
  const meter = createRssMeter();
  await checkOutput(recipe.out);
  const path = await locate(recipe.model);
  const base = await withChatTemplate(await openModel(path), recipe.chatTemplate);
  try {
    for (const message of base.notices) onEvent({ event: "notice", level: "info", message });
    await markOutput(recipe.out, recipe);
    const context = { recipe, base, basePath: path, store: openStore(store), onEvent, signal, options };
    const stages = await runSteps(context);
    const policy = stages.filter(({ makes }) => makes === "policy").at(-1);
    const result: TrainingResult = {
      kind: "train",
      model: { path, name: base.sidecars.name },
      out: recipe.out,
      ...(policy && { policy: join(policy.path, "model") }),
      stages,
      seconds: (performance.now() - started) / 1000,
      peakRssBytes: Math.max(meter.peakBytes(), ...stages.map(({ peakRssBytes }) => peakRssBytes)),
      seed: recipe.seed,
      command,
      versions: { espalier: packageVersion(), node: process.version },
      machine: cpus()[0]?.model.trim() ?? "unknown processor",
    };
    await writeJsonAtomic(join(recipe.out, "result.json"), result);
    await writeFileAtomic(join(recipe.out, "report.html"), await renderTrainingReport(result));
    return { result, table: renderTrainingTable(result) };
  } finally {
    await base.close();
    meter.stop();
  }
}

interface StepContext {
  recipe: TrainingRecipe;
  base: Model;
  basePath: string;
  store: Store;
  onEvent: NonNullable<RunOptions["onEvent"]>;
  signal: AbortSignal;
  options: RunOptions;
}

/** What a stage may begin with, and what earlier ones made. */
interface Position {
  /** Directory or file of the model at hand. */
  model: string;
  digest: string | Artifact;
  made: Map<string, Artifact>;
}

async function runSteps(context: StepContext): Promise<StageResult[]> {
  const { recipe, basePath } = context;
  const position: Position = { model: basePath, digest: await digestModel(basePath), made: new Map() };
  const results: StageResult[] = [];
  const alone = countStages(recipe.stages) === 1;
  for (const step of recipe.stages) {
    for (const { stage, name } of unrolled(step)) {
      results.push(
        await runStage(context, position, stage, { name, out: alone ? recipe.out : join(recipe.out, name) }),
      );
    }
  }
  return results;
}

function countStages(steps: readonly Step[]): number {
  return steps.reduce((sum, step) => sum + (isRounds(step) ? step.rounds * step.stages.length : 1), 0);
}

/** The stages of a step in their order; those of rounds are called NAME-1, NAME-2 and so on. */
function unrolled(step: Step): { stage: Stage; name: string }[] {
  if (!isRounds(step)) return [{ stage: step, name: nameOf(step) }];
  return Array.from({ length: step.rounds }, (_, round) =>
    step.stages.map((stage) => ({ stage, name: `${nameOf(stage)}-${round + 1}` })),
  ).flat();
}

async function runStage(
  context: StepContext,
  position: Position,
  stage: Stage,
  { name, out }: { name: string; out: string },
): Promise<StageResult> {
  const { recipe, store, signal, onEvent } = context;
  const method = methodOf(stage.method) ?? internal(`no method ${stage.method}`);
  const { method: _method, name: _name, ...options } = stage;
  const { paths, digests } = await resolveInputs(method, options, position.made);
  const read = method.reads?.(options) ?? [];
  if (read.length > 0) digests.reads = digestJson(await Promise.all(read.map(hashFile)));
  const artifact = await store.produce(
    {
      stage: name,
      title: method.summary,
      version: method.version,
      options: {
        method: stage.method,
        ...withoutInputs(options, paths),
        seed: recipe.seed,
        ...(recipe.chatTemplate !== undefined && { chatTemplate: context.base.sidecars.chatTemplate }),
      },
      inputs: { model: position.digest, ...digests },
      run: (directory) => workOn(context, position, method, { ...options, ...paths }, { stage: name, directory }),
    },
    { onEvent, signal },
  );
  // Stages of later rounds refer to the newest of a name.
  position.made.set(nameOf(stage), artifact);
  if (method.makes === "policy") {
    position.model = join(artifact.directory, "model");
    position.digest = artifact;
  }
  await publishDirectory(artifact.directory, out, published);
  const outcome = (await readJson(join(artifact.directory, outcomeFile))) as MethodOutcome;
  const { seconds, peakRssBytes } = artifact;
  return { name, method: stage.method, makes: method.makes, path: out, seconds, peakRssBytes, ...outcome };
}

const outcomeFile = "outcome.json";
const published = ["model", "adapter", "adapter.gguf", "data.jsonl", "answers.jsonl"];

async function workOn(
  { base, recipe, onEvent, signal, options: { device = "cpu", threads } }: StepContext,
  position: Position,
  method: Method<z.ZodRawShape>,
  options: Record<string, unknown>,
  place: { stage: string; directory: string },
): Promise<void> {
  const model = await withChatTemplate(await openModel(position.model), recipe.chatTemplate);
  const runtime = await createRuntime({ device, maxSessions: 64, ...(threads !== undefined && { threads }) });
  try {
    const work = { options, model, base, seed: recipe.seed, runtime, onEvent, signal, ...place } as MethodWork<never>;
    await writeJsonAtomic(join(place.directory, outcomeFile), await method.run(work));
    await removeWorkFiles(place.directory);
  } finally {
    await runtime.dispose();
    await model.close();
  }
}

/** Paths of the fields that name files or models, and the digests of what lies there. */
async function resolveInputs(
  { inputs }: Method<z.ZodRawShape>,
  options: Record<string, unknown>,
  made: ReadonlyMap<string, Artifact>,
) {
  const paths: Record<string, string | string[]> = {};
  const digests: Record<string, Artifact | string> = {};
  for (const [field, kind] of Object.entries(inputs)) {
    const value = options[field];
    if (value === undefined) continue;
    const named = [value].flat() as string[];
    const found = await Promise.all(named.map((name) => resolvePath(name, kind!, made)));
    paths[field] = Array.isArray(value) ? found : found[0]!;
    digests[field] = digestJson(
      await Promise.all(found.map((path) => (kind === "file" ? hashFile(path) : digestModel(path)))),
    );
  }
  return { paths, digests };
}

async function resolvePath(name: string, kind: "file" | "model", made: ReadonlyMap<string, Artifact>): Promise<string> {
  if (!name.startsWith(stageReference)) return locate(name);
  const { directory } = made.get(name.slice(stageReference.length)) ?? internal(`no stage ${name}`);
  return join(directory, kind === "file" ? "data.jsonl" : "model");
}

/** Where a file lies is no part of what a stage depends on; its contents are. */
function withoutInputs(options: Record<string, unknown>, paths: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(options).filter(([field]) => !(field in paths)));
}
