import { type Markup, raw } from "../../report/index.js";
import type { ReportModel } from "./data.js";

/** One colour for a model wherever it is drawn: a variable of the style, so that it follows light and dark. */
export function colorOf({ name, role }: Pick<ReportModel, "name" | "role">): string {
  if (role !== "baseline") return `var(--${role})`;
  const kind = ["uniform", "greedy", "random"].find((known) => name.startsWith(known));
  return `var(--${kind ?? "other"})`;
}

export type Mark = "circle" | "triangle" | "square" | "diamond" | "star";

/** And one shape, for readers who do not tell the colours apart. */
export function symbolOf({ name, role }: Pick<ReportModel, "name" | "role">): Mark {
  if (role !== "baseline") return "circle";
  if (name.startsWith("uniform")) return "square";
  if (name.startsWith("greedy")) return "triangle";
  return name.startsWith("random") ? "diamond" : "star";
}

const outlines: Record<Mark, string> = {
  circle: "M7 2a5 5 0 1 1 0 10a5 5 0 1 1 0-10z",
  triangle: "M7 2l5.5 9.5h-11z",
  square: "M2.5 2.5h9v9h-9z",
  diamond: "M7 1l4 6l-4 6l-4-6z",
  star: "M7 1l1.6 4h4.4l-3.5 2.7l1.3 4.3l-3.8-2.6l-3.8 2.6l1.3-4.3l-3.5-2.7h4.4z",
};

/** What stands for a model in the charts, for their legends. */
export function drawKey(model: Pick<ReportModel, "name" | "role">): Markup {
  const path = `<path d="${outlines[symbolOf(model)]}" fill="${colorOf(model)}"/>`;
  return raw(`<svg aria-hidden="true" width="14" height="14">${path}</svg>`);
}
