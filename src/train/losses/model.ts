import type { GraphBuilder, Value } from "../../graph/index.js";
import {
  buildModel,
  type ModelConfig,
  type ModelOutputs,
  modelWeights,
  positionsFrom,
  rotaryTables,
} from "../../models/index.js";
import type { BuildLoss } from "../step.js";
import { distillationLoss } from "./distil.js";

export interface BatchShape {
  batch: number;
  length: number;
}

/**
 * Next-token loss of a whole model: weighted mean of cross-entropy, in nats.
 * Inputs of a batch: `ids` i64 [B, T], `targets` i64 [B * T], `weights` f32 [B * T] (0 where nothing is to be learnt).
 */
export function languageModelLoss(config: ModelConfig, shape: BatchShape): BuildLoss {
  return (g, parameters, denominator) => {
    const { ids, weights, rows } = batchInputs(g, shape);
    const targets = g.input("targets", [rows], "i64");
    const { finalHidden, headWeight, hiddenStates } = buildOnText(g, config, shape, ids, parameters);
    return {
      loss: g.crossEntropy(finalHidden, headWeight, targets, weights, { denominator }),
      streams: hiddenStates,
    };
  };
}

/** Prefix of the parent's weights among the frozen inputs. */
export const parentPrefix = "parent/";

/**
 * A child's distance from its parent: see `distillationLoss`. Parent and child run in one graph.
 * Inputs of a batch: `ids` i64 [B, T], `weights` f32 [B * T]. Frozen inputs: the parent's weights as `parent/NAME`.
 */
export function modelDistillationLoss(parent: ModelConfig, child: ModelConfig, shape: BatchShape): BuildLoss {
  return (g, parameters, denominator) => {
    const { ids, weights } = batchInputs(g, shape);
    const parentWeights = Object.fromEntries(
      modelWeights(parent).map(({ name, shape }) => [name, g.input(parentPrefix + name, shape)]),
    );
    const teacher = buildOnText(g, parent, shape, ids, parentWeights);
    const student = buildOnText(g, child, shape, ids, parameters);
    return distillationLoss(g, afterBlocks(student), afterBlocks(teacher), { weights, denominator });
  };
}

function batchInputs(g: GraphBuilder, { batch, length }: BatchShape) {
  const rows = batch * length;
  return { rows, ids: g.input("ids", [batch, length], "i64"), weights: g.input("weights", [rows]) };
}

function buildOnText(
  g: GraphBuilder,
  config: ModelConfig,
  { batch, length }: BatchShape,
  ids: Value,
  weights: Readonly<Record<string, Value>>,
): ModelOutputs {
  const tables = rotaryTables(config, positionsFrom(0, length));
  return buildModel(g, config, {
    batch,
    length,
    ids,
    weights,
    cos: g.constant(tables.cos),
    sin: g.constant(tables.sin),
  });
}

/** Without the embeddings, which come before the first block. */
function afterBlocks({ hiddenStates, ...rest }: ModelOutputs) {
  return { hiddenStates: hiddenStates.slice(1), ...rest };
}
