/**
 * @module All golden cases of losses (test/golden/losses.json): each through the function that computes it, in float64
 * and, where it is a graph, by ONNX Runtime. Every field of `expected` is compared; a case that no row of the table
 * computes, or a field that it leaves out, fails.
 */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { repositoryPath } from "../base/testing.js";
import type { Value } from "../graph/index.js";
import { createRuntime, type Runtime } from "../runtime/index.js";
import {
  fineTuningLoss,
  jensenShannon,
  type KlDirection,
  softCrossEntropy,
  targetLogProbs,
  topKDivergence,
  weightedMean,
} from "../train/index.js";
import * as align from "./index.js";
import {
  buildLoss,
  type Computed,
  flat,
  type Inputs,
  inFloat64,
  inRuntime,
  membershipOf,
  type Nested,
} from "./testing.js";

interface Case {
  id: string;
  family: string;
  inputs: Record<string, Nested>;
  // biome-ignore lint/suspicious/noExplicitAny: parameters differ from case to case
  params: Record<string, any>;
  expected: Record<string, Nested>;
}

type Rows = readonly (readonly number[])[];
const { cases } = JSON.parse(readFileSync(repositoryPath("test/golden/losses.json"), "utf8")) as { cases: Case[] };

/** A loss in a graph, or plain numbers. */
type Compute =
  | { graph: (inputs: Inputs, c: Case) => Computed }
  | { plain: (c: Case) => Record<string, Nested | Float64Array> };

const table: readonly (readonly [id: RegExp, compute: Compute])[] = [
  [/^logp\.shift/, { graph: shiftedLogProbs }],
  [/^dpo\.trl\.f_/, { graph: summedPairs }],
  [/^dpo\.(trl|openrlhf)\./, { graph: summedPairs }],
  [/^dpo\.nemo_rl\./, { graph: nemoRlDpo }],
  [/^rpo\.aligner\.packed/, { graph: packedRpo }],
  [/^rpo\.aligner\./, { graph: alignerRpo }],
  [/^rpo\.property\./, { graph: distances }],
  [/^rm\.aligner\..*_bt$/, { graph: alignerBradleyTerry }],
  [/^rm\.aligner\.regression/, { graph: regression }],
  [/^rm\.aggregate/, { plain: aggregates }],
  [/^rm\.trl\./, { graph: trlReward }],
  [/^rm\.head/, { graph: rewardHeads }],
  [/^rm\.expo/, { plain: expo }],
  [/^kl\.k[123]/, { graph: klEstimates }],
  [/^kl\.aligner_abs/, { graph: absoluteKl }],
  [/^adv\.aligner\.rloo/, { plain: alignerBaseline }],
  [/^adv\.aligner\.gae/, { plain: gae }],
  [/^adv\.nemo_rl\./, { plain: nemoRlAdvantages }],
  [/^adv\.trl\.(grpo|gdpo)/, { plain: trlAdvantages }],
  [/^adv\.trl\.rloo/, { plain: trlRloo }],
  [/^rloo\.trl\.sequence/, { graph: sequenceRloo }],
  [/^reinforce\.aligner/, { graph: alignerReinforce }],
  [/^grpo\.trl\./, { graph: trlGrpo }],
  [/^grpo\.nemo_rl\./, { graph: nemoRlGrpo }],
  [/^reward\.dapo_overlong/, { plain: overlong }],
  [/^sft\.masked_ce/, { graph: maskedCrossEntropy }],
  [/^sft\.gradient_accumulation/, { graph: accumulation }],
  [/^kd\.trl\.gjsd/, { graph: gjsd }],
  [/^kd\.openrlhf\.soft/, { graph: softTargets }],
  [/^kd\.(aligner|nemo_rl)\./, { graph: topK }],
];

const rows = (x: Nested | undefined) => x as Rows;
const numbers = (x: Nested | undefined) => x as readonly number[];

/** Rows of tokens as one flat group. */
function group({ input }: Inputs, logProbs: Rows, mask: Rows): align.TokenGroup {
  return { logProbs: input(logProbs, [flat(logProbs).length]), membership: input(membershipOf(mask)) };
}

function shiftedLogProbs({ g, input, ids }: Inputs, { inputs }: Case): Computed {
  const logits = (inputs.logits as unknown as Rows[]).map((row) => row.slice(0, -1));
  const mask = rows(inputs.completion_mask).map((row) => row.slice(1));
  const targets = rows(inputs.input_ids).flatMap((row) => row.slice(1));
  const width = logits[0]![0]!.length;
  const logProbs = targetLogProbs(g, input(logits, [targets.length, width]), ids(targets));
  const membership = input(membershipOf(mask));
  return {
    values: {
      per_token_logps: logProbs,
      seq_logps_sum: align.sumPerSequence(g, membership, logProbs),
      seq_logps_avg: align.meanPerSequence(g, membership, logProbs),
      completion_lengths: align.sequenceLengths(g, membership),
    },
  };
}

function summedPairs({ g, input }: Inputs, { id, inputs, params }: Case): Computed {
  const [, compat, name] = id.split(".") as [string, align.Compat, string];
  const [chosen, rejected] = [input(inputs.policy_chosen_logps!), input(inputs.policy_rejected_logps!)];
  const lengths = inputs.chosen_lengths
    ? { chosenLengths: input(inputs.chosen_lengths), rejectedLengths: input(inputs.rejected_lengths!) }
    : {};
  const reference = { refChosen: input(inputs.ref_chosen_logps!), refRejected: input(inputs.ref_rejected_logps!) };
  const kind = name.startsWith("f_") ? "sigmoid" : name.replace("ipo_sum", "ipo").replace(/^cdpo.*/, "cdpo");
  const loss = align.preferenceLoss(
    g,
    { chosen, rejected, ...reference, ...lengths },
    {
      kind: kind as align.PreferenceKind,
      compat,
      beta: params.beta,
      labelSmoothing: params.label_smoothing ?? 0,
      ...(params.discopop_tau && { discopopTau: params.discopop_tau }),
      ...(name.startsWith("f_") && { divergence: name.slice(2) as align.Divergence }),
    },
  );
  return {
    values: {
      loss: loss.loss,
      per_pair: loss.perPair,
      rewards_chosen: loss.rewards.chosen,
      rewards_rejected: loss.rewards.rejected,
      accuracy: loss.accuracy,
    },
    gradients: { grad_policy_chosen: [loss.loss, chosen], grad_policy_rejected: [loss.loss, rejected] },
  };
}

function nemoRlDpo(t: Inputs, { inputs, params }: Case): Computed {
  const mask = rows(inputs.token_mask).map((row) => row.slice(1));
  const tokens = group(t, rows(inputs.next_token_logprobs), mask);
  const reference = t.input(rows(inputs.reference_policy_logprobs).flatMap((row) => row.slice(0, -1)));
  const valid = numbers(inputs.sample_mask).filter((_, i) => i % 2 === 0);
  const average = params.average_log_probs as boolean;
  const { loss, parts } = align.preferenceLoss(t.g, align.pairsOfTokens(t.g, tokens, reference), {
    compat: "nemo-rl",
    beta: params.beta,
    average,
    weights: t.input(valid),
    denominator: t.input((inputs.global_valid_seqs as number) / 2),
    sft: { weight: params.sft_loss_weight, reduction: average ? "mean" : "sum" },
  });
  return {
    // The reference does not compute the term where its weight is 0.
    values: {
      loss,
      preference_loss: parts.preference,
      sft_loss: params.sft_loss_weight ? parts.sft! : t.g.scalar(0),
    },
    gradients: { grad_next_token_logprobs: [loss, tokens.logProbs] },
  };
}

function alignerRpo(t: Inputs, { id, inputs, params }: Case): Computed {
  const { g } = t;
  const mask = rows(inputs.labels).map((row) => row.map((label) => (label === -100 ? 0 : 1)));
  const tokens = group(t, rows(inputs.policy_logps), mask);
  const pairs = align.pairsOfTokens(g, tokens, t.input(flat(inputs.ref_logps!)), "halves");
  const [chosen, rejected] = align.splitPairs(g, t.input(inputs.gt_rewards!), "halves");
  const options = {
    compat: "aligner" as const,
    beta: params.beta as number,
    average: (params.average_log_probs as boolean) ?? false,
    ...(params.sft_loss_weight && { sft: { weight: params.sft_loss_weight as number } }),
    weight: (params.preference_loss_weight as number) ?? 1,
  };
  const name = id.split(".")[2]!;
  const distance = (id.includes("plus_sft") ? "bwd_kl" : name.replace("rpo_", "")) as align.RewardDistance;
  const plain = { dpo: "sigmoid", ipo: "ipo" } as const;
  const result =
    name === "dpo" || name === "ipo"
      ? align.preferenceLoss(g, pairs, { ...options, kind: plain[name] })
      : align.rewardAwareLoss(g, pairs, g.sub(chosen, rejected), { ...options, distance, eta: params.gt_reward_scale });
  const { loss, perPair, parts, rewards, accuracy } = result;
  return {
    values: {
      loss,
      per_pair: perPair,
      acc: accuracy,
      implicit_reward_delta: g.scale(g.sub(rewards.chosen, rewards.rejected), 1 / options.beta),
      preference_loss: parts.preference,
      ...(parts.sft && { sft_loss: parts.sft }),
    },
    gradients: { grad_policy_logps: [loss, tokens.logProbs] },
  };
}

function packedRpo({ g, input }: Inputs, { inputs, params }: Case): Computed {
  const bounds = numbers(inputs.cu_seqlens);
  const positions = numbers(inputs.packed_policy_logps).map((_, n) => n);
  const membership = bounds.slice(1).map((end, s) => positions.map((n) => Number(n >= bounds[s]! && n < end)));
  const tokens = { logProbs: input(inputs.packed_policy_logps!), membership: input(membership) };
  const [chosen, rejected] = align.splitPairs(g, input(inputs.gt_rewards_interleaved!), "interleaved");
  const pairs = align.pairsOfTokens(g, tokens, input(inputs.packed_ref_logps!));
  const options = { compat: "aligner", beta: params.beta, eta: params.gt_reward_scale } as const;
  const { loss, perPair } = align.rewardAwareLoss(g, pairs, g.sub(chosen, rejected), options);
  return { values: { loss, per_pair: perPair } };
}

function distances({ g, input }: Inputs, { id, inputs, params }: Case): Computed {
  const distance = id.includes("sq") ? "sq" : id.includes("fwd_kl") ? "fwd_kl" : "bwd_kl";
  const gap = input(inputs.D!);
  const target = g.scale(input(inputs.G!), params.gt_reward_scale);
  const perPair = align.rewardDistance(g, g.scale(gap, params.beta), target, distance);
  return { values: { per_pair: perPair }, gradients: { grad_D: [g.sum(perPair), gap] } };
}

function alignerBradleyTerry({ g, input }: Inputs, { id, inputs }: Case): Computed {
  const outputs = input(inputs.pair_outputs_slot4!); // [P, 2]
  const [first, second] = align.splitPairs(g, g.reshape(outputs, [-1]), "interleaved");
  const pairs = align.pairsOfLabels(g, first, second, input(inputs.labels!));
  const kind = /(regular|margin|scaled)_bt/.exec(id)![1] as "regular" | "margin" | "scaled";
  const { loss, perPair } = align.bradleyTerry(g, pairs, { kind });
  return { values: { loss, per_pair: perPair }, gradients: { grad_slot4: [loss, outputs] } };
}

function regression({ g, input }: Inputs, { inputs, params }: Case): Computed {
  const predictions = input(inputs.pred!);
  const loss = align.maskedRegression(g, predictions, input(inputs.label!), { ignore: params.loss_mask_val });
  return { values: { loss }, gradients: { grad_pred: [loss, predictions] } };
}

function aggregates({ inputs, params }: Case) {
  expect(params.weights_340b).toEqual(align.attributeWeights["Nemotron-4-340B-Reward"]);
  expect(params.weights_70b).toEqual(align.attributeWeights["Llama3-70B-SteerLM-RM"]);
  const by = (weights: readonly number[]) => rows(inputs.attributes).map((a) => align.aggregateReward(a, weights));
  return { reward_340b: by(params.weights_340b), reward_70b: by(params.weights_70b) };
}

function trlReward({ g, input }: Inputs, { inputs, params }: Case): Computed {
  const [chosen, rejected] = [input(inputs.rewards_chosen!), input(inputs.rewards_rejected!)];
  const margin = inputs.margin as Nested | null;
  const { loss } = align.bradleyTerry(
    g,
    { chosen, rejected, ...(margin && { strength: input(margin) }) },
    { kind: margin ? "margin" : "regular", centre: params.center_rewards_coefficient ?? 0 },
  );
  return { values: { loss }, gradients: { grad_chosen: [loss, chosen], grad_rejected: [loss, rejected] } };
}

function rewardHeads({ g, input, ids }: Inputs, { inputs }: Case): Computed {
  const hidden = inputs.hidden as unknown as Rows[];
  const [length, width] = [hidden[0]!.length, hidden[0]![0]!.length];
  const lengths = numbers(inputs.lengths);
  const mask = lengths.map((valid) => hidden[0]!.map((_, t) => Number(t < valid)));
  const states = input(inputs.hidden!, [hidden.length * length, width]);
  const head = { weight: input(inputs.weight!), bias: input(inputs.bias!) };
  const last = ids(lengths.map((valid, s) => s * length + valid - 1));
  return {
    values: {
      attributes_last: align.rewardOfLast(g, states, last, head),
      attributes_avg_pool: align.rewardOfMean(g, states, input(membershipOf(mask)), head),
    },
  };
}

function expo({ inputs, params }: Case) {
  const model = (x: Nested | undefined) => Float64Array.from(flat(x!));
  return { theta: align.extrapolate(model(inputs.weak), model(inputs.strong), params.alpha) };
}

function klEstimates({ g, input }: Inputs, { inputs, params }: Case): Computed {
  const policy = input(inputs.policy_logps!);
  const kl = align.klEstimate(g, policy, input(inputs.ref_logps!), {
    kind: params.kl_type,
    ...(params.input_clamp !== null && { inputClamp: params.input_clamp, outputClamp: params.output_clamp }),
  });
  return { values: { kl }, gradients: { grad_of_sum: [g.sum(kl), policy] } };
}

function absoluteKl({ g, input }: Inputs, { inputs }: Case): Computed {
  const [policy, reference] = [input(inputs.policy_logps!), input(inputs.ref_logps!)];
  const by = (kind: align.KlKind) => align.klEstimate(g, policy, reference, { kind });
  return { values: { abs: by("abs"), signed: by("k1") } };
}

function alignerBaseline({ inputs }: Case) {
  const prompts = rows(inputs.prompts).map((prompt) => prompt.join());
  const groups = prompts.map((prompt) => prompts.indexOf(prompt));
  return { baseline: align.leaveOneOutBaseline(numbers(inputs.rewards), groups, numbers(inputs.is_end)) };
}

function gae({ inputs, params }: Case) {
  const results = rows(inputs.values).map((values, i) =>
    align.generalisedAdvantages(values, rows(inputs.rewards)[i]!, {
      gamma: params.gamma,
      lambda: params.lam,
      mask: rows(inputs.mask)[i]!,
    }),
  );
  return {
    advantages: results.flatMap(({ advantages }) => [...advantages]),
    returns: results.flatMap(({ returns }) => [...returns]),
  };
}

function nemoRlAdvantages({ inputs, params }: Case) {
  const [rewards, groups] = [numbers(inputs.rewards), numbers(inputs.prompt_ids)];
  const options = { leaveOneOut: params.leave_one_out };
  const advantages = align.scaledAdvantages(rewards, groups, options);
  return { ...align.groupBaseline(rewards, groups, options), advantages };
}

function trlAdvantages({ id, inputs, params }: Case) {
  const rewards = rows(inputs.rewards_per_func);
  const groups = align.consecutiveGroups(rewards.length, inputs.num_generations as number);
  if (id.includes("gdpo")) return { advantages: align.decoupledAdvantages(rewards, params.reward_weights, groups) };
  const sums = align.weightedRewards(rewards, params.reward_weights);
  return { advantages: align.groupAdvantages(sums, groups, { scale: params.scale_rewards }) };
}

function trlRloo({ inputs, params }: Case) {
  const rollouts = numbers(inputs.rewards).map((reward, i) => ({
    reward,
    policy: rows(inputs.old_per_token_logps)[i]!,
    reference: rows(inputs.ref_per_token_logps)[i]!,
    mask: rows(inputs.completion_mask)[i]!,
  }));
  const groups = align.consecutiveGroups(rollouts.length, inputs.num_generations as number);
  const { rewards, advantages } = align.reinforceAdvantages(rollouts, groups, {
    compat: "trl",
    penalty: params.beta,
    normalise: params.normalize_advantages,
  });
  return { rewards_with_kl: rewards, advantages };
}

function sequenceRloo(t: Inputs, { inputs, params }: Case): Computed {
  const tokens = group(t, rows(inputs.per_token_logps), rows(inputs.completion_mask));
  const old = t.input(flat(inputs.old_per_token_logps!));
  const options = { epsilon: params.epsilon };
  const { loss, perSequence, ratio } = align.rlooLoss(t.g, tokens, old, t.input(inputs.advantages!), options);
  return {
    values: { loss, ratio, per_sequence: perSequence },
    gradients: { grad_per_token_logps: [loss, tokens.logProbs] },
  };
}

function alignerReinforce(t: Inputs, { inputs, params }: Case): Computed {
  const { g, input } = t;
  const [prompts, responses] = [numbers(inputs.prompt_lengths), numbers(inputs.response_lengths)];
  const mask = rows(inputs.logprobs).map((row, i) =>
    row.map((_, at) => Number(at >= prompts[i]! - 1 && at <= responses[i]! - 2)),
  );
  const ended = numbers(inputs.is_end);
  const rollouts = numbers(inputs.rewards).map((reward, i) => ({
    reward,
    policy: rows(inputs.logprobs)[i]!,
    reference: rows(inputs.init_logprobs)[i]!,
    mask: mask[i]!,
    ended: ended[i] === 1,
  }));
  const { kl, rewards, baseline, advantages } = align.reinforceAdvantages(rollouts, new Int32Array(rollouts.length), {
    penalty: params.initial_policy_kl_penalty,
    absolute: params.use_absolute_kl,
  });
  const tokens = group(t, rows(inputs.logprobs), mask);
  const [factors, counts] = [input([...advantages]), input(ended)];
  const { loss, perSequence } = align.reinforceLoss(g, tokens, factors, counts);
  const byToken = align.reinforceLoss(g, tokens, factors, counts, { reduction: "tokens" });
  const plain = { kl_mean: kl, rewards_with_kl: rewards, baseline, advantages, mask: Float64Array.from(flat(mask)) };
  return {
    values: {
      loss_microbatch1: loss,
      loss_token_mean: byToken.loss,
      per_sequence: perSequence,
      ...Object.fromEntries(Object.entries(plain).map(([name, x]) => [name, input([...x])])),
    },
    gradients: { grad_logprobs_microbatch1: [loss, tokens.logProbs] },
  };
}

function trlGrpo(t: Inputs, { inputs, params, id }: Case): Computed {
  const { g, input } = t;
  const mask = rows(inputs.completion_mask);
  const tokens = group(t, rows(inputs.per_token_logps), mask);
  const type = (id.includes("gspo_sequence") ? "gspo" : params.loss_type) as align.TrlLossType;
  const { loss, perToken } = align.policyLoss(
    g,
    {
      ...tokens,
      advantages: input(inputs.advantages!),
      old: input(flat(inputs.old_per_token_logps!)),
      reference: input(flat(inputs.ref_per_token_logps!)),
    },
    align.trlPolicy(type, {
      epsilonLow: params.eps_low,
      epsilonHigh: params.eps_high,
      beta: params.beta,
      biasCorrectedKl: params.bias ?? false,
      ...(params.level && { level: params.level }),
      ...(params.delta && { delta: params.delta }),
      ...(params.max_completion_length && { maxLength: params.max_completion_length }),
      ...(params.nitems && { denominator: input(params.nitems) }),
    }),
  );
  const bySequence = params.level === "sequence";
  return {
    values: { loss, per_token_loss: bySequence ? align.meanPerSequence(g, tokens.membership, perToken) : perToken },
    gradients: { grad_per_token_logps: [loss, tokens.logProbs] },
  };
}

function nemoRlGrpo(t: Inputs, { inputs, params }: Case): Computed {
  const { g, input } = t;
  const tokens = group(t, rows(inputs.curr_logprobs), rows(inputs.token_mask));
  const type = params.truncated_importance_sampling_type as string | null;
  const kind = (type === null ? "plain" : type.replace("seq-mask-tis", "seq-mask")) as "plain" | "tis";
  const optional = <T>(name: string, value: T | null) => (value === null ? {} : { [name]: value });
  const options = align.nemoRlPolicy({
    objective: params.use_cispo ? "cispo" : params.disable_ppo_ratio ? "reinforce" : "clip",
    tokenLevel: params.token_level_loss,
    level: params.sequence_level_importance_ratios ? "sequence" : "token",
    clipMin: params.ratio_clip_min,
    clipMax: params.ratio_clip_max,
    onPolicy: params.force_on_policy_ratio,
    ...optional("dualClip", params.ratio_clip_c),
    kl: {
      kind: params.reference_policy_kl_type,
      beta: params.reference_policy_kl_penalty,
      weight: params.use_on_policy_kl_approximation ? "sampled" : "score",
    },
    ...(params.use_importance_sampling_correction && {
      correction: {
        kind,
        ...optional("low", params.truncated_importance_sampling_ratio_min),
        ...optional("high", params.truncated_importance_sampling_ratio),
      },
    }),
  });
  const { loss } = align.policyLoss(
    g,
    {
      ...tokens,
      advantages: input(inputs.advantages!),
      old: input(flat(inputs.prev_logprobs!)),
      reference: input(flat(inputs.reference_policy_logprobs!)),
      sampled: input(flat(inputs.generation_logprobs!)),
      weights: input(inputs.sample_mask!),
    },
    options,
  );
  return { values: { loss }, gradients: { grad_curr_logprobs: [loss, tokens.logProbs] } };
}

function overlong({ inputs, params }: Case) {
  const rewards = align.punishOverlong(numbers(inputs.rewards), numbers(inputs.lengths), {
    maxLength: params.max_response_length,
    buffer: params.overlong_buffer_length,
    penalty: params.overlong_buffer_penalty,
  });
  return { rewards };
}

/** Logits [B, T, V] and labels [B, T], of which label t + 1 is predicted at t. */
function labelled({ g, input, ids }: Inputs, { inputs }: Case) {
  const labels = rows(inputs.labels).map((row) => [...row.slice(1), -100]);
  const mask = labels.map((row) => row.map((label) => Number(label !== -100)));
  const size = flat(labels).length;
  const logits = input(inputs.logits!, [size, flat(inputs.logits!).length / size]);
  const logProbs = targetLogProbs(g, logits, ids(flat(labels).map((label) => Math.max(0, label))));
  return { logits, mask, logProbs, weights: input(flat(mask)), membership: input(membershipOf(mask)) };
}

function maskedCrossEntropy(t: Inputs, c: Case): Computed {
  const { g } = t;
  const { logits, logProbs, weights, membership } = labelled(t, c);
  const tokenMean = fineTuningLoss(g, logProbs, weights);
  return {
    values: {
      token_mean: tokenMean,
      sequence_mean: fineTuningLoss(g, logProbs, weights, { membership }),
      dft: fineTuningLoss(g, logProbs, weights, { dynamic: true }),
      num_tokens: g.sum(weights),
      sum_nll: fineTuningLoss(g, logProbs, weights, { denominator: g.scalar(1) }),
    },
    gradients: { grad_logits_token_mean: [tokenMean, logits] },
  };
}

function accumulation(t: Inputs, c: Case): Computed {
  const { g } = t;
  const { logProbs, weights, mask } = labelled(t, c);
  const total = g.sum(weights);
  const half = (from: number) => t.input(mask.flatMap((row, b) => row.map((m) => (b >= from && b < from + 2 ? m : 0))));
  const halves = [half(0), half(2)];
  const parts = halves.map((w) => fineTuningLoss(g, logProbs, w, { denominator: total }));
  const means = halves.map((w) => fineTuningLoss(g, logProbs, w));
  return {
    values: {
      full: fineTuningLoss(g, logProbs, weights),
      micro_contributions: g.concat(
        parts.map((part) => g.reshape(part, [1])),
        0,
      ),
      sum_of_micro: g.add(parts[0]!, parts[1]!),
      wrong_mean_of_means: g.scale(g.add(means[0]!, means[1]!), 0.5),
    },
  };
}

function studentAndMask({ input }: Inputs, { inputs }: Case, mask: readonly number[]) {
  const student = input(inputs.student_logits!, [mask.length, flat(inputs.student_logits!).length / mask.length]);
  return { student, weights: input(mask) };
}

const labelMask = ({ inputs }: Case) => flat(inputs.labels!).map((label) => Number(label !== -100));

function gjsd(t: Inputs, c: Case): Computed {
  const { g } = t;
  const { student, weights } = studentAndMask(t, c, labelMask(c));
  const teacher = t.input(c.inputs.teacher_logits!, student.shape);
  const { beta, temperature } = c.params;
  const perPosition = jensenShannon(g, student, teacher, { beta, temperature });
  const loss = weightedMean(g, perPosition, weights);
  return {
    values: { per_position: perPosition, loss, loss_times_T2: g.scale(loss, temperature ** 2) },
    gradients: { grad_student_logits: [loss, student] },
  };
}

function softTargets(t: Inputs, c: Case): Computed {
  const { g } = t;
  const { student, weights } = studentAndMask(t, c, labelMask(c));
  const perPosition = softCrossEntropy(g, student, t.input(c.inputs.teacher_logits!, student.shape));
  const loss = weightedMean(g, perPosition, weights);
  return { values: { per_position: perPosition, loss }, gradients: { grad_student_logits: [loss, student] } };
}

function topK(t: Inputs, c: Case): Computed {
  const { g } = t;
  const { id, inputs, params } = c;
  const nemoRl = id.startsWith("kd.nemo_rl");
  // NeMo-RL drops the last position and shifts the mask.
  const mask = nemoRl ? rows(inputs.token_mask).map((row) => [...row.slice(1), 0]) : rows(inputs.loss_mask);
  const { student, weights } = studentAndMask(t, c, flat(mask));
  const best = [student.shape[0]!, flat(inputs.teacher_topk_ids!).length / student.shape[0]!];
  const [teacher, tokens] = [t.input(inputs.teacher_topk_logits!, best), t.ids(inputs.teacher_topk_ids!, best)];
  const direction = (nemoRl ? params.kl_type : id.includes("fwd") ? "forward" : "reverse") as KlDirection;
  const perPosition = topKDivergence(g, student, teacher, tokens, {
    direction,
    ...(nemoRl && { mix: params.mixed_kl_weight }),
    outside: params.zero_outside_topk ? "penalise" : "renormalise",
  });
  const loss = weightedMean(g, perPosition, weights, nemoRl ? { epsilon: 1e-8 } : {});
  const kept = (x: Value) => {
    const [batch, length] = [mask.length, mask[0]!.length];
    return g.slice(g.reshape(x, [batch, length]), 1, 0, length - 1);
  };
  return {
    values: { per_position: nemoRl ? kept(perPosition) : perPosition, loss },
    gradients: { grad_student_logits: [loss, student] },
  };
}

/** What is expected of a case; per-token losses only where a token is valid, as padding never counts here. */
function expectedOf(c: Case, field: string): number[] {
  const expected = flat(c.expected[field]!);
  const mask = flat(c.inputs.completion_mask ?? []);
  if (field !== "per_token_loss" || mask.length !== expected.length) return expected;
  return expected.map((value, i) => (mask[i] ? value : 0));
}

interface Tolerance {
  value: number;
  gradient: number;
}

/** |a - b| <= value (1 + |b|); gradients within a share of the largest one of the field. */
function compare(c: Case, results: Readonly<Record<string, ArrayLike<number>>>, tolerance: Tolerance): void {
  for (const field of Object.keys(c.expected)) {
    const expected = expectedOf(c, field);
    const found = Array.from(results[field] ?? []);
    expect(found.length, `${field}: elements`).toBe(expected.length);
    const scale = Math.max(...expected.map(Math.abs), tolerance.value < 1e-6 ? 1e-6 : 1e-3);
    expected.forEach((value, i) => {
      const bound = field.startsWith("grad") ? tolerance.gradient * scale : tolerance.value * (1 + Math.abs(value));
      expect(Math.abs(found[i]! - value), `${field}[${i}]: ${found[i]} for ${value}`).toBeLessThanOrEqual(bound);
    });
  }
}

test("there are 130 cases, each with a row of the table", () => {
  expect(cases.length).toBe(130);
  expect(new Set(cases.map(({ id }) => id)).size).toBe(130);
  expect(cases.filter(({ id }) => !table.some(([pattern]) => pattern.test(id))).map(({ id }) => id)).toEqual([]);
});

describe("golden cases", () => {
  let runtime: Runtime;
  beforeAll(async () => {
    runtime = await createRuntime({ threads: 1 });
  });
  afterAll(() => runtime.dispose());

  test.each(cases.map((c) => [c.id, c] as const))("%s", async (id, c) => {
    const compute = table.find(([pattern]) => pattern.test(id))![1];
    if ("plain" in compute) {
      const results = Object.entries(compute.plain(c)).map(([name, x]) => [name, flat(Array.from(x as Float64Array))]);
      compare(c, Object.fromEntries(results), { value: 1e-9, gradient: 1e-9 });
      return;
    }
    const loss = buildLoss((inputs) => compute.graph(inputs, c));
    compare(c, inFloat64(loss), { value: 1e-9, gradient: 1e-9 });
    compare(c, await inRuntime(runtime, loss), { value: 2e-5, gradient: 1e-4 });
  });
});
