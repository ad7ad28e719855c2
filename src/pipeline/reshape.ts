import { cpus } from "node:os";
import { join } from "node:path";
import { createRssMeter, ignoreEvents, writeFileAtomic, writeJsonAtomic } from "../base/index.js";
import {
  describeOmissions,
  type ReportData,
  type RunResult,
  renderOverview,
  renderReport,
  renderSamples,
  renderTable,
} from "../puzzle/index.js";
import { createContext, type RunContext, type RunOptions } from "./context.js";
import { checkDisk } from "./disk.js";
import { priceBlocks } from "./pricing.js";
import { checkOutput, markOutput } from "./publish.js";
import { checkReach } from "./reach.js";
import type { Recipe } from "./recipe.js";
import { recordStages } from "./recording.js";
import { type Circumstances, reportDataOf } from "./report-data.js";
import { resultOf } from "./result.js";
import type { Run } from "./run.js";
import { runStages } from "./run-stages.js";

export interface ReshapeOptions extends RunOptions {
  /** What the user typed, for the report. Defaults to `reshape(recipe)`. */
  command?: string;
}

export interface ReshapeOutcome {
  result: RunResult;
  /** Of each child. */
  data: ReportData[];
  /** The final tables as text. */
  table: string;
  /** What parent and children wrote after the same beginnings, side by side. */
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
  const base = await createContext(recipe, { ...options, onEvent: recording.onEvent });
  try {
    for (const message of describeOmissions(base.space.omitted)) onEvent({ event: "notice", level: "info", message });
    const context = { ...base, ...(await priceBlocks(base)) };
    await checkReach(context);
    await checkDisk(context);
    await markOutput(recipe.out, recipe);
    const run = await runStages(context);
    const { stages } = recording;
    return await publishReports(context, run, {
      command,
      machine: `${cpus()[0]?.model.trim() ?? "unknown processor"}, ${context.runtime.threads} threads`,
      stages,
      seconds: (performance.now() - started) / 1000,
      peakRssBytes: Math.max(meter.peakBytes(), ...stages.map(({ peakRssBytes }) => peakRssBytes)),
    });
  } finally {
    await base.close();
    meter.stop();
  }
}

/** A page for each child, one above them where there are several, and the result. */
async function publishReports(context: RunContext, run: Run, about: Circumstances): Promise<ReshapeOutcome> {
  const { out } = context.recipe;
  const data: ReportData[] = [];
  for (const own of run.children) {
    const page = await reportDataOf(context, run, own, about);
    data.push(page);
    await writeFileAtomic(join(own.out, "report.html"), await renderReport(page));
  }
  if (data.length > 1) {
    const overview = await renderOverview(data, {
      title: `${context.parent.sidecars.name}: ${data.length} children`,
      samples: run.samples,
    });
    await writeFileAtomic(join(out, "report.html"), overview);
  }
  const result = resultOf(context, run, data);
  await writeJsonAtomic(join(out, "result.json"), result);
  const titled = data.map((page) => (data.length > 1 ? `${page.title}\n\n${renderTable(page)}` : renderTable(page)));
  return { result, data, table: titled.join("\n\n"), samples: renderSamples(run.samples) };
}
