import { meanInterval, pairedInterval } from "../base/index.js";
import { modelParameters } from "../models/index.js";
import { totalCost } from "../plan/index.js";
import type { ComputePoint, LossCurve, ReportData, ReportModel } from "../puzzle/index.js";
import { spaceSizeLog10 } from "../puzzle/index.js";
import { libraryVersion } from "../runtime/index.js";
import type { RunContext } from "./context.js";
import type { StageRecord } from "./recording.js";
import type { Child, Run } from "./run.js";
import { packageVersion } from "./version.js";

export interface Circumstances {
  command: string;
  machine: string;
  stages: StageRecord[];
  seconds: number;
  peakRssBytes: number;
}

/** Everything that the report and the table show, from what the run found out. */
export async function reportDataOf(context: RunContext, run: Run, about: Circumstances): Promise<ReportData> {
  const { recipe, parent } = context;
  const training = trainingOf(recipe.parent, parent.sidecars.name);
  return {
    title: `${parent.sidecars.name} at ${budgetText(context)}`,
    parent: parentRow(context, run),
    parentConfig: parent.config,
    child: childRow(context, run, run.child),
    baselines: run.baselines.map((baseline) => ({
      ...childRow(context, run, baseline),
      klAboveChild: pairedInterval(baseline.after.klBySequence, run.child.after.klBySequence),
    })),
    ...(training !== undefined && { parentTraining: training }),
    evaluation: {
      text: run.prepared.origin.evaluate,
      tokens: run.parent.tokens,
      sequences: run.prepared.sequences.evaluate.count,
    },
    frontier: frontierOf(run),
    predictions: run.predictions.map(({ name, predicted, measured }) => ({ model: name, predicted, measured })),
    compute: computeOf(run),
    losses: [run.child, ...run.baselines].flatMap(lossesOf),
    samples: [{ prompt: recipe.sample.prompt, outputs: run.samples }],
    search: searchOf(context, run),
    scores: scoresOf(run),
    exports: run.exports.map(({ file, format, type, architecture, bytes, maxAbsLogitDifference, kl, notes }) => ({
      path: `${recipe.out}/${file}`,
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
    notes: notesOf(context, run),
  };
}

function budgetText({ recipe }: RunContext): string {
  return Object.entries(recipe.budget)
    .flatMap(([name, value]) => [value].flat().map((bound) => `${name} ${bound}`))
    .join(", ");
}

function parentRow({ parent, parentCosts }: RunContext, { parent: measured, speeds, searched }: Run): ReportModel {
  const { fileBytes, prefill, decode } = speeds.parent!;
  return {
    name: "parent",
    role: "parent",
    parameters: modelParameters(parent.config),
    fileBytes,
    perplexity: measured.perplexity,
    speed: { prefill, decode },
    blocks: parent.config.blocks,
    cost: parentCosts[searched.swept],
  };
}

function childRow(
  { parent, costs }: RunContext,
  { speeds, searched }: Run,
  { candidate, before, after }: Child,
): ReportModel {
  const { fileBytes, prefill, decode } = speeds[candidate.name]!;
  return {
    name: candidate.name,
    role: candidate.role,
    parameters: modelParameters({ ...parent.config, blocks: candidate.blocks }),
    fileBytes,
    perplexity: after.perplexity,
    kl: after.kl,
    klBeforeDistillation: before.kl,
    speed: { prefill, decode },
    blocks: candidate.blocks,
    cost: totalCost(costs[searched.swept], candidate.blocks),
  };
}

function frontierOf({ searched }: Run): NonNullable<ReportData["frontier"]> {
  const points = searched.result.frontier.flatMap(({ budget, objective }) =>
    objective === undefined ? [] : [{ budget, objective }],
  );
  return { name: searched.swept, ...(searched.swept === "memory" && { unit: "bytes" }), points };
}

/** KL against the seconds that went into the child's weights; searching and measuring are not counted. */
function computeOf({ child, sliced, predictions, scored }: Run): ComputePoint[] {
  const { statistics, variants } = scored;
  const model = child.candidate.name;
  const refitted = statistics.seconds + variants.seconds;
  const realised = refitted + child.realised.artifact.seconds;
  const points: ComputePoint[] = [
    { model, stage: "sliced", seconds: statistics.seconds + sliced.seconds, kl: sliced.evaluation.kl.mean },
    { model, stage: "refitted", seconds: refitted, kl: predictions[0]!.measured.mean },
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

function searchOf({ budgets, costs, parentCosts, space }: RunContext, { searched, child }: Run): ReportData["search"] {
  const { objective, bound, gap, seconds, shadowPrices } = searched.result;
  return {
    objective: objective!,
    bound: bound!,
    gap: gap!,
    seconds,
    spaceLog10: spaceSizeLog10(space),
    budgets: Object.entries(budgets).map(([name, max]) => ({
      name,
      ...(name === "memory" && { unit: "bytes" }),
      max,
      total: totalCost(costs[name as keyof typeof costs], child.candidate.blocks),
      parent: parentCosts[name as keyof typeof parentCosts],
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

function notesOf({ space }: RunContext, { prepared, predictions }: Run): string[] {
  return [
    `Calibration, scoring and distillation used ${prepared.origin.train}; all measuring used ${prepared.origin.evaluate}. No two parts share a document.`,
    `Predicted and measured KL are of blocks put together without the refit in sequence, on ${predictions[0]?.measured.n ?? 0} set-aside sequences.`,
    `In divergence against compute, the points "refitted" and "distilled" are measured on the first ${predictions[0]?.measured.n ?? 0} set-aside sequences, the others on all.`,
    ...space.omitted.map(
      ({ layer, part, id, reason }) => `Left out of the space: layer ${layer}, ${part} ${id}: ${reason}.`,
    ),
  ];
}
