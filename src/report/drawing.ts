/**
 * @module Charts as static SVG; the one place that meets Observable Plot and linkedom. Large, so it is loaded where something
 * is drawn and is no part of the area's index.
 */
import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";
import { formatCount } from "../base/index.js";
import { type Markup, raw } from "./markup.js";

export * as Plot from "@observablehq/plot";

type Options = Plot.PlotOptions;

const [width, height] = [480, 330];

/** @param alt what the picture shows, for those who do not see it */
export function draw(options: Options, alt: string): Markup {
  const { document } = parseHTML("<!doctype html><html><body></body></html>");
  const figure = Plot.plot({
    document: document as unknown as NonNullable<Options["document"]>,
    width,
    height,
    marginTop: 26,
    marginLeft: 56,
    marginRight: 18,
    marginBottom: 40,
    ariaLabel: alt,
    color: { type: "identity" },
    symbol: { type: "identity" },
    style: { background: "transparent", fontSize: "12px", color: "var(--soft)" },
    ...options,
  });
  figure.setAttribute("role", "img");
  return raw(figure.outerHTML);
}

/** Grid lines, at the ticks of the axes where those are given. */
export function grid({ x, y }: { x?: number[]; y?: number[] }): Plot.Markish[] {
  const stroke = { stroke: "var(--grid)", strokeOpacity: 1 };
  return [
    Plot.gridX({ ...stroke, ...(x ? { ticks: x } : { tickSpacing: 80 }) }),
    Plot.gridY({ ...stroke, ...(y && { ticks: y }) }),
  ];
}

/** A logarithmic axis with room at both ends and ticks at round numbers. */
export function logScale(values: readonly number[]) {
  const positive = values.filter((value) => value > 0 && Number.isFinite(value));
  const [least, most] = [Math.min(...positive), Math.max(...positive)];
  const room = Math.max(0.06 * Math.log(most / least), 0.08);
  const domain: [number, number] = [least * Math.exp(-room), most * Math.exp(room)];
  return { type: "log" as const, domain, ticks: roundTicks(domain), tickFormat: (value: number) => plainNumber(value) };
}

function roundTicks([low, high]: [number, number]): number[] {
  const steps = [[1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9], [1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1]];
  const within = (step: readonly number[]) => {
    const ticks: number[] = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      for (const base of step) {
        const tick = Number(`${base}e${power}`);
        if (tick >= low && tick <= high) ticks.push(tick);
      }
    }
    return ticks;
  };
  return steps.map(within).find(({ length }) => length <= 7) ?? within([1]);
}

/** 150000 -> "150K". */
export function shortCount(value: number): string {
  return formatCount(value).replace(/\.0(?=[A-Z])/, "");
}

export function plainNumber(value: number): string {
  return String(Number(value.toPrecision(4)));
}
