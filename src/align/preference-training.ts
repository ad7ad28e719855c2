/**
 * @module Training on preference pairs in packed rows: a pair is one sample whose branches, chosen and rejected, share
 * their prompt's computation, and the reference's log-probabilities come with each batch as inputs.
 *
 * A step's loss is the mean over all its pairs, however they are spread over passes of the gradient.
 */
import { EspalierError } from "../base/index.js";
import { type BranchedSample, createPackedBatches, type PackedBatch } from "../data/index.js";
import type { GraphBuilder, Value } from "../graph/index.js";
import { f32Tensor } from "../tensor/index.js";
import {
  type Batch,
  type LossValues,
  type PackedLossOptions,
  type PackedShape,
  type PackedTokens,
  packedFeeds,
  type SampleBatches,
} from "../train/index.js";
import { type PreferenceOptions, preferenceLoss } from "./dpo.js";
import {
  type ChosenOptions,
  meanOfPairs,
  type PairReductionOptions,
  type PreferenceLoss,
  pairsOfTokens,
} from "./pairs.js";
import { type RewardAwareOptions, rewardAwareLoss } from "./rpo.js";

/** A pair with what is known about it before training. */
export interface PreferenceSample {
  /** Branches [chosen, rejected]. */
  pair: BranchedSample;
  /** Log-probabilities of the learnt tokens of both answers under the reference, in nats. */
  reference: readonly [chosen: Float32Array, rejected: Float32Array];
  /** Reward of the chosen answer less that of the rejected one; for losses that read it. Defaults to 0. */
  gap?: number;
}

/** What `packedLoss` takes as the loss of a batch. */
export type PackedObjective = PackedLossOptions["lossOf"];

/** Options of the losses over pairs that the batch fills in. */
type Filled = "weights" | "denominator" | "sft";

export interface ObjectiveOptions {
  /** Adds the loss of supervised fine-tuning on chosen answers. */
  sft?: Omit<ChosenOptions, "tokens">;
}

/** DPO and its kin; inputs besides those of a packed batch are {@link preferenceFeeds}'. */
export function preferenceObjective(
  options: Omit<PreferenceOptions, Filled> & ObjectiveOptions,
  shape: PackedShape,
): PackedObjective {
  return (g, tokens, denominator) => {
    const { pairs, filled } = pairInputs(g, tokens, denominator, options, shape);
    return reported(g, preferenceLoss(g, pairs, { ...options, ...filled }), filled);
  };
}

/** Reward-aware preference optimisation; the pairs' `gap` is the target. */
export function rewardAwareObjective(
  options: Omit<RewardAwareOptions, Filled> & ObjectiveOptions,
  shape: PackedShape,
): PackedObjective {
  return (g, tokens, denominator) => {
    const { pairs, gap, filled } = pairInputs(g, tokens, denominator, options, shape);
    return reported(g, rewardAwareLoss(g, pairs, gap, { ...options, ...filled }), filled);
  };
}

function pairInputs(
  g: GraphBuilder,
  tokens: PackedTokens,
  denominator: Value,
  { sft }: ObjectiveOptions,
  { targets, sequences }: PackedShape,
) {
  const pairs = pairsOfTokens(g, tokens, g.input("reference", [targets]));
  const weights = g.input("pairWeights", [sequences / 2]);
  const chosenTokens = g.input("chosenTokens", []);
  const gap = g.input("gap", [sequences / 2]);
  const filled: PairReductionOptions = {
    weights,
    denominator,
    ...(sft && { sft: { ...sft, tokens: chosenTokens } }),
  };
  return { pairs, gap, filled };
}

/** The loss and what is reported beside it: mean margin beta D, share of pairs with a margin above 0, the terms. */
function reported(g: GraphBuilder, result: PreferenceLoss, options: PairReductionOptions): LossValues {
  const { loss, parts, rewards, accuracy } = result;
  const margin = meanOfPairs(g, g.sub(rewards.chosen, rewards.rejected), options);
  return { loss, parts: { ...(parts.sft && { ...parts }), accuracy, margin } };
}

export interface PreferenceBatchOptions {
  seed: number | string;
  /** Passes of the gradient in a step. Defaults to 1. */
  accumulate?: number;
}

export interface PreferenceBatches extends SampleBatches {
  batches: (index: number) => Batch;
}

/** Pairs packed anew for each epoch, in a seeded order; a batch weighs as much as it has pairs. */
export function preferenceBatches(
  samples: readonly PreferenceSample[],
  shape: PackedShape,
  { seed, accumulate = 1 }: PreferenceBatchOptions,
): PreferenceBatches {
  const packed = createPackedBatches(
    samples.map(({ pair }) => pair),
    shape,
    { seed },
  );
  const { steps, fill } = packed.passOf(0);
  return {
    passesPerEpoch: steps,
    fill,
    batches(index) {
      const first = index - (index % accumulate);
      const step = Array.from({ length: accumulate }, (_, i) => packed.at(first + i));
      const chosenTokens = step.reduce((sum, batch) => sum + countChosen(batch), 0);
      return preferenceFeeds(packed.at(index), samples, shape, chosenTokens);
    },
  };
}

/** Targets of chosen answers. */
function countChosen({ rows, sequences }: PackedBatch): number {
  const chosen = (sequence: number) => Number(sequences[sequence]!.branch === 0);
  return rows.reduce((sum, { targets }) => sum + targets.reduce((own, { sequence }) => own + chosen(sequence), 0), 0);
}

/**
 * The inputs of a batch of pairs: those of `packedFeeds`, `reference` f32 [N], `pairWeights` f32 [P] (0 where a batch has
 * fewer pairs), `gap` f32 [P] and `chosenTokens`, a scalar.
 *
 * @param chosenTokens targets of chosen answers of the whole step
 */
export function preferenceFeeds(
  packed: PackedBatch,
  samples: readonly PreferenceSample[],
  shape: PackedShape,
  chosenTokens: number,
): Batch {
  const { feeds, tokens } = packedFeeds(packed, shape);
  const pairs = shape.sequences / 2;
  const reference = new Float32Array(shape.targets);
  const done = new Int32Array(packed.sequences.length);
  const targets = packed.rows.flatMap((row) => row.targets);
  for (const [n, { sequence }] of targets.entries()) {
    const { sample, branch } = packed.sequences[sequence]!;
    const place = done[sequence]!;
    reference[n] = samples[sample]!.reference[branch as 0 | 1][place]!;
    done[sequence] = place + 1;
  }
  const pairWeights = new Float32Array(pairs).fill(1, 0, packed.sequences.length / 2);
  const gap = new Float32Array(pairs);
  for (const [i, { sample, branch }] of packed.sequences.entries()) {
    if (branch === 0) gap[i / 2] = samples[sample]!.gap ?? 0;
  }
  return {
    feeds: {
      ...feeds,
      reference: f32Tensor([shape.targets], reference),
      pairWeights: f32Tensor([pairs], pairWeights),
      gap: f32Tensor([pairs], gap),
      chosenTokens: f32Tensor([], [chosenTokens]),
    },
    weight: packed.sequences.length / 2,
    ...(tokens !== undefined && { tokens }),
  };
}

/** What a policy does with a pair, from log-probabilities of its tokens and the reference's. */
export interface PairScore {
  /** Sums of log-probabilities over the tokens of each answer, in nats. */
  chosen: number;
  rejected: number;
  /** Log-ratios policy / reference of each answer, in nats. */
  chosenRatio: number;
  rejectedRatio: number;
  /** Tokens of each answer. */
  chosenLength: number;
  rejectedLength: number;
  /** Means over the tokens of both answers of exp(r) - 1 - r, r = log(reference / policy); see `klEstimate`. */
  k3: number;
}

export function scorePair(
  [chosen, rejected]: readonly [Float32Array, Float32Array],
  reference: readonly [Float32Array, Float32Array],
): PairScore {
  const sum = (x: Float32Array) => x.reduce((total, value) => total + value, 0);
  const ratio = (x: Float32Array, y: Float32Array) => x.reduce((total, value, i) => total + (value - y[i]!), 0);
  const k3 = (x: Float32Array, y: Float32Array) =>
    x.reduce((total, value, i) => total + Math.expm1(y[i]! - value) - (y[i]! - value), 0);
  return {
    chosen: sum(chosen),
    rejected: sum(rejected),
    chosenRatio: ratio(chosen, reference[0]),
    rejectedRatio: ratio(rejected, reference[1]),
    chosenLength: chosen.length,
    rejectedLength: rejected.length,
    k3: (k3(chosen, reference[0]) + k3(rejected, reference[1])) / (chosen.length + rejected.length),
  };
}

/**
 * Pairs whose answers still differ: a cut can make two answers one.
 * @throws EspalierError for a sample that is no pair, and where none is left
 */
export function differingPairs(samples: readonly BranchedSample[], where: string): { kept: number[]; equal: number } {
  const kept = samples.flatMap(({ branches: [chosen, rejected, ...more] }, i) => {
    if (!chosen || !rejected || more.length > 0)
      throw new EspalierError({ where: `${where}, pair ${i}`, expected: "two answers", found: "another number" });
    const same = chosen.ids.length === rejected.ids.length && chosen.ids.every((id, at) => id === rejected.ids[at]);
    return same ? [] : [i];
  });
  if (samples.length > 0 && kept.length === 0)
    throw new EspalierError({
      where,
      expected: "pairs of answers that differ",
      found: "equal answers alone",
      fix: "raise `length`, so that the answers are not cut where they are still the same",
      exitCode: 2,
    });
  return { kept, equal: samples.length - kept.length };
}
