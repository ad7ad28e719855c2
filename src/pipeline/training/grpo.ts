import { grpoObjective } from "../../align/index.js";
import { z } from "../../base/index.js";
import { defineMethod } from "./method.js";
import { policyFields, policyProblems, runPolicyGradient } from "./policy-gradient.js";
import { rewardFiles, rewardInputs } from "./rewards.js";

const fields = {
  ...policyFields,
  loss: z
    .enum(["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo", "sapo", "luspo"])
    .default("dapo")
    .describe("Loss of a token and what it is averaged over; by TRL's names."),
  scale: z
    .enum(["group", "batch", "none", "others"])
    .default("group")
    .describe("What advantages are divided by: a deviation, or nothing; `others` is NeMo-RL's leave-one-out."),
  beta: z.number().min(0).default(0.01).describe("Factor of the KL from the start; 0 computes no reference."),
  kl: z.enum(["k1", "k2", "k3"]).default("k3").describe("Estimator of the KL."),
  klWeight: z
    .enum(["plain", "score", "ratio"])
    .default("plain")
    .describe("`score` keeps the gradient through the sampling, `ratio` corrects for the updates."),
  epsilonLow: z.number().positive().max(1).default(0.2).describe("The ratio is clipped from below at 1 - this."),
  epsilonHigh: z
    .number()
    .positive()
    .optional()
    .describe("The ratio is clipped from above at 1 + this (cispo: at this); default: 0.2 (cispo: 5)."),
  delta: z.number().gt(1).optional().describe("Bound of the ratio that is not clipped otherwise; default: none."),
  updatesPerRollout: z.int().min(1).default(1).describe("Updates on the same answers."),
  dropTruncated: z.boolean().default(false).describe("Learn nothing from answers that were cut."),
};

/** Group-relative policy optimisation and its variants. */
export const grpo = defineMethod({
  group: "align",
  summary: "learn from rewards of the model's own answers (GRPO and its variants)",
  example: "models/chat --data prompts.jsonl --reward constraints --steps 100 --out out/grpo",
  fields,
  inputs: { data: "file", ...rewardInputs },
  reads: rewardFiles,
  makes: "policy",
  version: 1,
  problems: policyProblems,
  run(work) {
    const { updatesPerRollout, epsilonHigh, delta, ...options } = work.options;
    const objective = grpoObjective({
      ...options,
      updates: updatesPerRollout,
      ...(epsilonHigh !== undefined && { epsilonHigh }),
      ...(delta !== undefined && { delta }),
    });
    return runPolicyGradient(work, objective);
  },
});
