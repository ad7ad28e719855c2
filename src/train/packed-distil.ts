/**
 * @module Distilling on packed rows: text and conversations alike, every divergence, hidden states, the teacher in the graph
 * or its best tokens from a cache. Positions that count are the targets of the batch.
 */
import { createGraph, type Graph, type GraphBuilder, type Value } from "../graph/index.js";
import type { ModelConfig, WeightValues } from "../models/index.js";
import { hiddenDistance } from "./losses/distil.js";
import { cachedDivergence, type DivergenceOptions, logitDivergence } from "./losses/divergence.js";
import { type Head, headLoss, headValues } from "./losses/head.js";
import { parentPrefix } from "./losses/model.js";
import {
  buildPackedModel,
  modelValues,
  type PackedInputs,
  type PackedModel,
  type PackedShape,
  packedInputs,
} from "./packed.js";
import type { BuildLoss } from "./step.js";

/** Where the teacher's distributions come from. */
export type TeacherSource =
  /** It runs in the graph; its weights, in f32 or in 8 bits, are frozen inputs `parent/NAME`. */
  | Pick<PackedModel, "config" | "frozen">
  /** Inputs of a batch: `cached/ids` i64 [N, K], `cached/logProbs` f32 [N, K]. */
  | { cached: number };

/** Share of each part in the loss; 0 leaves it out. */
export interface PartWeights {
  /** Divergence of next-token distributions. */
  logits: number;
  /** Cosine distance of hidden states. */
  hidden: number;
  /** Cross-entropy of the text itself. */
  text: number;
}

export interface PackedDistilOptions extends DivergenceOptions {
  student: Omit<PackedModel, "temperature">;
  teacher: TeacherSource;
  shape: PackedShape;
  weights: PartWeights;
}

/**
 * A loss for `train`. Inputs of a batch: those of `positionFeeds`, and the teacher's. Parts are reported
 * before they are weighted.
 */
export function packedDistillation(options: PackedDistilOptions): BuildLoss {
  const { student: model, teacher, shape, weights: shares, divergence = "forward", temperature = 1 } = options;
  return (g, parameters, denominator) => {
    const inputs = packedInputs(g, shape);
    const weights = g.input("weights", [shape.targets]);
    const over = { weights, denominator };
    const student = atTargets(g, model, shape, inputs, modelValues(g, model, parameters));
    const parts: Record<string, Value> = {};
    if ("cached" in teacher) {
      if (shares.logits > 0)
        parts.divergence = headLoss(g, student, over, cachedValues(g, shape, teacher.cached, options));
    } else if (shares.logits + shares.hidden > 0) {
      const parent = atTargets(g, teacher, shape, inputs, modelValues(g, teacher, {}, parentPrefix));
      if (shares.hidden > 0) parts.hidden = hiddenDistance(g, student.hiddenStates, parent.hiddenStates, over);
      if (shares.logits > 0 && divergence === "forward") {
        const kl = g.klDivergence(student, stopped(g, parent), weights, { temperature, denominator });
        parts.divergence = g.scale(kl, temperature ** 2);
      } else if (shares.logits > 0) {
        parts.divergence = headLoss(g, student, over, divergenceFrom(g, parent, options));
      }
    }
    if (shares.text > 0)
      parts.text = g.crossEntropy(student.hidden, student.head, inputs.targets, weights, { denominator });
    const weighted = { divergence: shares.logits, hidden: shares.hidden, text: shares.text };
    const terms = Object.entries(parts).map(([part, value]) => g.scale(value, weighted[part as keyof typeof weighted]));
    return { loss: terms.reduce((sum, term) => g.add(sum, term)), parts, streams: student.streams };
  };
}

interface AtTargets extends Head {
  /** After each block, [N, H]. */
  hiddenStates: Value[];
  /** Before every block and after the last, of all tokens: [B * T, H]. */
  streams: readonly Value[];
}

/** Hidden states at the tokens that predict. */
function atTargets(
  g: GraphBuilder,
  model: PackedModel,
  shape: PackedShape,
  inputs: PackedInputs,
  weights: WeightValues,
): AtTargets {
  const { hiddenStates, finalHidden, headWeight } = buildPackedModel(g, model, shape, inputs, weights);
  const taken = (x: Value) => g.gather(x, inputs.from);
  return {
    hidden: taken(finalHidden),
    head: headWeight,
    hiddenStates: hiddenStates.slice(1).map(taken),
    streams: hiddenStates,
  };
}

const stopped = (g: GraphBuilder, { hidden, head }: Head): Head => ({
  hidden: g.stopGradient(hidden),
  head: g.stopGradient(head),
});

function divergenceFrom(g: GraphBuilder, parent: Head, options: DivergenceOptions) {
  const teacher = stopped(g, parent);
  return ({ logits, from, to, next }: Parameters<Parameters<typeof headLoss>[3]>[0]) =>
    logitDivergence(g, logits, g.linear(next(g.slice(teacher.hidden, 0, from, to)), teacher.head), options);
}

function cachedValues(g: GraphBuilder, { targets }: PackedShape, k: number, options: DivergenceOptions) {
  const ids = g.input("cached/ids", [targets, k], "i64");
  const logProbs = g.input("cached/logProbs", [targets, k]);
  return ({ logits, from, to }: Parameters<Parameters<typeof headLoss>[3]>[0]) =>
    cachedDivergence(g, logits, g.slice(logProbs, 0, from, to), g.slice(ids, 0, from, to), options);
}

/** KL(teacher || student) of each target at temperature 1, output `kl` [N]: the measure, whatever was trained on. */
export function packedKlGraph(
  name: string,
  student: Omit<PackedModel, "temperature">,
  teacher: ModelConfig,
  shape: PackedShape,
): Graph {
  const g = createGraph(name);
  const inputs = packedInputs(g, shape);
  const child = atTargets(g, student, shape, inputs, modelValues(g, student, {}));
  const parent = atTargets(
    g,
    { config: teacher },
    shape,
    inputs,
    modelValues(g, { config: teacher }, {}, parentPrefix),
  );
  g.output("kl", headValues(g, child, divergenceFrom(g, parent, {})));
  return g;
}
