import { formatBytes, type Interval } from "../../base/index.js";
import { showCount, showNumber, showShare } from "../../report/index.js";
import type { ReportData, ReportModel } from "./data.js";

/** The models of the table, in its order. */
export function tableModels({ parent, child, baselines }: ReportData): ReportModel[] {
  return [parent, child, ...baselines];
}

/** A cost in its own unit; memory is kept in bytes. */
export function showCost(value: number, name: string, unit?: string): string {
  if (unit === "bytes" || unit === "B" || (unit === undefined && name === "memory")) return formatBytes(value);
  const number = Number.isInteger(value) ? showCount(value) : showNumber(value, 4);
  return unit ? `${number} ${unit}` : number;
}

/** The run in one sentence: what was kept, what was lost, and how the other ways of choosing fared. */
export function headline(data: ReportData): string {
  const { parent, child } = data;
  const parts = [`The child has ${showShare(child.parameters, parent.parameters)} of the parent's parameters`];
  if (child.kl) parts.push(`diverges from it by ${showNumber(child.kl.mean)} nats a token`);
  if (child.perplexity !== undefined && parent.perplexity !== undefined) {
    parts.push(`has a perplexity of ${showNumber(child.perplexity)} against ${showNumber(parent.perplexity)}`);
  }
  if (child.speed && parent.speed) {
    const ratio = child.speed.decode.mean / parent.speed.decode.mean;
    parts.push(`and decodes ${ratio.toFixed(2)} times as fast in llama.cpp`);
  }
  return `${joinParts(parts)}. ${compareBaselines(data)}`.trim();
}

function joinParts(parts: readonly string[]): string {
  return parts.join(", ").replace(/, (?!.*, )(?!and )/, " and ");
}

/** Says who is nearer to the parent, and when the intervals do not tell them apart. */
function compareBaselines({ child, baselines }: ReportData): string {
  const measured = baselines.filter((model) => model.kl);
  if (!child.kl || measured.length === 0) return "";
  const best = measured.reduce((a, b) => (b.kl!.mean < a.kl!.mean ? b : a));
  const change = Math.abs(1 - child.kl.mean / best.kl!.mean) * 100;
  const verb = child.kl.mean <= best.kl!.mean ? "below" : "above";
  const caveat = isApart(child.kl, best) ? "" : "; not told apart at 95 %";
  return `Its divergence is ${change.toFixed(0)} % ${verb} that of the best baseline (${best.name}, ${showNumber(best.kl!.mean)}${caveat}).`;
}

/** Paired by sequence where that was measured, since sequences differ more than children do. */
function isApart(child: Interval, { kl, klAboveChild }: ReportModel): boolean {
  if (klAboveChild) return klAboveChild.low > 0 || klAboveChild.high < 0;
  return child.high < kl!.low || child.low > kl!.high;
}
