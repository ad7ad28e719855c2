import { cpus } from "node:os";
import { join } from "node:path";
import { createRssMeter, ignoreEvents, writeFileAtomic, writeJsonAtomic } from "../base/index.js";
import { createLlamaCpp, type LlamaCpp } from "../llamacpp/index.js";
import { openModel } from "../models/index.js";
import {
  describeOmissions,
  type ReportData,
  type RunResult,
  renderReport,
  renderSamples,
  renderTable,
} from "../puzzle/index.js";
import { cardOf } from "./card.js";
import { createContext, type RunContext, type RunOptions } from "./context.js";
import { checkOutput, markOutput, publishDirectory } from "./publish.js";
import { checkReach } from "./reach.js";
import type { Recipe } from "./recipe.js";
import { recordStages } from "./recording.js";
import { reportDataOf } from "./report-data.js";
import { resultOf } from "./result.js";
import type { Child, Run } from "./run.js";
import { buildStarts, realiseChild } from "./stages/children.js";
import { distilChild } from "./stages/distil.js";
import { evaluate, type Subject } from "./stages/evaluate.js";
import { exportChild, exportNames } from "./stages/export.js";
import { buildLibrary, type Scored } from "./stages/library.js";
import { measurePredictions } from "./stages/predict.js";
import { type Prepared, prepare } from "./stages/prepare.js";
import { sampleModels } from "./stages/sample.js";
import { type Candidate, searchBlocks } from "./stages/search.js";
import { measureSpeed } from "./stages/speed.js";
import type { Artifact } from "./store.js";

export interface ReshapeOptions extends RunOptions {
  /** What the user typed, for the report. Defaults to `reshape(recipe)`. */
  command?: string;
}

export interface ReshapeOutcome {
  result: RunResult;
  data: ReportData;
  /** The final table as text. */
  table: string;
  /** What parent and child wrote after the same beginning, side by side. */
  samples: string;
}

/**
 * Runs a recipe from parent to report. Finished stages are found in the store, so that a run that was stopped or killed
 * goes on, and one whose recipe changed repeats only what depends on the change.
 */
export async function reshape(recipe: Recipe, options: ReshapeOptions = {}): Promise<ReshapeOutcome> {
  const { command = "reshape(recipe)", onEvent = ignoreEvents } = options;
  const started = performance.now();
  const meter = createRssMeter();
  await checkOutput(recipe.out);
  const recording = recordStages(onEvent);
  const context = await createContext(recipe, { ...options, onEvent: recording.onEvent });
  const llama = createLlamaCpp(options.threads === undefined ? {} : { threads: options.threads });
  try {
    for (const message of describeOmissions(context.space.omitted)) {
      onEvent({ event: "notice", level: "info", message });
    }
    checkReach(context);
    await markOutput(recipe.out, recipe);
    const run = await runStages(context, llama);
    const { stages } = recording;
    const data = await reportDataOf(context, run, {
      command,
      machine: `${cpus()[0]?.model.trim() ?? "unknown processor"}, ${context.runtime.threads} threads`,
      stages,
      seconds: (performance.now() - started) / 1000,
      peakRssBytes: Math.max(meter.peakBytes(), ...stages.map(({ peakRssBytes }) => peakRssBytes)),
    });
    const result = resultOf(context, run, data);
    await writeFileAtomic(join(recipe.out, "report.html"), await renderReport(data));
    await writeJsonAtomic(join(recipe.out, "result.json"), result);
    return { result, data, table: renderTable(data), samples: renderSamples(data) };
  } finally {
    await llama.dispose();
    await context.close();
    meter.stop();
  }
}

async function runStages(context: RunContext, llama: LlamaCpp): Promise<Run> {
  const { recipe } = context;
  const prepared = await prepare(context);
  const scored = await buildLibrary(context, prepared);
  const searched = await searchBlocks(context, scored);
  const parentSubject: Subject = { name: "parent", digest: context.parentDigest, open: () => openModel(recipe.parent) };
  const child = await makeChild(context, prepared, scored, searched.child);
  const baselines: Child[] = [];
  for (const candidate of searched.baselines) baselines.push(await makeChild(context, prepared, scored, candidate));
  const candidates = [searched.child, ...searched.pool, ...searched.baselines];
  const predictions = await measurePredictions(context, prepared, scored.variants, candidates);
  const sliced = await measureSliced(context, prepared, scored, searched.child);
  const parent = await evaluate(context, prepared, parentSubject);
  const { artifact, exports } = await exportChild(
    context,
    prepared,
    { ...child, card: cardOf(context, prepared, parent, child) },
    llama,
  );
  await publishDirectory(artifact.directory, recipe.out, exportNames);
  const runners = [parentSubject, child.subject, ...baselines.map(({ subject }) => subject)];
  const speeds = await measureSpeed(context, runners, llama);
  const samples = await sampleModels(context, [parentSubject, child.subject]);
  const { llamaCpp } = await llama.version();
  return {
    prepared,
    scored,
    searched,
    parent,
    child,
    baselines,
    predictions,
    sliced,
    speeds,
    samples,
    exports,
    llamaCpp,
  };
}

async function makeChild(
  context: RunContext,
  prepared: Prepared,
  scored: Scored,
  candidate: Candidate,
): Promise<Child> {
  const starts = await startsOf(context, scored, candidate);
  const realised = await realiseChild(context, prepared, starts, candidate, { refit: true });
  const before = await evaluate(context, prepared, realised, { stage: `evaluate/${candidate.name} before` });
  if (context.recipe.distil.tokens === 0) return { candidate, realised, subject: realised, before, after: before };
  const distilled = await distilChild(context, prepared, realised);
  const after = await evaluate(context, prepared, distilled);
  return { candidate, realised, distilled, subject: distilled, before, after };
}

/** The library, or for blocks that it lacks a small one of their own. */
async function startsOf(
  context: RunContext,
  { variants, statistics }: Scored,
  { space, name }: Candidate,
): Promise<Artifact> {
  if (!space) return variants;
  return buildStarts(context, statistics, { refit: context.recipe.variants.refit, space, stage: `variants/${name}` });
}

async function measureSliced(context: RunContext, prepared: Prepared, scored: Scored, candidate: Candidate) {
  const starts = await buildStarts(context, scored.statistics, { refit: false });
  const named = { ...candidate, name: "child sliced" };
  const assembled = await realiseChild(context, prepared, starts, named, { refit: false });
  const evaluation = await evaluate(context, prepared, assembled);
  return { evaluation, seconds: starts.seconds + assembled.artifact.seconds };
}
