/** @module What a training run has to show: a table for the terminal, and a page with its curves. */
import { formatBytes, formatSeconds, type Interval } from "../../base/index.js";
import { html, type Markup, renderPage, showInterval, showNumber } from "../../report/index.js";
import type { Curve, Measure } from "./method.js";
import type { StageResult, TrainingResult } from "./run.js";

const columns = ["", "before", "after (95 %)", "difference (95 %)", "n"] as const;

/** Below it an interval is no more than a guess: of equal values it has no width at all. */
const fewestSamples = 8;

/** Whether the interval of the difference excludes zero, and in whose favour. */
export function verdictOf({ difference, better }: Measure): string {
  if (!difference || better === "neither") return "";
  if (difference.n < fewestSamples) return "too few samples to tell";
  if (difference.low <= 0 && difference.high >= 0) return "not told apart from no change";
  return difference.mean > 0 === (better === "up") ? "better" : "worse";
}

function cellsOf(measure: Measure): string[] {
  const show = (interval: Interval | undefined) => (interval ? showInterval(interval) : "");
  return [
    measure.unit ? `${measure.name}, ${measure.unit}` : measure.name,
    measure.before ? showNumber(measure.before.mean) : "",
    show(measure.after),
    show(measure.difference),
    String(measure.after.n),
  ];
}

/** The measures of every stage, for a terminal. */
export function renderTrainingTable({ stages }: Pick<TrainingResult, "stages">): string {
  return stages
    .map((stage) => {
      const notes = stage.notes.map((note) => `  ${note}`);
      const title = stage.name === stage.method ? stage.name : `${stage.name} (${stage.method})`;
      return [title, ...renderMeasures(stage.measures), ...notes].join("\n");
    })
    .join("\n\n");
}

function renderMeasures(measures: readonly Measure[]): string[] {
  if (measures.length === 0) return [];
  const rows = [[...columns], ...measures.map(cellsOf)];
  const widths = columns.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  const lines = rows.map((row) =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  "),
  );
  return lines.map((line, i) => `  ${line}  ${i === 0 ? "" : verdictOf(measures[i - 1]!)}`.trimEnd());
}

/** The page of a run: what was measured before and after each stage, its curves, and how to do it again. */
export async function renderTrainingReport(result: TrainingResult): Promise<string> {
  const { drawCurves } = await import("./charts.js");
  return renderPage(result.model.name, [
    html`<h1>${result.model.name}: ${result.stages.map(({ name }) => name).join(", ")}</h1>
<p class="lead">${leadOf(result)}</p>`,
    ...result.stages.map((stage) => section(stage, drawCurves)),
    reproduce(result),
  ]);
}

function leadOf({ stages, seconds, peakRssBytes }: TrainingResult): string {
  const told = stages.flatMap(({ name, measures }) =>
    measures
      .filter((measure) => verdictOf(measure) === "better")
      .map(
        ({ name: measure, before, after }) =>
          `${name}: ${measure} from ${showNumber(before!.mean)} to ${showNumber(after.mean)}`,
      ),
  );
  const gains = told.length > 0 ? `${told.join("; ")}. ` : "";
  return `${gains}It took ${formatSeconds(seconds)} and at most ${formatBytes(peakRssBytes)}.`;
}

type Draw = (curves: readonly Curve[]) => { name: string; chart: Markup }[];

function section(stage: StageResult, draw: Draw): Markup {
  const title = stage.name === stage.method ? stage.name : `${stage.name} (${stage.method})`;
  return html`<h2>${title}</h2>
${stage.measures.length > 0 ? measureTable(stage.measures) : ""}
${stage.notes.map((note) => html`<p class="note">${note}</p>`)}
<div class="pair">${draw(stage.curves).map(({ name, chart }) => html`<figure><h3>${name}</h3>${chart}</figure>`)}</div>
${(stage.samples ?? []).map(
  ({ prompt, before, after }) => html`<h3>${prompt}</h3>
<div class="samples"><div class="panel"><h3>before</h3><blockquote>${before}</blockquote></div>
<div class="panel"><h3>after</h3><blockquote>${after}</blockquote></div></div>`,
)}
<p class="note">${formatSeconds(stage.seconds)}, at most ${formatBytes(stage.peakRssBytes)}; files in ${stage.path}</p>`;
}

function measureTable(measures: readonly Measure[]): Markup {
  return html`<figure class="panel"><table><thead><tr>${columns.map((column) => html`<th scope="col">${column}</th>`)}<th scope="col"></th></tr></thead>
<tbody>${measures.map((measure) => {
    const [name, ...cells] = cellsOf(measure);
    const note = measure.note ? html`<span class="sub">${measure.note}</span>` : "";
    return html`<tr><th scope="row">${name}${note}</th>${cells.map((cell) => html`<td>${cell}</td>`)}<td>${verdictOf(measure)}</td></tr>`;
  })}</tbody></table></figure>`;
}

function reproduce({ command, seed, versions, machine, model }: TrainingResult): Markup {
  return html`<h2>The same again</h2>
<figure class="panel"><pre>${command}</pre>
<dl><dt>Model</dt><dd>${model.path}</dd><dt>Seed</dt><dd>${seed}</dd>
${Object.entries(versions).map(([name, version]) => html`<dt>${name}</dt><dd>${version}</dd>`)}
<dt>Machine</dt><dd>${machine}</dd></dl></figure>`;
}
