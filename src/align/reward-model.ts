/**
 * @module Reward models in packed rows: a linear head on the last hidden state of the token that ends an answer, trained
 * on pairs (Bradley-Terry) or on marks (regression), as HelpSteer2 (arXiv:2406.08673) and HelpSteer2-Preference
 * (arXiv:2410.01257) have it. The answers of a pair share the computation of their prompt.
 *
 * Departures: a head without bias unless one is asked for, since transformers' class has none; it starts at zero, so that
 * every answer begins with a reward of 0. Where there are several attributes, pairs are judged by their weighted sum.
 */
import { type PackableSample, type PackedBatch, packSamples } from "../data/index.js";
import { createGraph, type GraphBuilder, type Value } from "../graph/index.js";
import {
  bodyOf,
  type LoraConfig,
  type LoraOptions,
  type ModelConfig,
  type RewardHead,
  type RewardModel,
  rewardHeadNames,
  rewardHeadTensors,
  type WeightValues,
} from "../models/index.js";
import type { Runtime, Tensors } from "../runtime/index.js";
import { type F32Tensor, f32Tensor, i64Tensor } from "../tensor/index.js";
import {
  type Batch,
  type BuildLoss,
  buildPackedModel,
  type FrozenType,
  modelValues,
  openTuning,
  packedRowFeeds,
  packedRowInputs,
  type Tuning,
} from "../train/index.js";
import { splitPairs } from "./pairs.js";
import { type BradleyTerryOptions, bradleyTerry, maskedRegression, rewardOfLast } from "./reward.js";

export interface RewardShape {
  /** Rows. */
  batch: number;
  /** Tokens of a row. */
  length: number;
  /** Most answers in a batch, an even number. */
  sequences: number;
}

/** Room for answers of 16 tokens and more: shorter ones leave some of a row's places empty. */
export function rewardShape(batch: number, length: number): RewardShape {
  return { batch, length, sequences: 2 * batch * Math.ceil(length / 32) };
}

/** What of a reward model decides its graph. */
export interface RewardArchitecture {
  /** Of a body: with tied embeddings, since there is no output layer. */
  config: ModelConfig;
  /** The adapter among the weights, if any. */
  lora?: LoraConfig;
  /** Number of attributes. */
  attributes: number;
  bias: boolean;
  /** The blocks' matrices in 8 bits; see `PackedModel`. */
  frozen?: FrozenType;
}

/** Attributes of each answer, [S, A]; inputs besides the rows: `last` i64 [S], the token that ends each. */
function buildAttributes(
  g: GraphBuilder,
  { attributes, bias, ...model }: RewardArchitecture,
  shape: RewardShape,
  parameters: WeightValues,
): Value {
  const inputs = packedRowInputs(g, shape);
  const { finalHidden } = buildPackedModel(g, model, shape, inputs, modelValues(g, model, parameters));
  const of = (name: string, dims: number[]) => parameters[name] ?? g.input(name, dims);
  const weight = of(rewardHeadNames.weight, [attributes, model.config.hiddenSize]);
  const head = { weight, ...(bias && { bias: of(rewardHeadNames.bias, [attributes]) }) };
  return rewardOfLast(g, finalHidden, g.input("last", [shape.sequences], "i64"), head);
}

export interface PairLossOptions extends RewardArchitecture, Pick<BradleyTerryOptions, "kind" | "centre"> {
  shape: RewardShape;
  /** What each attribute counts for in the reward, A. */
  weights: readonly number[];
}

/** Bradley-Terry over pairs, for `train` with batches of `pairBatch`. The denominator is the number of pairs of a step. */
export function pairRewardLoss({ shape, weights, kind = "regular", centre, ...model }: PairLossOptions): BuildLoss {
  return (g, parameters, denominator) => {
    const pairs = shape.sequences / 2;
    const attributes = buildAttributes(g, model, shape, parameters); // [S, A]
    const shares = g.constant(f32Tensor([weights.length, 1], weights));
    const rewards = g.reshape(g.matmul(attributes, shares), [shape.sequences]);
    const [chosen, rejected] = splitPairs(g, rewards, "interleaved");
    const counted = g.input("pairWeights", [pairs]);
    const strength = kind === "regular" ? {} : { strength: g.input("strength", [pairs]) };
    const options = { kind, weights: counted, denominator, ...(centre !== undefined && { centre }) };
    const { loss } = bradleyTerry(g, { chosen, rejected, ...strength }, options);
    const right = g.mul(g.cast(g.greater(chosen, rejected), "f32"), counted);
    return { loss, parts: { accuracy: g.div(g.sum(right), denominator) } };
  };
}

/** Masked mean squared error of marks, with batches of `markBatch`. The denominator is the number of marks of a step. */
export function markRewardLoss({ shape, ...model }: RewardArchitecture & { shape: RewardShape }): BuildLoss {
  return (g, parameters, denominator) => {
    const predictions = buildAttributes(g, model, shape, parameters); // [S, A]
    const labels = g.input("labels", [shape.sequences, model.attributes]);
    return { loss: maskedRegression(g, predictions, labels, { denominator }) };
  };
}

function answerFeeds(packed: PackedBatch, shape: RewardShape): Tensors {
  const last = new BigInt64Array(shape.sequences);
  for (const [i, sequence] of packed.sequences.entries()) last[i] = BigInt(sequence.last);
  return { ...packedRowFeeds(packed, shape), last: i64Tensor([shape.sequences], last) };
}

/**
 * A batch of pairs, all of them branched samples of a chosen and a rejected answer; its weight is their number.
 * @param strengthOf how much better the chosen answer of a sample is: for `margin` and `scaled`, and for these alone
 */
export function pairBatch(
  packed: PackedBatch,
  shape: RewardShape,
  strengthOf?: (sample: number) => number,
): Batch & { weight: number } {
  const pairs = shape.sequences / 2;
  const pairWeights = new Float32Array(pairs);
  const strength = new Float32Array(pairs);
  packed.sequences.forEach(({ sample, branch }, i) => {
    if (branch !== 0) return;
    pairWeights[i / 2] = 1;
    strength[i / 2] = strengthOf?.(sample) ?? 0;
  });
  const feeds = {
    ...answerFeeds(packed, shape),
    pairWeights: f32Tensor([pairs], pairWeights),
    ...(strengthOf && { strength: f32Tensor([pairs], strength) }),
  };
  return { feeds, weight: packed.sequences.length / 2, tokens: packed.tokens };
}

const unmarked = -100;

/** A batch of marked answers; its weight is the number of marks. @param marksOf undefined where nobody marked it */
export function markBatch(
  packed: PackedBatch,
  shape: RewardShape,
  attributes: number,
  marksOf: (sample: number) => readonly (number | undefined)[],
): Batch & { weight: number } {
  const labels = new Float32Array(shape.sequences * attributes).fill(unmarked);
  let weight = 0;
  packed.sequences.forEach(({ sample }, i) => {
    marksOf(sample).forEach((mark, a) => {
      if (mark === undefined) return;
      labels[i * attributes + a] = mark;
      weight++;
    });
  });
  const feeds = { ...answerFeeds(packed, shape), labels: f32Tensor([shape.sequences, attributes], labels) };
  return { feeds, weight, tokens: packed.tokens };
}

/** Attributes by sample, branch and attribute, under the weights (those of the body and of the head). */
export type AttributeScorer = (samples: readonly PackableSample[], weights: Tensors) => Promise<number[][][]>;

/** Scores answers: the arithmetic is that of a training step of the same shape. */
export function createAttributeScorer(
  runtime: Runtime,
  name: string,
  model: RewardArchitecture,
  shape: RewardShape,
  signal?: AbortSignal,
): AttributeScorer {
  const g = createGraph(name);
  g.output("attributes", buildAttributes(g, model, shape, {}));
  const compiling = runtime.compile(g);
  const { attributes: count } = model;
  return async (samples, weights) => {
    const program = await compiling;
    const scores: number[][][] = samples.map(() => []);
    for (const packed of packSamples(samples, shape).batches) {
      signal?.throwIfAborted();
      const all: Tensors = { ...weights, ...answerFeeds(packed, shape) };
      const needed = program.inputs.map((input) => [input.name, all[input.name]!] as const);
      const values = (await program.run(Object.fromEntries(needed))).attributes!.data as Float32Array;
      packed.sequences.forEach(({ sample, branch }, i) => {
        scores[sample]![branch] = Array.from(values.subarray(i * count, (i + 1) * count));
      });
    }
    return scores;
  };
}

export interface RewardTuning extends Omit<Tuning, "tuned"> {
  architecture: RewardArchitecture;
  /** The model with what was learnt, adapters merged; shares its memory with the parameters. */
  tuned(): RewardModel;
}

/** A reward model being trained: adapters or all weights of the body, and always the head. */
export async function openRewardTuning(
  { body, head }: RewardModel,
  options: { lora?: LoraOptions; seed?: number | string } = {},
): Promise<RewardTuning> {
  const model = bodyOf(body);
  const { tuned, ...tuning } = await openTuning(model, { ...options, head: rewardHeadTensors(head) });
  const architecture = {
    config: model.config,
    ...(tuning.lora && { lora: tuning.lora }),
    attributes: head.attributes.length,
    bias: head.bias !== undefined,
  };
  const learntHead = (): RewardHead => {
    const tensors = tuning.parameters.tensors as Record<string, F32Tensor>;
    const { weight, bias } = rewardHeadNames;
    return { ...head, weight: tensors[weight]!, ...(tensors[bias] && { bias: tensors[bias] }) };
  };
  return { ...tuning, architecture, tuned: () => ({ body: tuned(), head: learntHead() }) };
}
