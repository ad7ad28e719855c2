import { join } from "node:path";
import { checkSchema } from "../base/index.js";
import type { BlockConfig } from "../models/index.js";
import { type ReportData, type RunResult, resultSchema } from "../puzzle/index.js";
import type { RunContext } from "./context.js";
import type { Run } from "./run.js";

/** The object that `--json` prints and `result.json` holds. */
export function resultOf({ recipe, parent }: RunContext, run: Run, data: ReportData): RunResult {
  const { child, searched } = run;
  const { objective, bound, gap, seconds, shadowPrices } = searched.result;
  const speedOf = (name: string) => {
    const { prefill, decode } = run.speeds[name]!;
    return { prefill: prefill.mean, decode: decode.mean, intervals: { prefill, decode } };
  };
  return checkSchema(
    resultSchema,
    {
      parent: {
        path: recipe.parent,
        name: parent.sidecars.name,
        parameters: data.parent.parameters,
        perplexity: run.parent.perplexity,
        fileBytes: data.parent.fileBytes,
      },
      child: {
        path: join(recipe.out, childFile(run)),
        parameters: data.child.parameters,
        perplexity: child.after.perplexity,
        kl: child.after.kl,
        klBeforeDistillation: child.before.kl,
        fileBytes: data.child.fileBytes,
        blocks: child.candidate.blocks.map(plainBlock),
      },
      baselines: run.baselines.map((baseline, i) => ({
        name: baseline.candidate.name,
        parameters: data.baselines[i]!.parameters,
        kl: baseline.after.kl,
        klAboveChild: data.baselines[i]!.klAboveChild,
        klBeforeDistillation: baseline.before.kl,
        perplexity: baseline.after.perplexity,
        fileBytes: data.baselines[i]!.fileBytes,
        speed: speedOf(baseline.candidate.name),
      })),
      search: { objective, bound, gap, seconds, shadowPrices, totals: searched.result.totals },
      exports: run.exports.map(({ file, notes: _notes, ...rest }) => ({ path: join(recipe.out, file), ...rest })),
      speed: { parent: speedOf("parent"), child: speedOf("child") },
      evaluation: data.evaluation,
      stages: data.stages,
      peakRssBytes: data.peakRssBytes,
      seconds: data.seconds,
    },
    "result of the run",
  );
}

/** The Hugging Face directory where there is one, else the F32 GGUF. */
export function childFile({ exports }: Run): string {
  return exports.find(({ format }) => format === "hf")?.file ?? exports[0]!.file;
}

function plainBlock({ attention, ffn }: BlockConfig) {
  return { attention: { ...attention }, ffn: { ...ffn } };
}
