import { formatBytes, formatSeconds } from "../../base/index.js";
import { html, type Markup, raw, renderPage, showCount, showInterval, showNumber } from "../../report/index.js";
import { drawArchitecture } from "./architecture.js";
import type { ReportData, ReportModel } from "./data.js";
import { headline, showCost, tableModels } from "./format.js";
import { drawKey } from "./palette.js";
import { tableColumns } from "./table.js";

type Charts = typeof import("./charts.js");

/** The report of one child as one self-contained HTML file: no script, nothing loaded from elsewhere. */
export async function renderReport(data: ReportData): Promise<string> {
  // Loaded here, because the chart library is large and nothing else needs it.
  const charts = await import("./charts.js");
  return renderPage(data.title, [
    intro(data),
    mainTable(data),
    architecture(data),
    curves(data, charts),
    speedTable(data),
    samples(data),
    certificate(data),
    scores(data, charts),
    exportedFiles(data),
    stages(data),
    reproduce(data),
  ]);
}

export interface Overview {
  title: string;
  /** What parent and children wrote after the same beginnings. */
  samples: NonNullable<ReportData["samples"]>;
}

/** One page above the reports of several children of a library; each report lies in `NAME/report.html`. */
export async function renderOverview(
  children: readonly ReportData[],
  { title, samples: texts }: Overview,
): Promise<string> {
  const charts = await import("./charts.js");
  const [first] = children;
  const together = togetherOf(children, title, texts);
  const table = { ...together, baselines: children.flatMap(rowsOfChild).slice(1) };
  delete table.klByKind;
  return renderPage(title, [
    html`<h1>${title}</h1>
${children.map((data) => html`<p class="lead"><a href="${data.child.name}/report.html">${data.child.name}</a>, ${data.title}: ${headline(data)}</p>`)}`,
    mainTable(table),
    children.map((data) => html`<h2>${data.child.name}</h2>${architectureFigure(data)}`),
    frontiers(together, charts),
    speedTable({ ...first!, speedPredictions: children.flatMap((data, i) => speedRows(data, i === 0)) }),
    samples(together),
    stages(first!),
    reproduce(first!),
  ]);
}

/** The child, and of its baselines the nearest to the parent. */
function rowsOfChild({ child, baselines }: ReportData): ReportModel[] {
  const klOf = ({ kl, klBeforeDistillation }: ReportModel) =>
    (kl ?? klBeforeDistillation)?.mean ?? Number.POSITIVE_INFINITY;
  const measured = baselines.filter(({ kl }) => kl);
  const [best] = [...(measured.length > 0 ? measured : baselines)].sort((a, b) => klOf(a) - klOf(b));
  return [child, ...(best ? [{ ...best, name: `${child.name}: ${best.name}` }] : [])];
}

/** All children in one set of data: the first as "the child", the others beside it. */
function togetherOf(children: readonly ReportData[], title: string, samples: Overview["samples"]): ReportData {
  const [first, ...others] = children;
  const frontiers = new Map(
    children.flatMap(({ frontiers = [] }) =>
      frontiers.map(({ objective: _own, ...frontier }) => [frontier.name, frontier] as const),
    ),
  );
  return {
    ...first!,
    title,
    samples,
    baselines: others.map(({ child }) => ({ ...child, role: "baseline" as const })),
    frontiers: [...frontiers.values()],
  };
}

function speedRows({ speedPredictions = [], child }: ReportData, withParent: boolean) {
  return speedPredictions.filter(({ model }) => model === child.name || (withParent && model === "parent"));
}

function frontiers(data: ReportData, charts: Charts): Markup {
  const drawn = (data.frontiers ?? []).map((frontier) => ({
    name: frontier.name,
    chart: charts.drawFrontier(data, frontier),
  }));
  return html`<div class="pair">${drawn.map(
    ({ name, chart }) => html`
<section><h2>Frontier: ${name}</h2><figure class="panel"><ul class="legend">${[data.child, ...data.baselines].map((model) => html`<li>${drawKey(model)}${model.name}</li>`)}</ul>${chart}<figcaption>${frontierCaption}</figcaption></figure></section>`,
  )}</div>`;
}

const frontierCaption =
  "Line: the least sum of scores that any choice of blocks reaches under each budget, all other costs free, before distillation (an exact optimum at each point). Ring: the child's place on it. Filled marks: divergence measured on the finished children, moved a little sideways where they coincide.";

function intro(data: ReportData): Markup {
  return html`<h1>${data.title}</h1>
<p class="lead">${headline(data)}</p>
${(data.notes ?? []).map((note) => html`<p class="note">${note}</p>`)}`;
}

function mainTable(data: ReportData): Markup {
  const models = tableModels(data);
  const columns = tableColumns(data).filter(({ cell }) => models.some((model) => cell(model) !== ""));
  const { text, tokens, sequences } = data.evaluation;
  return html`<figure class="panel"><table>
<caption>Measured on ${showCount(tokens)} tokens set aside, in ${showCount(sequences)} sequences: ${text}. Intervals are 95 %, by sequence.</caption>
<thead><tr><th scope="col">model</th>${columns.map(({ title }) => html`<th scope="col">${title}</th>`)}</tr></thead>
<tbody>${models.map(
    (model) => html`
<tr class="${model.role}"><th scope="row">${model.name}</th>${columns.map(({ cell }) => html`<td>${splitNote(cell(model) || "–")}</td>`)}</tr>`,
  )}
</tbody></table></figure>
${data.parentTraining ? html`<p class="note">${data.parentTraining}</p>` : ""}
${data.klByKind ? html`<p class="note">The child's KL by kind of text: ${data.klByKind.map(({ kind, kl }) => `${kind} ${showInterval(kl)}`).join("; ")}.</p>` : ""}`;
}

/** What stands in brackets goes below, smaller. */
function splitNote(text: string): Markup {
  const [, value, note] = /^(.*?) \((.*)\)$/.exec(text) ?? [];
  return value === undefined ? html`${text}` : html`${value}<span class="sub">${note}</span>`;
}

function architecture(data: ReportData): Markup {
  return data.child.blocks ? html`<h2>The child, layer by layer</h2>${architectureFigure(data)}` : html``;
}

function architectureFigure({ parent, child, parentConfig }: ReportData): Markup {
  if (!child.blocks || !parent.blocks) return html``;
  const unit = parentConfig
    ? "Heights are shares of the parameters of the same part of the parent"
    : "Heights are shares of the parent's key-value heads and widths";
  return html`<figure class="panel wide">
<ul class="legend">${swatch("attention", "attention")}${swatch("ffn", "feed-forward")}${swatch("ffn", "one linear map instead", "hatch")}${swatch("ffn", "the parent's outline", "outline")}</ul>
${drawArchitecture(parent.blocks, child.blocks, parentConfig)}
<figcaption>${unit}; an empty, dashed outline is a part that was removed. Point at a bar for its exact size.</figcaption>
</figure>`;
}

function swatch(color: string, label: string, kind: "solid" | "hatch" | "outline" = "solid"): Markup {
  const fill =
    kind === "solid" ? `var(--${color})` : kind === "hatch" ? `url(#hatch-${color})` : `var(--${color}-soft)`;
  const box = `<svg aria-hidden="true" width="13" height="13"><rect x=".5" y=".5" width="12" height="12" rx="2" fill="${fill}" stroke="var(--${color})" stroke-opacity=".55"/></svg>`;
  return html`<li>${raw(box)}${label}</li>`;
}

function curves(data: ReportData, charts: Charts): Markup {
  const figures: [title: string, chart: Markup | undefined, caption: string][] = [
    ...(data.frontiers ?? []).map((frontier, i): [string, Markup | undefined, string] => [
      i === 0 ? "Frontier" : `Frontier: ${frontier.name}`,
      charts.drawFrontier(data, frontier),
      frontierCaption,
    ]),
    [
      "Predicted against real",
      charts.drawPredictions(data),
      "Each candidate assembled and measured without distillation. On the dashed line the sum of single-block scores is exact; below it the sum overstates.",
    ],
    [
      "Divergence against compute",
      charts.drawCompute(data),
      "After each stage, against the compute spent on that model until then.",
    ],
    ["Distillation", charts.drawLosses(data), "Loss of each child, with the same tokens in the same order."],
  ];
  const drawn = figures.filter(([, chart]) => chart !== undefined);
  if (drawn.length === 0) return html``;
  return html`<div class="pair">${drawn.map(
    ([title, chart, caption]) => html`
<section><h2>${title}</h2><figure class="panel">${legend(data, title)}${chart}<figcaption>${caption}</figcaption></figure></section>`,
  )}
</div>`;
}

function legend({ child, baselines, predictions = [] }: ReportData, title: string): Markup {
  const random = baselines.filter(({ name }) => name.startsWith("random"));
  const shown: Pick<ReportModel, "name" | "role">[] = [child, ...baselines.filter((model) => !random.includes(model))];
  if (random[0]) shown.push({ ...random[0], name: random.length > 1 ? "random" : random[0].name });
  const known = new Set([child, ...baselines].map(({ name }) => name));
  const isPredictions = title === "Predicted against real";
  if (isPredictions && predictions.some(({ model }) => !known.has(model))) {
    shown.push({ name: "other solutions of the search", role: "baseline" });
  }
  const drawn = isPredictions
    ? shown.filter(({ name }) => !known.has(name) || predictions.some(({ model }) => model === name))
    : shown;
  return html`<ul class="legend">${drawn.map((model) => html`<li>${drawKey(model)}${model.name}</li>`)}</ul>`;
}

function samples({ samples: list = [] }: ReportData): Markup {
  if (list.length === 0) return html``;
  return html`<h2>Side by side</h2>
${list.map(
  ({ prompt, outputs }) => html`<figure class="samples">${outputs.map(
    ({ model, text }) => html`
<section class="panel"><h3>${model}</h3><blockquote><span class="prompt">${prompt}</span>${withoutPrompt(text, prompt)}</blockquote></section>`,
  )}
</figure>`,
)}`;
}

function withoutPrompt(text: string, prompt: string): string {
  return text.startsWith(prompt) ? text.slice(prompt.length) : text;
}

function speedTable({ speedPredictions: rows = [] }: ReportData): Markup {
  if (rows.length === 0) return html``;
  const show = (value: number, unit: string) => `${showNumber(value)} ${unit}`;
  return html`<h2>Predicted against measured speed</h2>
<figure class="panel"><table><thead><tr><th scope="col">model</th><th scope="col">cost</th><th scope="col">predicted</th><th scope="col">measured (95 %)</th><th scope="col">predicted too high by</th></tr></thead>
<tbody>${rows.map(
    ({ model, cost, predicted, measured, unit }) => html`
<tr><th scope="row">${model}</th><td>${cost}</td><td>${show(predicted, unit)}</td><td>${splitNote(showInterval(measured))}</td><td>${(100 * (predicted / measured.mean - 1)).toFixed(1)} %</td></tr>`,
  )}
</tbody></table>
<figcaption>Predicted: the measured costs of the model's blocks, added up. They were taken on files of many equal blocks. In a whole model blocks of different shapes follow each other, share the caches and wait for each other's threads, which the sum leaves out.</figcaption></figure>`;
}

function certificate({ search }: ReportData): Markup {
  const { objective, bound, gap, seconds, spaceLog10, budgets } = search;
  const proof = gap === 0 ? "gap 0: no other choice of these blocks has a smaller sum" : `gap ${showNumber(gap)}`;
  return html`<h2>Search certificate</h2>
<figure class="panel"><dl>
<dt>Sum of scores</dt><dd>${showNumber(objective, 6)} nats a token</dd>
<dt>Proven bound</dt><dd>${showNumber(bound, 6)} (${proof})</dd>
${spaceLog10 === undefined ? "" : html`<dt>Choices in the space</dt><dd>10<sup>${spaceLog10.toFixed(1)}</sup></dd>`}
<dt>Solved in</dt><dd>${showNumber(seconds)} s</dd>
</dl>
<table><thead><tr><th scope="col">budget</th><th scope="col">allowed</th><th scope="col">child</th><th scope="col">parent</th><th scope="col">price</th></tr></thead>
<tbody>${budgets.map(
    ({ name, unit, max, total, parent, shadowPrice }) => html`
<tr><th scope="row">${name}</th><td>${showCost(max, name, unit)}</td><td>${showCost(total, name, unit)}</td><td>${parent === undefined ? "–" : showCost(parent, name, unit)}</td><td>${shadowPrice > 0 ? `${showNumber(shadowPrice * max * 0.01)} nats` : "not binding"}</td></tr>`,
  )}
</tbody></table>
<figcaption>Price: what 1 % more of the budget would save in the sum of scores, from the linear relaxation.</figcaption></figure>`;
}

function scores({ scores: grid }: ReportData, charts: Charts): Markup {
  if (!grid || grid.cells.length === 0) return html``;
  const { low, high } = charts.heatScale(grid.cells.map(({ kl }) => kl.mean));
  return html`<h2>What each replacement costs</h2>
<figure class="panel wide">
<p class="note scale">${showNumber(low, 2)} <span></span> ${showNumber(high, 2)} nats a token, logarithmic</p>
${charts.drawScores(grid)}
<figcaption>Divergence from the parent with exactly one block replaced.${grid.chosen ? " Outlined: the child's choice." : ""} Point at a cell for its interval.</figcaption></figure>`;
}

function exportedFiles({ exports: files = [] }: ReportData): Markup {
  if (files.length === 0) return html``;
  const difference = (file: (typeof files)[number]) =>
    file.maxAbsLogitDifference !== undefined
      ? file.maxAbsLogitDifference === 0
        ? "logits identical"
        : `logits within ${file.maxAbsLogitDifference.toExponential(1)}`
      : file.kl !== undefined
        ? `KL from our own logits ${showNumber(file.kl)}`
        : "";
  return html`<h2>Files</h2>
<figure class="panel"><table class="text"><thead><tr><th scope="col">file</th><th scope="col">format</th><th scope="col">size</th><th scope="col">checked</th></tr></thead>
<tbody>${files.map(
    (file) => html`
<tr><td><code>${file.path}</code></td><td>${file.format}</td><td>${file.bytes === undefined ? "–" : formatBytes(file.bytes)}</td><td>${[difference(file), file.note].filter(Boolean).join("; ") || "–"}</td></tr>`,
  )}
</tbody></table></figure>`;
}

function stages({ stages: list, seconds, peakRssBytes }: ReportData): Markup {
  return html`<h2>Stages</h2>
<figure class="panel"><table><thead><tr><th scope="col">stage</th><th scope="col">time</th><th scope="col">peak memory</th><th scope="col">from the store</th></tr></thead>
<tbody>${list.map(
    (stage) => html`
<tr><th scope="row">${stage.name}</th><td>${formatSeconds(stage.seconds)}</td><td>${formatBytes(stage.peakRssBytes)}</td><td>${stage.cached ? "yes" : ""}</td></tr>`,
  )}
</tbody></table>
<figcaption>This run took ${formatSeconds(seconds)} and at most ${formatBytes(peakRssBytes)}, all processes together. Stages from the store show what they took when they ran.</figcaption></figure>`;
}

function reproduce({ reproduce: { command, seed, versions, machine } }: ReportData): Markup {
  return html`<h2>The same again</h2>
<figure class="panel"><pre>${command}</pre>
<dl><dt>Seed</dt><dd>${seed}</dd>
${Object.entries(versions).map(([name, version]) => html`<dt>${name}</dt><dd>${version}</dd>`)}
${machine ? html`<dt>Machine</dt><dd>${machine}</dd>` : ""}</dl></figure>`;
}
