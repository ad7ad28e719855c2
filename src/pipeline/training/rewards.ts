/** @module Rewards that a stage names by its fields, opened for as long as it works. */
import { createRewardModelReward, namedReward, type RewardItem, type WeightedReward } from "../../align/index.js";
import { messageOf, z } from "../../base/index.js";
import { constraintOfInstruction, type PromptTask } from "../../data/index.js";
import { openRewardModel } from "../../models/index.js";
import type { Runtime } from "../../runtime/index.js";
import { files } from "./fields.js";
import type { OptionsOf } from "./method.js";

export const rewardFields = {
  reward: files(
    "Rewards, which are summed: maths, constraints[:all], format[:opened], length:20-60[words], overlong:16, repetition, regex:PATTERN, module:FILE.js, judge:URL#MODEL; with a weight, such as maths*2.",
  ).optional(),
  rewardModel: z
    .string()
    .min(1)
    .optional()
    .describe("Reward model, which counts once beside them: a directory that `align reward` wrote, or stage:NAME."),
  rewardLength: z
    .int()
    .min(1)
    .default(1024)
    .describe("Tokens of the longest prompt and answer that the reward model judges."),
  rewardSeconds: z
    .number()
    .positive()
    .default(10)
    .describe("Longest time of a module, pattern or judge for one answer."),
} satisfies z.ZodRawShape;

export const rewardInputs = { rewardModel: "model" } as const;

/** Modules among the rewards: an edited one is another reward. */
export function rewardFiles({ reward = [] }: { reward?: readonly string[] | undefined }): string[] {
  return reward.flatMap((text) => /^module:(.*?)(?:\*-?\d+(?:\.\d+)?)?$/s.exec(text)?.[1] ?? []);
}

type RewardFields = OptionsOf<typeof rewardFields> & { maxTokens: number };

export function rewardProblems({ reward = [], rewardModel, ...limits }: RewardFields) {
  const problems: { field: string; message: string }[] = [];
  for (const text of reward) {
    try {
      namedReward(text, { maxTokens: limits.maxTokens });
    } catch (error) {
      problems.push({ field: "reward", message: messageOf(error) });
    }
  }
  if (reward.length === 0 && rewardModel === undefined)
    problems.push({ field: "reward", message: "name at least one, or a rewardModel" });
  return problems;
}

/** The rewards that the fields name. `dispose` ends their workers. */
export async function openRewards(
  runtime: Runtime,
  { reward = [], rewardModel, rewardLength, rewardSeconds, maxTokens }: RewardFields,
): Promise<{ rewards: WeightedReward[]; dispose(): Promise<void> }> {
  const rewards = reward.map((text) => namedReward(text, { maxTokens, timeoutSeconds: rewardSeconds }));
  if (rewardModel !== undefined) {
    const model = await openRewardModel(rewardModel);
    // Its weights are in memory once it is made.
    const making = createRewardModelReward(runtime, model, { length: rewardLength });
    rewards.push({ reward: await making.finally(() => model.body.close()) });
  }
  return {
    rewards,
    async dispose() {
      await Promise.all(rewards.map((one) => one.reward.dispose?.()));
    },
  };
}

/** What rewards may know of an answer to a task. */
export function rewardItemOf({ prompt, answer, constraints, fields }: PromptTask): Omit<RewardItem, "answer"> {
  const known = constraints?.flatMap(({ id, parameters }) => constraintOfInstruction(id, parameters) ?? []);
  return {
    prompt,
    data: fields,
    ...(answer !== undefined && { reference: answer }),
    ...(known && { constraints: known }),
  };
}
