/** @module Fields that several methods share; each has its meaning and its default in one place. */
import { z } from "../../base/index.js";

/** Files of samples; repeated on the command line. */
export const files = (what: string) =>
  z
    .union([z.string().min(1), z.array(z.string().min(1)).min(1)])
    .transform((paths) => [paths].flat())
    .describe(what);

const count = (fallback: number, what: string) => z.int().min(1).default(fallback).describe(what);

/** Of every method that trains. */
export const trainingFields = {
  trainable: z
    .enum(["lora", "all"])
    .default("lora")
    .describe("What is trained: low-rank adapters beside frozen matrices, or every weight."),
  rank: count(8, "Rank of the adapters."),
  alpha: z.number().positive().default(16).describe("Scale of the adapters, divided by the rank."),
  targets: z
    .array(z.string().min(1))
    .min(1)
    .optional()
    .describe("Layers that get an adapter, such as q_proj; default: every linear layer of the blocks."),
  frozen: z
    .enum(["f32", "int8"])
    .default("f32")
    .describe(
      "Frozen matrices of the blocks while training: as they are, or in 8 bits, faster and with a little noise.",
    ),
  length: count(256, "Tokens of a packed row, and the longest sample."),
  batch: count(8, "Packed rows of a step."),
  steps: z.int().min(1).optional().describe("Updates in all; in place of epochs or minutes."),
  epochs: z
    .number()
    .positive()
    .optional()
    .describe("Passes over the samples; default: 1, where nothing else is named."),
  minutes: z.number().positive().optional().describe("Minutes by the clock; in place of epochs or steps."),
  learningRate: z.number().positive().optional().describe("Peak learning rate; the default is the method's."),
  schedule: z
    .enum(["cosine", "linear", "constant"])
    .default("cosine")
    .describe("How the learning rate falls after the warm-up."),
  warmUp: z.number().min(0).max(1).default(0.05).describe("Share of the steps in which the learning rate rises."),
  weightDecay: z.number().min(0).default(0).describe("Decoupled decay of matrices."),
  clip: z.number().positive().default(1).describe("Longest gradient, as Euclidean norm."),
  ema: z
    .number()
    .gt(0)
    .lt(1)
    .optional()
    .describe("Decay of an exponential moving average of the weights, which is then the result."),
  patience: z.int().min(1).optional().describe("Evaluations without improvement after which it stops."),
  keep: z.enum(["last", "best"]).default("last").describe("Which state is the result; best: by samples set aside."),
  evaluations: z.int().min(0).default(4).describe("How often it is measured on samples set aside while it trains."),
  recompute: z
    .boolean()
    .default(false)
    .describe("Compute the inside of blocks again in the backward sweep: less memory, more time."),
} satisfies z.ZodRawShape;

/** Of every method that reads samples from files. */
export const sampleFields = {
  data: files("Samples: .jsonl, packed or not; several files are read one after the other."),
  heldOut: z.int().min(0).default(64).describe("Samples set aside for measuring, by a seeded draw."),
  overlong: z
    .enum(["refuse", "drop", "truncate-left", "truncate-right"])
    .default("refuse")
    .describe("What becomes of samples longer than `length`."),
} satisfies z.ZodRawShape;

interface Bounds {
  trainable?: "lora" | "all";
  frozen?: "f32" | "int8";
  steps?: number | undefined;
  epochs?: number | undefined;
  minutes?: number | undefined;
}

/** A training has one end, and rounds only what it does not change. */
export function boundProblems({ steps, epochs, minutes, trainable, frozen }: Bounds): FieldProblem[] {
  const named = Object.entries({ steps, epochs, minutes }).filter(([, value]) => value !== undefined);
  const bounds = named.map(([name]) => name).join(", ");
  return [
    ...(named.length < 2 ? [] : [{ field: named[1]![0], message: `name one of ${bounds}, not all of them` }]),
    ...(frozen === "int8" && trainable === "all"
      ? [{ field: "frozen", message: "8 bits are for frozen matrices, and with `trainable: all` none is frozen" }]
      : []),
  ];
}

interface FieldProblem {
  field: string;
  message: string;
}
