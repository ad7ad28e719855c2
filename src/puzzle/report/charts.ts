/** @module The report's charts. */
import { formatBytes, type Interval } from "../../base/index.js";
import { draw, grid, logScale, Plot, plainNumber, shortCount } from "../../report/drawing.js";
import { type Markup, showInterval, showNumber } from "../../report/index.js";
import type { ComputePoint, LossCurve, ReportData, ReportFrontier, ReportModel, ReportScores } from "./data.js";
import { tableModels } from "./format.js";
import { colorOf, symbolOf } from "./palette.js";

type Model = Pick<ReportModel, "name" | "role">;

function dotStyle(model: Model) {
  const color = colorOf(model);
  return { fill: color, stroke: "var(--panel)", strokeWidth: 1, symbol: symbolOf(model) as Plot.SymbolType, r: 6 };
}

/** Summed scores against the budget as a line; measured children, with their intervals, where they came to stand. */
export function drawFrontier(data: ReportData, frontier: ReportFrontier): Markup | undefined {
  if (frontier.points.length < 2) return undefined;
  const show = showOf(frontier);
  // The child last, on top.
  const placed = tableModels(data)
    .reverse()
    .flatMap((model) => {
      const cost = model.costs?.[frontier.name] ?? (frontier.name === "params" ? model.parameters : undefined);
      return model.kl && cost !== undefined ? [{ model, cost, kl: model.kl }] : [];
    });
  const points = frontier.points.filter(({ objective }) => objective > 0);
  const y = logScale([
    ...(frontier.objective ? [frontier.objective] : []),
    ...points.map(({ objective }) => objective),
    ...placed.flatMap(({ kl }) => inside(kl)),
  ]);
  const apart = spreadSideways(placed.map(({ cost }) => cost));
  const marks = placed.flatMap(({ model, cost, kl }, i) => measured({ model, kl, x: cost, y: kl.mean, dx: apart[i]! }));
  const own = placed.find(({ model }) => model.role === "child");
  return draw(
    {
      x: { label: `budget: ${frontier.name} →`, ticks: 5, tickFormat: (value: number) => show(value), nice: true },
      y: { ...y, label: "↑ nats a token" },
      marginBottom: 42,
      marks: [
        ...grid({ y: y.ticks }),
        Plot.line(points, { x: "budget", y: "objective", stroke: "var(--ink)", strokeWidth: 1.75 }),
        Plot.dot(points, {
          x: "budget",
          y: "objective",
          r: 3,
          fill: "var(--ink)",
          title: ({ budget, objective }) => `${show(budget)}: summed scores ${showNumber(objective)}`,
        }),
        ...(own && frontier.objective ? [ring(own.cost, frontier.objective)] : []),
        ...marks,
      ],
    },
    `Frontier: least summed score for budgets of ${frontier.name} from ${show(frontier.points[0]!.budget)} to ${show(frontier.points.at(-1)!.budget)}, and the measured divergence of ${placed.map(({ model, kl }) => `${model.name} ${showNumber(kl.mean)}`).join(", ")}.`,
  );
}

function ring(cost: number, objective: number): Plot.Markish {
  return Plot.dot([{ cost, objective }], {
    x: "cost",
    y: "objective",
    r: 6,
    stroke: "var(--child)",
    strokeWidth: 2,
    title: () => `child: summed scores ${showNumber(objective)}`,
  });
}

function showOf({ name, unit }: ReportFrontier): (value: number) => string {
  if (name === "params") return shortCount;
  if (unit === "bytes") return formatBytes;
  return unit === "s" ? (seconds) => `${showNumber(1000 * seconds)} ms` : plainNumber;
}

/** Children of one budget stand at nearly one place: pixels by which to move each so that they can be told apart. */
function spreadSideways(positions: readonly number[]): number[] {
  const near = 0.02 * (Math.max(...positions) || 1);
  return positions.map((position, i) => {
    const neighbours = [...positions.keys()].filter((j) => Math.abs(positions[j]! - position) <= near);
    neighbours.sort((a, b) => positions[a]! - positions[b]!);
    return (neighbours.indexOf(i) - (neighbours.length - 1) / 2) * 9;
  });
}

interface Measured {
  model: Model;
  kl: Interval;
  x: number;
  y: number;
  dx?: number;
}

function measured({ model, kl, x, y, dx = 0 }: Measured): Plot.Markish[] {
  const title = `${model.name}: ${showInterval(kl)}`;
  const [low, high] = [Math.max(kl.low, Number.MIN_VALUE), kl.high];
  const finite = Number.isFinite(low) && Number.isFinite(high) && kl.low > 0;
  return [
    ...(finite
      ? [Plot.ruleX([{ x, low, high }], { x: "x", y1: "low", y2: "high", stroke: colorOf(model), strokeWidth: 2, dx })]
      : []),
    Plot.dot([{ x, y }], { x: "x", y: "y", ...dotStyle(model), title: () => title, dx }),
  ];
}

/** Summed scores against what the assembled children really have, before distillation. */
export function drawPredictions({ predictions, ...data }: ReportData): Markup | undefined {
  const points = (predictions ?? []).filter(({ predicted, measured: { mean } }) => predicted > 0 && mean > 0);
  if (points.length === 0) return undefined;
  const scale = logScale(points.flatMap(({ predicted, measured: kl }) => [predicted, ...inside(kl)]));
  const [low, high] = scale.domain;
  return draw(
    {
      x: { ...scale, label: "predicted: summed scores →" },
      y: { ...scale, label: "↑ measured, nats a token" },
      marks: [
        ...grid({ x: scale.ticks, y: scale.ticks }),
        Plot.line(
          [
            [low, low],
            [high, high],
          ],
          { stroke: "var(--soft)", strokeDasharray: "4 3" },
        ),
        ...[...points]
          .reverse()
          .flatMap(({ model: name, predicted, measured: kl }) =>
            measured({ model: roleOf(data, name), kl, x: predicted, y: kl.mean }),
          ),
      ],
    },
    `Predicted against measured divergence: ${points.map(({ model, predicted, measured: { mean } }) => `${model} ${showNumber(predicted)} predicted, ${showNumber(mean)} measured`).join("; ")}.`,
  );
}

/** Divergence after each stage against the compute spent until then. */
export function drawCompute({ compute = [], ...data }: ReportData): Markup | undefined {
  const points = compute.filter(({ kl }) => kl > 0);
  if (points.length < 2) return undefined;
  const byModel = groupBy(points, ({ model }) => model);
  const y = logScale(points.map(({ kl }) => kl));
  const describe = ({ model, stage, seconds, kl }: ComputePoint) =>
    `${model}, ${stage}: ${showNumber(kl)} after ${showNumber(seconds)} s`;
  return draw(
    {
      x: { label: "compute, seconds on this machine →", ticks: 5, nice: true, zero: true },
      y: { ...y, label: "↑ nats a token" },
      marks: [
        ...grid({ y: y.ticks }),
        ...byModel.reverse().flatMap(([name, stages]) => {
          const model = roleOf(data, name);
          return [
            Plot.line(stages, { x: "seconds", y: "kl", stroke: colorOf(model), strokeWidth: 1.75 }),
            Plot.dot(stages, { x: "seconds", y: "kl", ...dotStyle(model), title: describe }),
          ];
        }),
      ],
    },
    `Divergence against compute. ${points.map(describe).join("; ")}.`,
  );
}

/** Distillation loss against tokens, averaged over stretches where there are many steps. */
export function drawLosses({ losses = [], ...data }: ReportData): Markup | undefined {
  const curves = losses.filter(({ points }) => points.length > 1);
  if (curves.length === 0) return undefined;
  const smooth = curves.map(({ model, points }) => ({ model, points: thin(points, 80) }));
  const y = logScale(smooth.flatMap(({ points }) => points.map(({ loss }) => loss)));
  return draw(
    {
      x: { label: "tokens →", ticks: 5, tickFormat: shortCount, nice: true },
      y: { ...y, label: "↑ distillation loss" },
      marks: [
        ...grid({ y: y.ticks }),
        // The child last, on top.
        ...[...smooth].reverse().map(({ model: name, points }) => {
          const model = roleOf(data, name);
          return Plot.line(points, {
            x: "tokens",
            y: "loss",
            stroke: colorOf(model),
            strokeWidth: model.role === "child" ? 2.25 : 1.5,
            title: () => name,
          });
        }),
      ],
    },
    `Distillation loss: ${smooth.map(({ model, points }) => `${model} from ${showNumber(points[0]!.loss)} to ${showNumber(points.at(-1)!.loss)}`).join("; ")}.`,
  );
}

function thin(points: LossCurve["points"], most: number): { tokens: number; loss: number }[] {
  const size = Math.ceil(points.length / most);
  return Array.from({ length: Math.ceil(points.length / size) }, (_, i) => {
    const stretch = points.slice(i * size, (i + 1) * size);
    const mean = (of: (point: (typeof stretch)[number]) => number) =>
      stretch.reduce((sum, point) => sum + of(point), 0) / stretch.length;
    return { tokens: mean(({ tokens }) => tokens), loss: mean(({ loss }) => loss) };
  });
}

/** Scores of single replacements, layers by variants. */
export function drawScores({ layers, variants, cells, chosen = {} }: ReportScores): Markup {
  const heat = heatScale(cells.map(({ kl }) => kl.mean));
  const numbers = layers.length <= 14;
  const marginLeft = 16 + 6.6 * Math.max(...variants.map(({ length }) => length));
  const row = numbers ? 26 : 20;
  const slot = Math.max(10, Math.min(72, (930 - marginLeft) / layers.length));
  const isChosen = ({ layer, variant }: (typeof cells)[number]) => chosen[layer] === variant;
  return draw(
    {
      width: marginLeft + layers.length * slot + 10,
      height: variants.length * row + 54,
      marginLeft,
      marginTop: 8,
      marginRight: 10,
      x: {
        type: "band",
        domain: layers,
        label: "layer",
        tickSize: 0,
        padding: 0.06,
        ...(slot < 22 && { ticks: layers.filter((_, i) => i % 5 === 0) }),
      },
      y: { type: "band", domain: variants, label: null, tickSize: 0, padding: 0.06 },
      marks: [
        Plot.cell(cells, {
          x: "layer",
          y: "variant",
          fill: ({ kl }) => heat.color(kl.mean),
          rx: 2,
          title: ({ layer, variant, kl }) => `layer ${layer}, ${variant}: ${showInterval(kl)} nats a token`,
        }),
        Plot.cell(cells.filter(isChosen), {
          x: "layer",
          y: "variant",
          fill: "none",
          stroke: "var(--ink)",
          strokeWidth: 2,
          rx: 2,
        }),
        ...(numbers
          ? [
              Plot.text(cells, {
                x: "layer",
                y: "variant",
                text: ({ kl }) => showNumber(Math.max(0, kl.mean), 2),
                fill: ({ kl }) => (heat.share(kl.mean) > 0.5 ? "var(--page)" : "var(--ink)"),
                fontSize: 11,
                pointerEvents: "none",
              }),
            ]
          : []),
      ],
    },
    `Divergence when one block is replaced, ${layers.length} layers by ${variants.length} variants, from ${showNumber(heat.low)} to ${showNumber(heat.high)} nats a token.`,
  );
}

/** Colour by the logarithm, between the smallest and the largest score above nothing. */
export function heatScale(values: readonly number[]) {
  const positive = values.filter((value) => value > 0);
  const [low, high] = [Math.min(...positive, 1), Math.max(...positive, Number.MIN_VALUE)];
  const share = (value: number) =>
    value <= low || high <= low ? 0 : Math.min(1, Math.log(value / low) / Math.log(high / low));
  const color = (value: number) => {
    const at = share(value) * 3;
    const from = Math.min(2, Math.floor(at));
    return `color-mix(in oklab, var(--heat-${from + 1}) ${Math.round(100 * (at - from))}%, var(--heat-${from}))`;
  };
  return { low, high, share, color };
}

function inside({ mean, low, high }: Interval): number[] {
  return [mean, low, high].filter((value) => Number.isFinite(value) && value > 0);
}

function roleOf({ parent, child, baselines }: Pick<ReportData, "parent" | "child" | "baselines">, name: string): Model {
  return [parent, child, ...baselines].find((model) => model.name === name) ?? { name, role: "baseline" };
}

function groupBy<T>(items: readonly T[], key: (item: T) => string): [string, T[]][] {
  const groups = new Map<string, T[]>();
  for (const item of items) groups.set(key(item), [...(groups.get(key(item)) ?? []), item]);
  return [...groups];
}
