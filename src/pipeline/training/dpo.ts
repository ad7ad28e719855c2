import { type Divergence, type PreferenceKind, preferenceKinds, preferenceObjective } from "../../align/index.js";
import { z } from "../../base/index.js";
import { boundProblems } from "./fields.js";
import { defineMethod } from "./method.js";
import { preferenceFields, termsOf, trainOnPairs } from "./preferences.js";

const divergences = [
  "reverse_kl",
  "forward_kl",
  "js_divergence",
  "alpha_divergence",
] as const satisfies readonly Divergence[];

const fields = {
  ...preferenceFields,
  kind: z
    .enum(preferenceKinds as readonly [PreferenceKind, ...PreferenceKind[]])
    .default("sigmoid")
    .describe("Loss of a pair: sigmoid is DPO; see docs/align.md for the others."),
  labelSmoothing: z
    .number()
    .min(0)
    .lt(1)
    .default(0)
    .describe("Share of pairs taken for mislabelled, in cdpo, robust, exo_pair, aot and aot_unpaired."),
  discopopTau: z.number().gt(0).max(1).default(0.05).describe("Temperature of the blend in discopop."),
  divergence: z.enum(divergences).default("reverse_kl").describe("Function of the log-ratio that takes its place."),
  divergenceAlpha: z.number().default(0.5).describe("Exponent of alpha_divergence."),
};

/** Losses that compare the pairs of a pass with each other. */
const sorting: readonly PreferenceKind[] = ["aot", "aot_unpaired"];
/** Losses that read `labelSmoothing`. */
const smoothing: readonly PreferenceKind[] = ["cdpo", "robust", "exo_pair", ...sorting];

/** Direct preference optimisation and its kin, against the model that the stage begins with. */
export const dpo = defineMethod({
  group: "align",
  summary: "align with preference pairs (DPO and its variants)",
  example: "models/chat --data pairs.jsonl --beta 0.1 --out out/dpo",
  fields,
  inputs: { data: "file" },
  makes: "policy",
  version: 1,
  problems: ({ steps, epochs, minutes, kind, labelSmoothing }) => {
    const problem = (message: string) => ({ field: "labelSmoothing", message });
    return [
      ...boundProblems({ steps, epochs, minutes }),
      ...(labelSmoothing > 0 && !smoothing.includes(kind) ? [problem(`${kind} does not read it; cdpo does`)] : []),
      ...(kind === "exo_pair" && labelSmoothing === 0 ? [problem("exo_pair needs more than 0, such as 1e-3")] : []),
      ...(kind === "robust" && labelSmoothing >= 0.5 ? [problem("robust needs less than 0.5")] : []),
    ];
  },
  run(work) {
    const { kind, labelSmoothing, discopopTau, divergence, divergenceAlpha: alpha } = work.options;
    const terms = { ...termsOf(work.options), kind, labelSmoothing, discopopTau, divergence, alpha };
    return trainOnPairs(work, {
      objective: (shape) => preferenceObjective(terms, shape),
      onePass: sorting.includes(kind),
    });
  },
});
