import { mean } from "../../base/index.js";
import type { Runtime, Tensors } from "../../runtime/index.js";
import type { PackedModel } from "../../train/index.js";
import type { WeightedReward } from "../rewards/index.js";
import { type AnswerScorer, createAnswerScorer, packAnswers } from "./answer-scores.js";
import { judgeGroups, type PolicySampler, type PolicyTask } from "./rollout.js";
import { meanKl, policyShape } from "./training.js";

/** What the answers to one task are like. */
export interface TaskMeasure {
  /** Mean over the answers that could be judged; `undefined` where none could. */
  reward: number | undefined;
  /** Mean tokens of an answer. */
  length: number;
  /** Share of answers that ended by themselves. */
  ended: number;
  /** Nats a token. */
  entropy: number;
  /** From the reference, mean of k3 over the tokens; 0 without one. */
  kl: number;
  /** The first answer. */
  text: string;
}

export interface MeasureRequest {
  tasks: readonly PolicyTask[];
  sampler: PolicySampler;
  rewards: readonly WeightedReward[];
  /** Answers to each task. */
  samples: number;
  /** With the same seed the draws are the same, so that two measures are paired by task. */
  seed: number;
  /** Of the policy as it is. */
  weights: Tensors;
  reference?: Tensors;
  signal?: AbortSignal;
  /** Called as each answer ends. */
  onAnswer?: () => void;
}

/** Samples answers to every task, and measures each task. */
export type PolicyMeter = (request: MeasureRequest) => Promise<TaskMeasure[]>;

export function createPolicyMeter(runtime: Runtime, name: string, model: PackedModel, length: number): PolicyMeter {
  const shape = policyShape(length);
  const score: AnswerScorer = createAnswerScorer(runtime, name, model, shape);
  return async ({ tasks, sampler, rewards, samples, seed, weights, reference, signal, onAnswer }) => {
    const chosen = tasks.map((_, task) => task);
    const drawn = await sampler({ tasks, chosen, samples, seed, signal, onAnswer });
    const groups = await judgeGroups({ tasks, chosen, signal }, drawn, rewards);
    let number = 0;
    const numbered = groups.map(({ task, answers }) => ({
      prompt: tasks[task]!.ids,
      answers: answers.map(({ ids }) => ({ ids, number: number++ })),
    }));
    const packed = packAnswers(numbered, shape);
    const policy = await score(packed, weights, signal);
    const before = reference && (await score(packed, reference, signal));
    return groups.map(({ answers }, i) => {
      const own = numbered[i]!.answers.map((answer) => answer.number);
      const logProbs = (scores: typeof policy) => own.map((n) => scores[n]!.logProbs);
      const known = answers.flatMap(({ reward }) => (reward === null ? [] : [reward]));
      return {
        reward: known.length === 0 ? undefined : mean(known),
        length: mean(answers.map(({ ids }) => ids.length)),
        ended: mean(answers.map(({ ended }) => Number(ended))),
        entropy: mean(own.map((n) => policy[n]!.entropy)),
        kl: before ? meanKl(logProbs(policy), logProbs(before)) : 0,
        text: answers[0]!.text,
      };
    });
  };
}
