/** @module Frozen matrices in 8 bits beside an adapter: less time for a step, for a little noise in what it computes. */
import { type PackableSample, packSamples } from "../data/index.js";
import { createGraph, type Graph } from "../graph/index.js";
import { int8MatrixNames, int8Places, layerPrefix, roundToInt8 } from "../models/index.js";
import type { Runtime, Tensors } from "../runtime/index.js";
import {
  buildPackedModel,
  createTokenScorer,
  modelValues,
  type PackedModel,
  type PackedShape,
  packedRowInputs,
} from "./packed.js";
import { packedFeeds } from "./packed-feeds.js";
import type { Tuning } from "./tuning.js";

export interface RoundOptions {
  runtime: Runtime;
  /** Of the programs. */
  name: string;
  /** As it is without rounding. */
  model: Pick<PackedModel, "config" | "lora">;
  shape: PackedShape;
  /** All weights, those of them that are frozen, and the others. */
  tuning: Pick<Tuning, "weights" | "frozen"> & { parameters: Pick<Tuning["parameters"], "tensors"> };
  /** What the scales are taken from, and the effect is measured on. */
  samples: readonly PackableSample[];
}

/** Packed batches that the effect is measured on at most. */
const measuredBatches = 8;

export interface RoundedFrozen {
  /** For `train`, in place of the tuning's: the blocks' matrices in 8 bits, the others as they are. */
  frozen: Tensors;
  /** What rounding does to the start: mean loss of each sequence of the batches, nats a token. */
  losses: { f32: number[]; int8: number[] };
}

/**
 * The frozen weights of a tuning for a `PackedModel` with `frozen: "int8"`, with scales from what the model makes of the
 * first batch at its start. The tuning keeps its f32 weights, with which the result is merged and measured.
 */
export async function roundFrozen(options: RoundOptions): Promise<RoundedFrozen> {
  const { name, model, tuning, samples, shape } = options;
  const packed = packSamples(samples, shape).batches.slice(0, measuredBatches);
  const batches = packed.map((batch) => packedFeeds(batch, shape).feeds);
  const largest = await largestInputs(options, batches[0]!);
  const matrices = int8MatrixNames(model.config);
  const others = Object.entries(tuning.frozen).filter(([weight]) => !matrices.has(weight));
  const frozen = { ...Object.fromEntries(others), ...roundToInt8(model.config, tuning.frozen, largest) };
  const score = (type: "f32" | "int8", weights: Tensors) =>
    sequenceLosses(options, `${name}_${type}`, { ...model, frozen: type }, weights, batches);
  return {
    frozen,
    losses: {
      f32: await score("f32", tuning.weights()),
      int8: await score("int8", { ...frozen, ...tuning.parameters.tensors }),
    },
  };
}

async function largestInputs(options: RoundOptions, feeds: Tensors): Promise<Record<string, Float32Array>> {
  const { runtime, name, model, shape, tuning } = options;
  const program = await runtime.compile(largestGraph(`${name}_inputs`, model, shape));
  const all: Tensors = { ...tuning.weights(), ...feeds };
  const results = await program.run(Object.fromEntries(program.inputs.map((input) => [input.name, all[input.name]!])));
  await program.dispose();
  return Object.fromEntries(Object.entries(results).map(([scale, { data }]) => [scale, data as Float32Array]));
}

/** Outputs the largest magnitude of each input channel of the linear layers, by the full names of their scales. */
function largestGraph(name: string, model: RoundOptions["model"], shape: PackedShape): Graph {
  const g = createGraph(name);
  const { taps } = buildPackedModel(g, model, shape, packedRowInputs(g, shape), modelValues(g, model, {}));
  taps.forEach((own, layer) => {
    for (const [scale, value] of int8Places(own)) {
      g.output(layerPrefix(layer) + scale, g.max(g.abs(value), { axes: [0] }));
    }
  });
  return g;
}

async function sequenceLosses(
  { runtime, shape }: RoundOptions,
  name: string,
  model: PackedModel,
  weights: Tensors,
  batches: readonly Tensors[],
): Promise<number[]> {
  const score = createTokenScorer(runtime, name, model, shape);
  const losses: number[] = [];
  for (const feeds of batches) {
    const { logProbs } = await score(weights, feeds);
    const membership = feeds.membership!.data as Float32Array;
    for (let s = 0; s < shape.sequences; s++) {
      const own = membership.subarray(s * shape.targets, (s + 1) * shape.targets);
      const tokens = own.reduce((sum, member) => sum + member, 0);
      if (tokens > 0) losses.push(own.reduce((sum, member, n) => sum - member * logProbs[n]!, 0) / tokens);
    }
  }
  return losses;
}
