/**
 * @module Rollouts: answers of the policy as it is now, and what they are worth. Weights reach the sampler in memory.
 *
 * Tokens are drawn from the whole distribution (temperature aside): with top-k or top-p the probabilities that training
 * computes would not be those that the tokens were drawn with.
 */
import { EspalierError, internal } from "../../base/index.js";
import { createBatchGenerator, roundMatrices } from "../../engine/index.js";
import { loraWeights, type ModelConfig, modelWeights } from "../../models/index.js";
import type { Runtime } from "../../runtime/index.js";
import type { F32Tensor } from "../../tensor/index.js";
import { createLiveWeights, type Tuning } from "../../train/index.js";
import { type RewardItem, type RewardScore, scoreAnswers, type WeightedReward } from "../rewards/index.js";

/** A prompt whose answers can be judged. */
export interface PolicyTask {
  ids: Int32Array;
  /** What rewards know about it. */
  item: Omit<RewardItem, "answer" | "tokens">;
}

export interface PolicyAnswer {
  /** With the stop token that ended it, if one did. */
  ids: Int32Array;
  text: string;
  /** False: cut at its bound of tokens, or by the end of the context. */
  ended: boolean;
}

export interface JudgedPolicyAnswer extends PolicyAnswer {
  reward: RewardScore;
  /** Before weights, by the reward's name. */
  parts: Record<string, RewardScore>;
}

/** Answers to one task. */
export interface AnswerGroup {
  /** Number of the task. */
  task: number;
  answers: JudgedPolicyAnswer[];
}

export interface PolicySamplerOptions {
  runtime: Runtime;
  config: ModelConfig;
  tuning: Pick<Tuning, "lora" | "weights">;
  /**
   * Draws new tokens with the frozen matrices in 8 bits, beside an adapter in f32: a fraction of the time for few sequences,
   * and a distribution that is not quite the policy's. Defaults to false.
   */
  int8?: boolean;
  decode: (ids: ArrayLike<number>) => string;
  /** Ids that end an answer. */
  stop: readonly number[];
  /** Most tokens of an answer. */
  maxTokens: number;
  /** Defaults to 1. */
  temperature?: number;
  /** Sequences that decode together. Defaults to 32. */
  width?: number;
}

export interface SampleRequest {
  tasks: readonly PolicyTask[];
  /** Numbers of the tasks that are to be answered. */
  chosen: readonly number[];
  /** Answers to each. */
  samples: number;
  /** With the same seed and weights a task has the same answers, whatever else is asked. */
  seed: number;
  signal?: AbortSignal | undefined;
  /** Called as each answer ends. */
  onAnswer?: (() => void) | undefined;
}

/** Answers to each chosen task from the weights as they are when it is called. */
export type PolicySampler = (request: SampleRequest) => Promise<PolicyAnswer[][]>;

export function createPolicySampler(options: PolicySamplerOptions): PolicySampler {
  const { decode, stop, maxTokens, temperature = 1 } = options;
  const { generator, update } = createGenerator(options);
  const stops = new Set(stop);
  return async ({ tasks, chosen, samples, seed, signal, onAnswer }) => {
    await update();
    const prompts = chosen.map((task) => ({ ids: tasks[task]!.ids, samples, key: task }));
    const drawn = await generator.generate(prompts, {
      ...{ temperature, maxTokens, stop, seed },
      ...(signal && { signal }),
      ...(onAnswer && { onEnd: () => onAnswer() }),
    });
    return drawn.map((answers) =>
      answers.map(({ ids, finish }) => {
        const text = decode(stops.has(ids.at(-1)!) ? ids.subarray(0, -1) : ids);
        return { ids, text, ended: finish === "stop" };
      }),
    );
  };
}

/** A generator from the weights as they are after `update`. */
function createGenerator({ runtime, config, tuning, int8 = false, width = 32 }: PolicySamplerOptions) {
  if (!int8) {
    const live = createLiveWeights(runtime, config, tuning);
    return { generator: createBatchGenerator(runtime, config, live.tensors, { width }), update: () => live.update() };
  }
  const { lora = internal("8 bits without an adapter") } = tuning;
  const names = [...modelWeights(config), ...loraWeights(config, lora)].map(({ name }) => name);
  const weights = tuning.weights() as Record<string, F32Tensor>;
  const own = Object.fromEntries(names.map((name) => [name, weights[name]!]));
  const rounded = roundMatrices(config, weights);
  return { generator: createBatchGenerator(runtime, config, own, { width, lora, rounded }), update: async () => {} };
}

/**
 * Judges the answers to the chosen tasks.
 *
 * @throws EspalierError the failure of a reward, and where no reward could judge any answer
 */
export async function judgeGroups(
  { tasks, chosen, signal }: Pick<SampleRequest, "tasks" | "chosen" | "signal">,
  answers: readonly (readonly PolicyAnswer[])[],
  rewards: readonly WeightedReward[],
): Promise<AnswerGroup[]> {
  const items = answers.flatMap((group, i) =>
    group.map(({ text, ids }) => ({ ...tasks[chosen[i]!]!.item, answer: text, tokens: ids.length })),
  );
  const { totals, parts } = await scoreAnswers(rewards, items, signal);
  if (totals.every((total) => total === null)) throw nothingJudged(rewards);
  let at = 0;
  return answers.map((group, i) => ({
    task: chosen[i]!,
    answers: group.map((answer) => {
      const own = at++;
      const scores = Object.fromEntries(Object.entries(parts).map(([name, all]) => [name, all[own]!]));
      return { ...answer, reward: totals[own]!, parts: scores };
    }),
  }));
}

function nothingJudged(rewards: readonly WeightedReward[]): EspalierError {
  return new EspalierError({
    where: `rewards ${rewards.map(({ reward }) => reward.name).join(", ")}`,
    expected: "a score for some answer",
    found: "none: the prompts have nothing that these rewards judge by",
    fix: "give the prompts an answer, constraints or what else the rewards need, or name other rewards",
    exitCode: 2,
  });
}

/** Whether a group teaches nothing by itself: all its rewards are one, or at most one answer could be judged. */
export function isAlike({ answers }: AnswerGroup): boolean {
  const known = answers.flatMap(({ reward }) => (reward === null ? [] : [reward]));
  return known.every((reward) => reward === known[0]);
}
