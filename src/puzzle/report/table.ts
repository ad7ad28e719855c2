import { formatBytes } from "../../base/index.js";
import { showCount, showInterval, showNumber, showShare } from "../../report/index.js";
import type { ReportData, ReportModel } from "./data.js";
import { headline, tableModels } from "./format.js";

/** The table that a run ends with, as text for a terminal about 110 columns wide. */
export function renderTable(data: ReportData): string {
  const models = tableModels(data);
  const columns = tableColumns(data).filter(({ cell }) => models.some((model) => cell(model) !== ""));
  const rows = [
    ["", ...columns.map(({ title }) => title)],
    ...models.map((model) => [model.name, ...columns.map(({ cell }) => cell(model))]),
  ];
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const line = (row: readonly string[]) =>
    row.map((text, column) => (column === 0 ? text.padEnd(widths[0]!) : text.padStart(widths[column]!))).join("  ");
  const [head, ...body] = rows.map((row) => line(row).trimEnd());
  const rule = "-".repeat(widths.reduce((sum, width) => sum + width + 2, -2));
  return [head!, rule, ...body, "", ...footnotes(data)].join("\n");
}

interface TableColumn {
  title: string;
  cell: (model: ReportModel) => string;
}

/** Shared with the page: what is said of each model; "" where it was not measured. */
export function tableColumns({ parent }: ReportData): TableColumn[] {
  return [
    {
      title: "parameters",
      cell: ({ parameters, role }) =>
        role === "parent"
          ? showCount(parameters)
          : `${showCount(parameters)} (${showShare(parameters, parent.parameters)})`,
    },
    { title: "file", cell: ({ fileBytes }) => (fileBytes === undefined ? "" : formatBytes(fileBytes)) },
    { title: "perplexity", cell: ({ perplexity }) => (perplexity === undefined ? "" : showNumber(perplexity)) },
    {
      title: "KL before",
      cell: ({ klBeforeDistillation }) => (klBeforeDistillation ? showNumber(klBeforeDistillation.mean) : ""),
    },
    { title: "KL, nats/token (95 %)", cell: ({ kl }) => (kl ? showInterval(kl) : "") },
    {
      title: "above the child's (95 %)",
      cell: ({ klAboveChild }) => (klAboveChild ? showInterval(klAboveChild) : ""),
    },
    { title: "prefill tok/s", cell: ({ speed }) => (speed ? showSpeed(speed.prefill.mean) : "") },
    { title: "decode tok/s", cell: ({ speed }) => (speed ? showSpeed(speed.decode.mean) : "") },
  ];
}

function showSpeed(tokensPerSecond: number): string {
  return tokensPerSecond >= 100 ? showCount(Math.round(tokensPerSecond)) : showNumber(tokensPerSecond);
}

function footnotes(data: ReportData): string[] {
  const { evaluation, parentTraining } = data;
  const measured = `Measured on ${showCount(evaluation.tokens)} set-aside tokens in ${showCount(evaluation.sequences)} sequences (${evaluation.text}).`;
  const kinds = data.klByKind?.map(({ kind, kl }) => `${kind} ${showInterval(kl)}`).join("; ");
  return [
    headline(data),
    measured,
    ...(kinds ? [`The child's KL by kind of text: ${kinds}.`] : []),
    ...(parentTraining ? [parentTraining] : []),
  ];
}

const columnWidth = 54;

/** What two models wrote after the same beginning, side by side; more models than two stand below each other. */
export function renderSamples(samples: NonNullable<ReportData["samples"]>): string {
  return samples
    .map(({ prompt, outputs }) => {
      const pairs = outputs.flatMap((_, i) => (i % 2 === 0 ? [outputs.slice(i, i + 2)] : []));
      const shown = pairs.map((pair) => besideEachOther(pair.map(({ model, text }) => [model, "", ...wrap(text)])));
      return [...(samples.length > 1 ? [`> ${prompt}`] : []), ...shown].join("\n\n");
    })
    .join("\n\n");
}

function besideEachOther(columns: readonly (readonly string[])[]): string {
  const height = Math.max(...columns.map(({ length }) => length));
  const lines = Array.from({ length: height }, (_, row) =>
    columns.map((column) => (column[row] ?? "").padEnd(columnWidth)).join("  "),
  );
  return lines.map((line) => line.trimEnd()).join("\n");
}

/** Breaks a text between words. */
function wrap(text: string): string[] {
  const lines = [""];
  for (const word of text.split(/\s+/)) {
    const longer = `${lines.at(-1)} ${word}`.trim();
    if (longer.length <= columnWidth) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}
