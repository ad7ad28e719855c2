/** @module The curves of a training run. */
import { draw, grid, Plot, plainNumber, shortCount } from "../../report/drawing.js";
import { type Markup, showNumber } from "../../report/index.js";
import type { Curve } from "./method.js";

/** Points of a drawn line at most; longer curves are averaged over stretches. */
const mostPoints = 120;

/** One chart for each curve that has a course. */
export function drawCurves(curves: readonly Curve[]): { name: string; chart: Markup }[] {
  return curves
    .filter(({ points }) => points.length > 1)
    .map((curve) => ({ name: curve.unit ? `${curve.name}, ${curve.unit}` : curve.name, chart: drawCurve(curve) }));
}

function drawCurve({ name, x, points }: Curve): Markup {
  const line = thin(points).map(([at, value]) => ({ at, value }));
  const [first, last] = [points[0]!, points.at(-1)!];
  return draw(
    {
      x: { label: `${x === "step" ? "steps" : "tokens"} →`, ticks: 5, tickFormat: shortCount, nice: true },
      y: { label: `↑ ${name}`, ticks: 5, nice: true, tickFormat: plainNumber },
      marks: [
        ...grid({}),
        Plot.line(line, { x: "at", y: "value", stroke: "var(--child)", strokeWidth: 2 }),
        ...(line.length <= 20 ? [Plot.dot(line, { x: "at", y: "value", r: 3, fill: "var(--child)" })] : []),
      ],
    },
    `${name}: from ${showNumber(first[1])} at ${first[0]} to ${showNumber(last[1])} at ${last[0]}.`,
  );
}

function thin(points: Curve["points"]): Curve["points"] {
  const size = Math.ceil(points.length / mostPoints);
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  return Array.from({ length: Math.ceil(points.length / size) }, (_, i): [number, number] => {
    const stretch = points.slice(i * size, (i + 1) * size);
    return [mean(stretch.map(([x]) => x)), mean(stretch.map(([, y]) => y))];
  });
}
