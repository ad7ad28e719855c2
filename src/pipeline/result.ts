import { join } from "node:path";
import { checkSchema } from "../base/index.js";
import type { BlockConfig } from "../models/index.js";
import { type ReportData, type RunResult, resultSchema } from "../puzzle/index.js";
import type { RunContext } from "./context.js";
import { klAboveChild } from "./report-data.js";
import type { ChildRun, Run } from "./run.js";

/** The object that `--json` prints and `result.json` holds. */
export function resultOf(context: RunContext, run: Run, data: readonly ReportData[]): RunResult {
  const { recipe, parent } = context;
  const children = run.children.map((own, i) => childResult(run, own, data[i]!));
  const [first, whole] = [children[0]!, data[0]!];
  return checkSchema(
    resultSchema,
    {
      parent: {
        path: recipe.parent,
        name: parent.sidecars.name,
        chat: parent.sidecars.chatTemplate !== undefined,
        parameters: whole.parent.parameters,
        perplexity: run.parent.perplexity,
        fileBytes: whole.parent.fileBytes,
      },
      child: first.child,
      baselines: first.baselines,
      search: first.search,
      exports: first.exports,
      speed: first.speed,
      ...(children.length > 1 && { children }),
      evaluation: whole.evaluation,
      stages: whole.stages,
      peakRssBytes: whole.peakRssBytes,
      seconds: whole.seconds,
    },
    "result of the run",
  );
}

function childResult(run: Run, own: ChildRun, data: ReportData) {
  const { child, searched, plan, out } = own;
  const { objective, bound, gap, seconds, shadowPrices } = searched.result;
  const { predicted, measured, stands } = searched.settled;
  const speedOf = (key: string) => {
    const { prefill, decode } = run.speeds[key]!;
    return { prefill: prefill.mean, decode: decode.mean, intervals: { prefill, decode } };
  };
  return {
    name: plan.name,
    budget: plan.text,
    report: join(out, "report.html"),
    child: {
      path: join(out, childFile(own)),
      parameters: data.child.parameters,
      perplexity: child.after.perplexity,
      kl: child.after.kl,
      klBeforeDistillation: child.before.kl,
      fileBytes: data.child.fileBytes,
      blocks: child.candidate.blocks.map(plainBlock),
    },
    baselines: own.baselines.map((baseline, i) => {
      const above = klAboveChild(child, baseline);
      return {
        name: baseline.candidate.name,
        parameters: data.baselines[i]!.parameters,
        distilled: baseline.distilled !== undefined,
        kl: baseline.after.kl,
        ...(!child.distilled === !baseline.distilled && { klAboveChild: above.after }),
        klBeforeDistillation: baseline.before.kl,
        klAboveChildBeforeDistillation: above.before,
        perplexity: baseline.after.perplexity,
        fileBytes: data.baselines[i]!.fileBytes,
        speed: speedOf(baseline.candidate.key),
      };
    }),
    search: {
      objective,
      bound,
      gap,
      seconds,
      shadowPrices,
      totals: data.child.costs,
      chosen: { predicted, measured, stands },
      frontiers: own.frontiers,
    },
    exports: own.exports.map(({ file, notes: _notes, ...rest }) => ({ path: join(out, file), ...rest })),
    speed: { parent: speedOf("parent"), child: speedOf(child.candidate.key), predictions: data.speedPredictions ?? [] },
    ...(data.klByKind && { klByKind: data.klByKind }),
  };
}

/** The Hugging Face directory where there is one, else the F32 GGUF. */
export function childFile({ exports }: Pick<ChildRun, "exports">): string {
  return exports.find(({ format }) => format === "hf")?.file ?? exports[0]!.file;
}

function plainBlock({ attention, ffn }: BlockConfig) {
  return { attention: { ...attention }, ffn: { ...ffn } };
}
