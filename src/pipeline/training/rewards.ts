/** @module Rewards that a stage names by its fields, opened for as long as it works. */
import {
  constraintsReward,
  createJudgeReward,
  createModuleReward,
  createRewardModelReward,
  mathsReward,
  type RewardFunction,
  type RewardItem,
  type WeightedReward,
} from "../../align/index.js";
import { z } from "../../base/index.js";
import { constraintOfInstruction, type PromptTask } from "../../data/index.js";
import { openRewardModel } from "../../models/index.js";
import type { Runtime } from "../../runtime/index.js";
import type { OptionsOf } from "./method.js";

const ruleRewards = { maths: () => mathsReward(), constraints: () => constraintsReward() } as const;

export const rewardFields = {
  reward: z.string().min(1).optional().describe("Reward model: a directory, or stage:NAME."),
  rules: z
    .array(z.enum(["maths", "constraints"]))
    .min(1)
    .optional()
    .describe("Rules: maths (the answer equals that of the data), constraints (the share of them that is met)."),
  module: z.string().min(1).optional().describe("A module of your own whose default export judges one answer."),
  judge: z.url().optional().describe("Judge behind an OpenAI-compatible server, such as http://127.0.0.1:8080/v1."),
  judgeModel: z.string().min(1).default("judge").describe("Name of the judge's model at its server."),
  rewardLength: z
    .int()
    .min(1)
    .default(1024)
    .describe("Tokens of the longest prompt and answer that the reward model judges."),
} satisfies z.ZodRawShape;

export const rewardInputs = { reward: "model", module: "file" } as const;

type RewardFields = OptionsOf<typeof rewardFields>;

export function rewardProblems({ reward, rules, module, judge }: RewardFields): { field: string; message: string }[] {
  if (reward !== undefined || rules || module !== undefined || judge !== undefined) return [];
  return [{ field: "reward", message: "name at least one of reward, rules, module, judge" }];
}

/** The rewards that the fields name, each with weight 1. `dispose` ends their workers. */
export async function openRewards(
  runtime: Runtime,
  { reward, rules = [], module, judge, judgeModel, rewardLength }: RewardFields,
): Promise<{ rewards: WeightedReward[]; dispose(): Promise<void> }> {
  const opened: RewardFunction[] = rules.map((rule) => ruleRewards[rule]());
  if (reward !== undefined) {
    const model = await openRewardModel(reward);
    // Its weights are in memory once it is made.
    const making = createRewardModelReward(runtime, model, { length: rewardLength });
    opened.push(await making.finally(() => model.body.close()));
  }
  if (module !== undefined) opened.push(createModuleReward(module));
  if (judge !== undefined) opened.push(createJudgeReward({ url: judge, model: judgeModel }));
  return {
    rewards: opened.map((one) => ({ reward: one })),
    async dispose() {
      await Promise.all(opened.map((one) => one.dispose?.()));
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
