import { reinforceObjective } from "../../align/index.js";
import { z } from "../../base/index.js";
import { defineMethod } from "./method.js";
import { policyFields, policyProblems, runPolicyGradient } from "./policy-gradient.js";
import { rewardFiles, rewardInputs } from "./rewards.js";

const fields = {
  ...policyFields,
  compat: z
    .enum(["aligner", "trl"])
    .default("aligner")
    .describe(
      "`aligner`: KL as the mean over tokens, answers that were cut not learnt; `trl`: KL as the sum, ratio of answers.",
    ),
  penalty: z
    .number()
    .min(0)
    .optional()
    .describe("Factor of the KL from the start in the reward; default: 0.01 (trl: 0.05)."),
};

/** REINFORCE with a leave-one-out baseline and the KL in the reward, as HelpSteer2-Preference has it. */
export const reinforce = defineMethod({
  group: "align",
  summary: "learn from rewards of the model's own answers (REINFORCE, leave-one-out baseline)",
  example: "models/chat --data prompts.jsonl --reward constraints --steps 100 --out out/reinforce",
  fields,
  inputs: { data: "file", ...rewardInputs },
  reads: rewardFiles,
  makes: "policy",
  version: 1,
  problems: policyProblems,
  run(work) {
    const { compat, penalty } = work.options;
    return runPolicyGradient(work, reinforceObjective({ compat, ...(penalty !== undefined && { penalty }) }));
  },
});
