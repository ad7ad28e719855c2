/**
 * @module What makes a policy gradient GRPO or REINFORCE: advantages from rewards, and the loss of the answers' tokens.
 * The loss of a step divides by the answers or tokens of the whole step, however they are spread over passes.
 */
import type { GraphBuilder, Value } from "../../graph/index.js";
import type { PackedTokens } from "../../train/index.js";
import { groupAdvantages, scaledAdvantages } from "../advantages.js";
import { type PolicyKl, policyLoss, type TrlLossType, trlPolicy } from "../grpo.js";
import type { KlKind } from "../kl.js";
import { reinforceAdvantages, reinforceLoss, rlooLoss } from "../reinforce.js";
import type { RewardScore } from "../rewards/index.js";

/** An answer as advantages see it. */
export interface ValuedAnswer {
  reward: RewardScore;
  tokens: number;
  ended: boolean;
  /** Log-probabilities of its tokens, where the objective asks for the reference. */
  policy?: Float32Array;
  reference?: Float32Array;
}

export interface AnswerValues {
  /** Of each answer. */
  advantages: Float64Array;
  /** 1 for answers that count, else 0. */
  weights: Float64Array;
  /** What the loss of the step is divided by. */
  denominator: number;
}

/** What the loss sees besides the tokens: advantages and weights [S], log-probabilities [N]. */
export interface ObjectiveInputs {
  advantages: Value;
  weights: Value;
  old: Value;
  reference: Value;
}

export interface PolicyObjective {
  /** Whether the reference's log-probabilities are needed. Where not, answers without advantage are left out of all passes. */
  reference: boolean;
  /** Updates on one rollout. */
  updates: number;
  /** @param groups answers to each prompt */
  valuesOf(groups: readonly (readonly ValuedAnswer[])[]): AnswerValues;
  lossOf(g: GraphBuilder, tokens: PackedTokens, inputs: ObjectiveInputs, denominator: Value): Value;
}

export interface GrpoOptions {
  /** By TRL's names; `bnpo` and `dapo` divide alike, as a step is one batch here. Defaults to `dapo`. */
  loss?: TrlLossType;
  /** Bounds of the ratio, 1 - low and 1 + high; of `cispo` the upper one is the bound itself. Default to 0.2 (`cispo`: 5). */
  epsilonLow?: number;
  epsilonHigh?: number;
  /** Bound of the unclipped ratio. Defaults to none. */
  delta?: number;
  /** Factor of the KL in the loss. Defaults to 0: no reference. */
  beta?: number;
  /** Defaults to `k3`. */
  kl?: Exclude<KlKind, "abs">;
  /** `score` keeps the gradient through the sampling (NeMo-RL), `ratio` is TRL's bias correction. Defaults to `plain`. */
  klWeight?: "plain" | "score" | "ratio";
  /**
   * What a reward less its baseline is divided by: the deviation of the group, of the batch, nothing (Dr. GRPO), or that of
   * the group's other answers, whose mean is then the baseline (NeMo-RL). Defaults to `group`.
   */
  scale?: "group" | "batch" | "none" | "others";
  /** Most tokens of an answer, for `dr_grpo`. */
  maxTokens: number;
  /** Updates on one rollout. Defaults to 1. */
  updates?: number;
  /** Leave answers out that did not end (DAPO's overlong filtering). Defaults to false. */
  dropTruncated?: boolean;
}

const byTokens: ReadonlySet<TrlLossType> = new Set(["bnpo", "dapo", "cispo"]);

export function grpoObjective(options: GrpoOptions): PolicyObjective {
  const { loss = "dapo", beta = 0, kl: kind = "k3", klWeight = "plain", scale = "group", updates = 1 } = options;
  const { epsilonLow = 0.2, epsilonHigh = loss === "cispo" ? 5 : 0.2, delta, maxTokens, dropTruncated } = options;
  const kl: PolicyKl = { beta, kind, ...(klWeight !== "plain" && { weight: klWeight }) };
  return {
    reference: beta > 0,
    updates,
    valuesOf(groups) {
      const answers = groups.flat();
      const counts = ({ reward, ended }: ValuedAnswer) => reward !== null && (ended || !dropTruncated);
      const rewards = answers.map(({ reward }) => reward ?? Number.NaN);
      const numbers = groupNumbers(groups);
      const advantages =
        scale === "others" ? scaledAdvantages(rewards, numbers) : groupAdvantages(rewards, numbers, { scale });
      const weights = Float64Array.from(answers, (answer) => Number(counts(answer)));
      const sizes = answers.filter(counts).map(({ tokens }) => (byTokens.has(loss) ? tokens : 1));
      return { advantages, weights, denominator: sizes.reduce((sum, size) => sum + size, 0) };
    },
    lossOf(g, { logProbs, membership }, inputs, denominator) {
      const shared = {
        epsilonLow,
        epsilonHigh,
        maxLength: maxTokens,
        denominator,
        ...(delta !== undefined && { delta }),
      };
      const settings = { ...trlPolicy(loss, shared), ...(beta > 0 && { kl }) };
      return policyLoss(g, { logProbs, membership, ...inputs }, settings).loss;
    },
  };
}

export interface ReinforceObjectiveOptions {
  /** See `reinforceAdvantages`. Defaults to `aligner`. */
  compat?: "aligner" | "trl";
  /** Factor of the KL in the reward. Defaults to the convention's. */
  penalty?: number;
}

/** With `aligner` answers that did not end are neither learnt nor in the baseline, but stay in the mean. */
export function reinforceObjective({ compat = "aligner", penalty }: ReinforceObjectiveOptions = {}): PolicyObjective {
  return {
    reference: true,
    updates: 1,
    valuesOf(groups) {
      const answers = groups.flat();
      const numbers = groupNumbers(groups);
      const judged = answers.flatMap(({ reward }, i) => (reward === null ? [] : [i]));
      const rollouts = judged.map((i) => {
        const { reward, policy, reference, ended } = answers[i]!;
        return { reward: reward!, policy: policy!, reference: reference!, ended };
      });
      const settings = { compat, ...(penalty !== undefined && { penalty }) };
      const values = reinforceAdvantages(
        rollouts,
        judged.map((i) => numbers[i]!),
        settings,
      );
      const advantages = new Float64Array(answers.length);
      const weights = new Float64Array(answers.length);
      judged.forEach((answer, i) => {
        advantages[answer] = values.advantages[i]!;
        weights[answer] = Number(compat === "trl" || answers[answer]!.ended);
      });
      return { advantages, weights, denominator: judged.length };
    },
    lossOf(g, { logProbs, membership }, { advantages, weights, old }, denominator) {
      const tokens = { logProbs, membership };
      if (compat === "trl") return rlooLoss(g, tokens, old, advantages, { weights, denominator }).loss;
      return reinforceLoss(g, tokens, advantages, weights, { denominator }).loss;
    },
  };
}

function groupNumbers(groups: readonly (readonly unknown[])[]): Int32Array {
  return Int32Array.from(groups.flatMap((group, i) => group.map(() => i)));
}
