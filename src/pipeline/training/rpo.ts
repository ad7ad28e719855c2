import { type RewardDistance, rewardAwareObjective } from "../../align/index.js";
import { EspalierError, z } from "../../base/index.js";
import type { PreferencePair } from "../../data/index.js";
import { boundProblems } from "./fields.js";
import { defineMethod } from "./method.js";
import { preferenceFields, termsOf, trainOnPairs } from "./preferences.js";

const distances = ["bwd_kl", "fwd_kl", "sq"] as const satisfies readonly RewardDistance[];

const fields = {
  ...preferenceFields,
  distance: z
    .enum(distances)
    .default("bwd_kl")
    .describe("Distance of the implicit reward gap from the rewards' gap; the names are NVIDIA's."),
  eta: z.number().positive().default(1).describe("Factor of the rewards' gap."),
  missingRewards: z
    .enum(["refuse", "one-zero"])
    .default("refuse")
    .describe("Pairs without rewards: an error, or 1 for the chosen answer and 0 for the rejected one."),
};

/** Reward-aware preference optimisation: the implicit reward gap is drawn to the rewards' gap, not to infinity. */
export const rpo = defineMethod({
  group: "align",
  summary: "align with preference pairs and their rewards (RPO)",
  example: "models/chat --data pairs.jsonl --eta 1 --out out/rpo",
  fields,
  inputs: { data: "file" },
  makes: "policy",
  version: 1,
  problems: boundProblems,
  run(work) {
    const { distance, eta, missingRewards } = work.options;
    const terms = { ...termsOf(work.options), distance, eta };
    return trainOnPairs(work, {
      objective: (shape) => rewardAwareObjective(terms, shape),
      gapOf: (pair) => rewardGap(pair, missingRewards),
    });
  },
});

function rewardGap({ scores, where = "a pair" }: PreferencePair, missing: "refuse" | "one-zero"): number {
  if (scores) return scores.chosen - scores.rejected;
  if (missing === "one-zero") return 1;
  throw new EspalierError({
    where,
    expected: "the rewards of both answers (`chosen_reward`, `rejected_reward`)",
    found: "none",
    fix: "rank the answers with a reward, or take 1 and 0 with `missingRewards: one-zero` (--missing-rewards one-zero)",
    exitCode: 2,
  });
}
