/** @module The field `thinking` that every dialect has beside its own. */
import { z } from "../base/index.js";
import type { Thinking } from "./chat-request.js";

export const budget = z.strictObject({ budget: z.int().min(1) });

/** `true` is "on", `false` is "off". */
export const thinkingField = z
  .union([z.enum(["on", "off", "auto"]), z.boolean(), budget])
  .transform((value): Thinking => (typeof value === "boolean" ? (value ? "on" : "off") : value));

/** Words of other dialects for how much to think, as tokens of thought. */
export const efforts = {
  none: "off",
  minimal: "off",
  low: { budget: 512 },
  medium: { budget: 2048 },
  high: "on",
  max: "on",
} as const satisfies Record<string, Thinking>;

export type Effort = keyof typeof efforts;
export const effortNames = Object.keys(efforts) as [Effort, ...Effort[]];
