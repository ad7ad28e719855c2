/**
 * @module Reward models made of others, weight by weight: averages, and ExPO (arXiv:2404.16792), which goes on from a weak
 * model past a strong one that began from it. Weights are added up as they are read, so that no model lies in memory.
 */
import { EspalierError } from "../base/index.js";
import {
  type Model,
  modelWeights,
  type RewardHead,
  type RewardModel,
  readWeightRows,
  rewardHeadTensors,
  type WeightSource,
} from "../models/index.js";
import { type F32Tensor, f32Tensor } from "../tensor/index.js";
import { mergeWeights } from "./reward.js";

export interface MergeOptions {
  /** What each model counts for. Defaults to equal shares. */
  factors?: readonly number[];
}

/** The weighted sum of reward models of one shape; name, tokenizer and attributes are those of the first. */
export function mergeRewardModels(models: readonly RewardModel[], { factors }: MergeOptions = {}): RewardModel {
  const [first] = models;
  if (!first) throw new EspalierError({ where: "models", expected: "at least one", found: "none", exitCode: 2 });
  if (factors && factors.length !== models.length) {
    const found = `${factors.length}`;
    throw new EspalierError({ where: "factors", expected: `one a model, ${models.length}`, found, exitCode: 2 });
  }
  models.forEach((model, i) => {
    checkAlike(first, model, i);
  });
  const add = (tensors: readonly F32Tensor[]): F32Tensor =>
    f32Tensor(
      tensors[0]!.shape,
      mergeWeights(
        tensors.map(({ data }) => data),
        factors,
      ),
    );
  return {
    body: mergeBodies(
      models.map(({ body }) => body),
      add,
    ),
    head: mergeHeads(
      models.map(({ head }) => head),
      add,
    ),
  };
}

type Add = (tensors: readonly F32Tensor[]) => F32Tensor;

function mergeBodies(bodies: readonly Model[], add: Add): Model {
  const [first] = bodies as [Model];
  const sources = bodies.map(({ weights }) => weights);
  const weights: WeightSource = {
    ...first.weights,
    read: async (name) => add((await Promise.all(sources.map((source) => source.read(name)))) as F32Tensor[]),
    readRows: async (name, from, to) =>
      add(await Promise.all(sources.map((source) => readWeightRows(source, name, from, to)))),
  };
  return { ...first, path: "", weights, close: async () => {} };
}

function mergeHeads(heads: readonly RewardHead[], add: Add): RewardHead {
  const [first] = heads as [RewardHead];
  const bias = first.bias && add(heads.map((head) => head.bias!));
  return { ...first, weight: add(heads.map(({ weight }) => weight)), ...(bias && { bias }) };
}

function checkAlike(first: RewardModel, other: RewardModel, index: number): void {
  const shapes = ({ body: { config }, head }: RewardModel) => {
    const ofHead = Object.entries(rewardHeadTensors(head)).map(([name, { shape }]) => `${name} [${shape}]`);
    return [...modelWeights(config).map(({ name, shape }) => `${name} [${shape}]`), ...ofHead];
  };
  const [own, theirs] = [shapes(first), shapes(other)];
  const at = Array.from({ length: Math.max(own.length, theirs.length) }, (_, i) => i).find((i) => own[i] !== theirs[i]);
  const problem = (expected: string, found: string) => {
    const fix = "only models that grew from one can be merged";
    return new EspalierError({ where: `model ${index + 1} of the merge`, expected, found, fix, exitCode: 2 });
  };
  if (at !== undefined) throw problem(own[at] ?? "no more tensors", theirs[at] ?? "none");
  const names = ({ head }: RewardModel) => head.attributes.join(", ");
  if (names(first) !== names(other)) throw problem(`the attributes ${names(first)}`, names(other));
}
