/** @module Everything that a child's report and table show, from what the run found out. */
import { digestJson, formatCount, type Interval, meanInterval, pairedInterval } from "../base/index.js";
import { modelParameters } from "../models/index.js";
import { totalCost } from "../plan/index.js";
import type { ComputePoint, LossCurve, ReportData, ReportModel } from "../puzzle/index.js";
import { meanByKind, spaceSizeLog10 } from "../puzzle/index.js";
import { libraryVersion } from "../runtime/index.js";
import type { RunContext } from "./context.js";
import type { StageRecord } from "./recording.js";
import type { Child, ChildRun, Run } from "./run.js";
import { predictSpeeds } from "./speed-check.js";
import type { BlockProbe } from "./stages/block-probe.js";
import { describeSettled } from "./stages/candidates.js";
import { describeRace } from "./stages/library.js";
import { packageVersion } from "./version.js";

export interface Circumstances {
  command: string;
  machine: string;
  stages: StageRecord[];
  seconds: number;
  peakRssBytes: number;
}

export async function reportDataOf(
  context: RunContext,
  run: Run,
  own: ChildRun,
  about: Circumstances,
): Promise<ReportData> {
  const { recipe, parent } = context;
  const training = trainingOf(recipe.parent, parent.sidecars.name);
  const kinds = run.prepared.sequences.evaluate.kinds;
  const byKind = kinds && Object.entries(meanByKind(own.child.after.klBySequence, kinds));
  const speeds = predictSpeeds(context, run, [own.child, ...own.baselines]);
  return {
    title: `${parent.sidecars.name} at ${own.plan.text}`,
    parent: parentRow(context, run),
    parentConfig: parent.config,
    child: childRow(context, run, own.child),
    baselines: own.baselines.map((baseline) => baselineRow(context, run, own.child, baseline)),
    ...(training !== undefined && { parentTraining: training }),
    evaluation: {
      text: run.prepared.origin.evaluate,
      tokens: run.parent.tokens,
      sequences: run.prepared.sequences.evaluate.count,
    },
    ...(byKind && { klByKind: byKind.map(([kind, kl]) => ({ kind, kl })) }),
    frontiers: frontiersOf(own),
    ...(speeds.length > 0 && { speedPredictions: speeds }),
    predictions: predictionsOf(own),
    compute: computeOf(run, own),
    losses: [own.child, ...own.baselines].flatMap(lossesOf),
    samples: samplesOf(run, own),
    search: searchOf(context, own),
    scores: scoresOf(run),
    exports: own.exports.map(({ file, format, type, architecture, bytes, maxAbsLogitDifference, kl, notes }) => ({
      path: `${own.out}/${file}`,
      format: `${format} (${architecture}), ${type}`,
      bytes,
      ...(maxAbsLogitDifference !== undefined && { maxAbsLogitDifference }),
      ...(kl !== undefined && { kl }),
      ...(notes.length > 0 && { note: notes.join("; ") }),
    })),
    stages: about.stages,
    peakRssBytes: about.peakRssBytes,
    seconds: about.seconds,
    reproduce: {
      command: about.command,
      seed: recipe.seed,
      versions: {
        espalier: packageVersion(),
        node: process.version,
        "onnxruntime-node": await libraryVersion(),
        "llama.cpp": run.llamaCpp,
      },
      machine: about.machine,
    },
    notes: notesOf(context, run, own),
  };
}

function parentRow({ parent, parentCosts }: RunContext, { parent: measured, speeds }: Run): ReportModel {
  const { fileBytes, prefill, decode } = speeds.parent!;
  return {
    name: "parent",
    role: "parent",
    parameters: modelParameters(parent.config),
    fileBytes,
    perplexity: measured.perplexity,
    speed: { prefill, decode },
    blocks: parent.config.blocks,
    costs: parentCosts,
  };
}

function childRow({ parent, costs }: RunContext, { speeds }: Run, child: Child): ReportModel {
  const { candidate, before, after, distilled } = child;
  const { fileBytes, prefill, decode } = speeds[candidate.key]!;
  return {
    name: candidate.name,
    role: candidate.role,
    parameters: modelParameters({ ...parent.config, blocks: candidate.blocks }),
    fileBytes,
    perplexity: after.perplexity,
    kl: after.kl,
    ...(distilled && { klBeforeDistillation: before.kl }),
    speed: { prefill, decode },
    blocks: candidate.blocks,
    costs: Object.fromEntries(Object.entries(costs).map(([name, cost]) => [name, totalCost(cost, candidate.blocks)])),
  };
}

/** Of a baseline that was not distilled, beside a child that was, only what it was before. */
function baselineRow(context: RunContext, run: Run, child: Child, baseline: Child): ReportModel {
  const { kl, ...row } = childRow(context, run, baseline);
  const above = klAboveChild(child, baseline);
  const own = {
    ...row,
    klBeforeDistillation: baseline.before.kl,
    ...(child.distilled && { klAboveChildBefore: above.before }),
  };
  if (child.distilled && !baseline.distilled) return own;
  return { ...own, kl: kl!, klAboveChild: above.after };
}

/** A baseline's KL minus the child's, paired by sequence, at equal stages. */
export function klAboveChild(child: Child, baseline: Child): { before: Interval; after: Interval } {
  return {
    before: pairedInterval(baseline.before.klBySequence, child.before.klBySequence),
    after: pairedInterval(baseline.after.klBySequence, child.after.klBySequence),
  };
}

function frontiersOf({ searched, frontiers }: ChildRun): NonNullable<ReportData["frontiers"]> {
  return frontiers.map(({ name, points }) => ({
    name,
    ...(name === "memory" ? { unit: "bytes" } : name !== "params" && { unit: "s" }),
    points: points.flatMap(({ budget, objective }) => (objective === undefined ? [] : [{ budget, objective }])),
    objective: searched.result.objective!,
  }));
}

/** Sums of scores against the true KL of all that was put together and measured whole, on the scoring text. */
function predictionsOf({ child, searched, baselines }: ChildRun): NonNullable<ReportData["predictions"]> {
  const { candidates } = searched.settled;
  const named = new Map([child, ...baselines].map(({ candidate: { choice, name } }) => [digestJson(choice), name]));
  return candidates.map(({ choice, predicted, measured }, i) => ({
    model: named.get(digestJson(choice)) ?? `candidate ${i + 1}`,
    predicted,
    measured,
  }));
}

/** KL against the seconds that went into the child's weights; searching and measuring are not counted. */
function computeOf({ scored }: Run, { child, sliced, searched }: ChildRun): ComputePoint[] {
  const { statistics, variants } = scored;
  const model = child.candidate.name;
  const refitted = statistics.seconds + variants.seconds;
  const realised = refitted + child.realised.artifact.seconds;
  const points: ComputePoint[] = [
    { model, stage: "sliced", seconds: statistics.seconds + sliced.seconds, kl: sliced.evaluation.kl.mean },
    { model, stage: "refitted", seconds: refitted, kl: searched.settled.measured.mean },
    { model, stage: "refitted in sequence", seconds: realised, kl: child.before.kl.mean },
  ];
  const { distilled } = child;
  if (!distilled) return points;
  const total = distilled.artifact.seconds;
  for (const { step, tokens, kl } of distilled.curve.points.filter(({ step }) => step > 0)) {
    const seconds = realised + (total * step) / distilled.curve.steps;
    points.push({ model, stage: `distilled on ${Math.round(tokens / 1000)}K tokens`, seconds, tokens, kl: kl.mean });
  }
  return points;
}

/** Loss curves thinned to what a picture can show: the mean of each of at most 100 stretches. */
function lossesOf({ candidate, distilled }: Child): LossCurve[] {
  if (!distilled) return [];
  const { losses, tokensPerStep } = distilled.curve;
  const stretch = Math.max(1, Math.ceil(losses.length / 100));
  const points: LossCurve["points"] = [];
  for (let from = 0; from < losses.length; from += stretch) {
    const part = losses.slice(from, from + stretch);
    const step = from + part.length;
    points.push({ step, tokens: step * tokensPerStep, loss: part.reduce((sum, loss) => sum + loss, 0) / part.length });
  }
  return [{ model: candidate.name, points }];
}

/** The parent's and the child's own. */
function samplesOf({ samples }: Run, { child }: ChildRun): NonNullable<ReportData["samples"]> {
  const shown = ["parent", child.candidate.key];
  return samples.map(({ prompt, outputs }) => ({
    prompt,
    outputs: outputs.filter(({ model }) => shown.includes(model)),
  }));
}

function searchOf(
  { costs, parentCosts, space }: RunContext,
  { plan, searched, child }: ChildRun,
): ReportData["search"] {
  const { objective, bound, gap, seconds, shadowPrices } = searched.result;
  return {
    objective: objective!,
    bound: bound!,
    gap: gap!,
    seconds,
    spaceLog10: spaceSizeLog10(space),
    budgets: Object.entries(plan.bounds).map(([name, max]) => ({
      name,
      ...(name === "memory" ? { unit: "bytes" } : name !== "params" && { unit: "s" }),
      max,
      total: totalCost(costs[name]!, child.candidate.blocks),
      parent: parentCosts[name]!,
      shadowPrice: shadowPrices[name] ?? 0,
    })),
  };
}

function scoresOf({ scored }: Run): NonNullable<ReportData["scores"]> {
  const cells = scored.scores.flatMap(({ layer, kl }) =>
    Object.entries(kl).map(([variant, values]) => ({ layer: String(layer), variant, kl: meanInterval(values) })),
  );
  return {
    layers: scored.scores.map(({ layer }) => String(layer)),
    variants: [...new Set(cells.map(({ variant }) => variant))],
    cells,
  };
}

const bundledParent = "stories260K";

/** What is known of the texts a parent was trained on; said because measuring on them flatters it. */
function trainingOf(path: string, name: string): string | undefined {
  if (!path.includes(bundledParent) && !name.includes(bundledParent)) return undefined;
  return "The parent was trained on TinyStories, the corpus that the bundled text is from: it may have seen the measuring text.";
}

function notesOf(
  { space, recipe, table }: RunContext,
  { prepared, scored }: Run,
  { child, plan, searched }: ChildRun,
): string[] {
  return [
    `Calibration, scoring and distillation used ${prepared.origin.train}; all measuring used ${prepared.origin.evaluate}. No two parts share a document.`,
    `Predicted and measured KL are of blocks put together without the refit in sequence, on the ${searched.settled.measured.n} sequences of the scoring text.`,
    `In divergence against compute, the points "refitted" and "distilled" are measured on the scoring text, the others on the measuring text; the ranking of channels is counted with "refitted".`,
    ...(scored.race ? [describeRace(scored.race)] : []),
    ...describeSettled(plan, searched.settled),
    ...(scored.probe ? [describeProbe(scored.probe)] : []),
    ...(child.distilled && child.distilled.curve.keptStep < child.distilled.curve.steps
      ? [
          `Of the distillation the state after step ${child.distilled.curve.keptStep} of ${child.distilled.curve.steps} is kept: the last one was further from the parent.`,
        ]
      : []),
    ...(table
      ? [
          `Speeds are bounded by measured costs of blocks in ${table.type}: ${table.machine.processor}, ${table.machine.threads} threads, llama.cpp ${table.versions["llama.cpp"]}${recipe.costs ? ` (from ${recipe.costs.file})` : ""}.`,
        ]
      : []),
    ...space.omitted.map(
      ({ layer, part, id, reason }) => `Left out of the space: layer ${layer}, ${part} ${id}: ${reason}.`,
    ),
  ];
}

function describeProbe({ layers, tokens, kl, rate, pays, seconds }: BlockProbe): string {
  const shown = (value: number) => value.toPrecision(2);
  const decision = pays ? `used, on ${formatCount(tokens)} tokens a variant` : "not used";
  return (
    `Block-wise distillation was ${decision}: on layers ${layers.join(" and ")} the closed form took the summed KL from ` +
    `${shown(kl.sliced)} to ${shown(kl.refitted)} in ${seconds.refitted.toFixed(0)} s (${shown(rate.refitted)} a second), ` +
    `distillation from there to ${shown(kl.distilled)} in ${seconds.distilled.toFixed(0)} s (${shown(rate.distilled)} a second).`
  );
}
