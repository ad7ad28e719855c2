import type { ReportModel } from "./data.js";

/** One colour for a model wherever it is drawn: a variable of the style, so that it follows light and dark. */
export function colorOf({ name, role }: Pick<ReportModel, "name" | "role">): string {
  if (role !== "baseline") return `var(--${role})`;
  const kind = ["uniform", "greedy", "random"].find((known) => name.startsWith(known));
  return `var(--${kind ?? "other"})`;
}

export type Mark = "circle" | "triangle" | "square" | "diamond" | "times";

/** And one shape, for readers who do not tell the colours apart. */
export function symbolOf({ name, role }: Pick<ReportModel, "name" | "role">): Mark {
  if (role !== "baseline") return "circle";
  if (name.startsWith("uniform")) return "square";
  if (name.startsWith("greedy")) return "triangle";
  return name.startsWith("random") ? "diamond" : "times";
}
