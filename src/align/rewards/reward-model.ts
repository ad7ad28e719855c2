/** @module A reward model as a reward: the weighted sum of its attributes at the end of each answer. */
import { type BranchedSample, renderBranches, sampleLength } from "../../data/index.js";
import { readAllWeights } from "../../engine/index.js";
import { bodyOf, chatTemplateOf, type RewardModel, rewardHeadTensors } from "../../models/index.js";
import type { Runtime } from "../../runtime/index.js";
import { loadTokenizer } from "../../tokenizer/index.js";
import { aggregateReward } from "../reward.js";
import { createAttributeScorer, type RewardShape, rewardShape } from "../reward-model.js";
import type { RewardFunction, RewardItem, RewardScore } from "./types.js";

export interface RewardModelRewardOptions {
  /** Defaults to `reward model`. */
  name?: string;
  /** Tokens of prompt and answer at most; longer ones cannot be judged. Defaults to 1024. */
  length?: number;
  /** Rows that are computed together. Defaults to what holds 1024 tokens. */
  batch?: number;
}

/** What a reward model says of an answer: `null` where it is blank or too long. */
export type AttributesOfAnswers = (items: readonly RewardItem[], signal?: AbortSignal) => Promise<(number[] | null)[]>;

/** Reads the model's weights into memory; answers to one prompt share its computation. */
export async function openAttributeJudge(
  runtime: Runtime,
  { body, head }: RewardModel,
  {
    name = "reward model",
    length = 1024,
    batch = Math.max(1, Math.floor(1024 / length)),
  }: RewardModelRewardOptions = {},
): Promise<AttributesOfAnswers> {
  const model = bodyOf(body);
  const tokenizer = loadTokenizer(body.sidecars.tokenizer, body.path);
  const template = chatTemplateOf(body, tokenizer);
  const weights = { ...(await readAllWeights(model.config, model.weights)), ...rewardHeadTensors(head) };
  const architecture = { config: model.config, attributes: head.attributes.length, bias: head.bias !== undefined };
  const shape = rewardShape(batch, length);
  const score = createAttributeScorer(runtime, name.replace(/\W+/g, "_"), architecture, shape);
  return async (items, signal) => {
    signal?.throwIfAborted();
    const attributes = new Array<number[] | null>(items.length).fill(null);
    const samples: BranchedSample[] = [];
    const places: number[][] = [];
    for (const group of groupsOf(items)) {
      const answers = group.map((item) => items[item]!.answer);
      const together = renderBranches(template, tokenizer, items[group[0]!]!.prompt, answers, { where: name });
      for (const { sample, members } of fittingParts(together, shape)) {
        samples.push(sample);
        places.push(members.map((member) => group[member]!));
      }
    }
    if (samples.length === 0) return attributes;
    const scores = await score(samples, weights);
    for (const [i, own] of places.entries()) {
      for (const [branch, item] of own.entries()) attributes[item] = scores[i]![branch]!;
    }
    return attributes;
  };
}

/** A reward that `scoreAnswers` and reinforcement learning take. */
export async function createRewardModelReward(
  runtime: Runtime,
  model: RewardModel,
  options: RewardModelRewardOptions = {},
): Promise<RewardFunction> {
  const judge = await openAttributeJudge(runtime, model, options);
  const { weights } = model.head;
  const scalar = (attributes: number[] | null): RewardScore => attributes && aggregateReward(attributes, weights);
  return {
    name: options.name ?? "reward model",
    score: async (items, signal) => (await judge(items, signal)).map(scalar),
  };
}

/** Numbers of the items that have one prompt, those with a blank answer left out. */
function groupsOf(items: readonly RewardItem[]): number[][] {
  const groups = new Map<string, number[]>();
  for (const [i, { prompt, answer }] of items.entries()) {
    if (answer.trim() === "") continue;
    const key = JSON.stringify(prompt);
    const group = groups.get(key);
    if (group) group.push(i);
    else groups.set(key, [i]);
  }
  return [...groups.values()];
}

/** All branches behind one prompt where they fit a row together, else as few of them as fit; longer ones in none. */
function fittingParts(
  sample: BranchedSample,
  { length, sequences }: RewardShape,
): { sample: BranchedSample; members: number[] }[] {
  const parts: { sample: BranchedSample; members: number[] }[] = [];
  const { prompt } = sample;
  let open: number[] = [];
  let used = prompt.length;
  const close = () => {
    if (open.length === 0) return;
    parts.push({ sample: { prompt, branches: open.map((i) => sample.branches[i]!) }, members: open });
    [open, used] = [[], prompt.length];
  };
  for (const [i, branch] of sample.branches.entries()) {
    if (sampleLength({ prompt, branches: [branch] }) > length) continue;
    if (used + branch.ids.length > length || open.length === sequences) close();
    open.push(i);
    used += branch.ids.length;
  }
  close();
  return parts;
}
