/**
 * @module Losses on the log-probabilities of chosen tokens in packed rows: supervised tuning, preferences and policy
 * gradients are graph algebra on what this gives. Logits exist for the chosen positions only, a chunk of them and a tile
 * of the vocabulary at a time.
 *
 * A row holds several sequences. Every token names its segment, and one more segment that it may see (its prefix): the
 * answers to one prompt share the prompt's row and its computation.
 */
import {
  createGraph,
  type Graph,
  type GraphBuilder,
  type GraphDType,
  type TokenLogProbs,
  type Value,
} from "../graph/index.js";
import {
  buildModel,
  buildPackedMask,
  int8Inputs,
  int8MatrixNames,
  type LoraConfig,
  type ModelConfig,
  type ModelOutputs,
  positionsFrom,
  rotaryTables,
  type WeightValues,
} from "../models/index.js";
import type { Runtime, Tensors } from "../runtime/index.js";
import type { Shape } from "../tensor/index.js";
import type { BuildLoss, LossValues } from "./step.js";
import { weightInfos } from "./trainable.js";

export interface PackedShape {
  /** Rows. */
  batch: number;
  /** Tokens of a row. */
  length: number;
  /** Most targets in a batch; fewer are padded with weight 0 (their `from` and id must be valid). */
  targets: number;
  /** Most sequences in a batch. */
  sequences: number;
}

/** Inputs that decide the hidden states. */
export interface PackedRowInputs {
  /** i64 [B, T] */
  ids: Value;
  /** Rotary positions, below T, i64 [B, T]. */
  positions: Value;
  /** Number of the sequence that a token belongs to; -1 is padding. i64 [B, T] */
  segments: Value;
  /** Segment that a token may see besides its own, or its own. i64 [B, T] */
  prefixes: Value;
}

/** Inputs that decide the log-probabilities. */
export interface PackedInputs extends PackedRowInputs {
  /** Which token predicts, as an index into B * T. i64 [N] */
  from: Value;
  /** Id that it is to predict. i64 [N] */
  targets: Value;
}

type RowShape = Pick<PackedShape, "batch" | "length">;

/** Declares the rows of a packed batch under their own names. */
export function packedRowInputs(g: GraphBuilder, { batch, length }: RowShape): PackedRowInputs {
  const grid = (name: string) => g.input(name, [batch, length], "i64");
  return { ids: grid("ids"), positions: grid("positions"), segments: grid("segments"), prefixes: grid("prefixes") };
}

/** Declares the inputs of a packed batch under their own names. */
export function packedInputs(g: GraphBuilder, shape: PackedShape): PackedInputs {
  const list = (name: string) => g.input(name, [shape.targets], "i64");
  return { ...packedRowInputs(g, shape), from: list("from"), targets: list("targets") };
}

/** How a model turns packed rows into log-probabilities. */
export interface PackedModel {
  config: ModelConfig;
  /** The adapter among the weights, if any. */
  lora?: LoraConfig;
  /** Logits are divided by it, as a sampler divides them. Defaults to 1. */
  temperature?: number;
  /** The blocks' matrices are frozen and in 8 bits (see `roundFrozen`). Defaults to f32. */
  frozen?: FrozenType;
}

/** In what frozen matrices are multiplied. */
export type FrozenType = "f32" | "int8";

/** The model on packed rows, up to what its head multiplies. */
export function buildPackedModel(
  g: GraphBuilder,
  { config, lora }: Pick<PackedModel, "config" | "lora">,
  { batch, length }: RowShape,
  inputs: PackedRowInputs,
  weights: WeightValues,
): ModelOutputs {
  const tables = rotaryTables(config, positionsFrom(0, length));
  const half = config.headDim / 2;
  const [cos, sin] = [tables.cos, tables.sin].map((table) =>
    g.gather(g.reshape(g.constant(table), [length, half]), inputs.positions),
  );
  return buildModel(g, config, {
    batch,
    length,
    ids: inputs.ids,
    weights,
    cos: cos!, // [B, T, D / 2]
    sin: sin!,
    mask: buildPackedMask(g, inputs.segments, inputs.prefixes),
    ...(lora && { loraAlpha: lora.alpha }),
  });
}

export interface TokenScoreValues extends TokenLogProbs {
  /** The residual stream before every block and after the last, [B * T, H] each. */
  streams: readonly Value[];
}

/** Log-probability, differentiable, and entropy, not so, of each target: [N]. */
export function buildTokenScores(
  g: GraphBuilder,
  model: PackedModel,
  shape: PackedShape,
  inputs: PackedInputs,
  weights: WeightValues,
): TokenScoreValues {
  const { finalHidden, headWeight, hiddenStates } = buildPackedModel(g, model, shape, inputs, weights);
  const { temperature = 1 } = model;
  const hidden = g.scale(g.gather(finalHidden, inputs.from), 1 / temperature); // [N, H]
  return { ...g.tokenLogProbs(hidden, headWeight, inputs.targets), streams: hiddenStates };
}

/** Log-probabilities of the targets, [N], differentiable; see `buildTokenScores`. */
export function buildTokenLogProbs(
  g: GraphBuilder,
  config: ModelConfig,
  shape: PackedShape,
  inputs: PackedInputs,
  weights: WeightValues,
  options: Omit<PackedModel, "config"> = {},
): Value {
  return buildTokenScores(g, { ...options, config }, shape, inputs, weights).logProbs;
}

/** What a loss sees of a packed batch. */
export interface PackedTokens extends TokenLogProbs {
  /** Weight of each target, f32 [N]: 0 where it is padding. */
  weights: Value;
  /** 1 where target n counts for sequence s, f32 [S, N]: sums over sequences are products with it. */
  membership: Value;
}

export interface PackedLossOptions extends PackedModel {
  shape: PackedShape;
  /** The loss on the log-probabilities; it may declare further inputs of a batch, such as advantages [S]. */
  lossOf: (g: GraphBuilder, tokens: PackedTokens, denominator: Value) => LossValues;
}

/**
 * A loss for `train`. Weights that are not among the parameters are frozen inputs (see `loadTrainable`).
 * Inputs of a batch: those of `PackedInputs`, `weights` f32 [N] and `membership` f32 [S, N].
 *
 * @example
 * const loss = packedLoss({ config, lora, shape, lossOf: (g, { logProbs, weights }, denominator) => ({
 *   loss: g.div(g.neg(g.sum(g.mul(logProbs, weights))), denominator), // supervised tuning: mean over tokens
 * }) });
 */
export function packedLoss({ shape, lossOf, ...model }: PackedLossOptions): BuildLoss {
  return (g, parameters, denominator) => {
    const inputs = packedInputs(g, shape);
    const { streams, ...scores } = buildTokenScores(g, model, shape, inputs, modelValues(g, model, parameters));
    const tokens = {
      ...scores,
      weights: g.input("weights", [shape.targets]),
      membership: g.input("membership", [shape.sequences, shape.targets]),
    };
    return { streams, ...lossOf(g, tokens, denominator) };
  };
}

/** All weights of the model: parameters where they are among them, inputs of the graph otherwise. */
export function modelValues(
  g: GraphBuilder,
  { config, lora, frozen = "f32" }: Pick<PackedModel, "config" | "lora" | "frozen">,
  parameters: WeightValues,
  prefix = "",
): WeightValues {
  const matrices = frozen === "int8" ? int8MatrixNames(config) : new Set<string>();
  const plain = weightInfos(config, lora).filter(({ name }) => !matrices.has(name));
  const rounded = frozen === "int8" ? int8Inputs(config) : [];
  const inputOf = (name: string, shape: Shape, dtype: GraphDType) =>
    [name, parameters[name] ?? g.input(prefix + name, shape, dtype)] as const;
  return Object.fromEntries([
    ...plain.map(({ name, shape }) => inputOf(name, shape, "f32")),
    ...rounded.map(({ name, shape, dtype }) => inputOf(name, shape, dtype)),
  ]);
}

/** The forward sweep alone, the same arithmetic as in a step. Outputs `logProbs` and `entropy`, [N]. */
export function tokenScoresGraph(name: string, model: PackedModel, shape: PackedShape): Graph {
  const g = createGraph(name);
  const inputs = packedInputs(g, shape);
  const { logProbs, entropy } = buildTokenScores(g, model, shape, inputs, modelValues(g, model, {}));
  g.output("logProbs", logProbs);
  g.output("entropy", entropy);
  return g;
}

export interface TokenScores {
  /** [N] */
  logProbs: Float32Array;
  /** Nats, [N]. */
  entropy: Float32Array;
}

/**
 * Scores packed batches: reference log-probabilities, those of the policy before an update, and entropies. The same
 * weights give the same bits as the training step does, so a ratio to them is exactly 1 before the first update.
 *
 * @returns takes all weights of the model and the feeds of a batch, of which it picks what it needs
 */
export function createTokenScorer(
  runtime: Runtime,
  name: string,
  model: PackedModel,
  shape: PackedShape,
): (weights: Tensors, feeds: Tensors) => Promise<TokenScores> {
  const compiling = runtime.compile(tokenScoresGraph(name, model, shape));
  return async (weights, feeds) => {
    const program = await compiling;
    const all: Tensors = { ...weights, ...feeds };
    const needed = program.inputs.map((input) => input.name).filter((input) => all[input]);
    const results = await program.run(Object.fromEntries(needed.map((input) => [input, all[input]!])));
    return { logProbs: results.logProbs!.data as Float32Array, entropy: results.entropy!.data as Float32Array };
  };
}
