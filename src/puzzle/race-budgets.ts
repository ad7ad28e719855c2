/**
 * @module Budgets for a race whose scores are to serve any child: a family over the range of what blocks can cost, so
 * that a later budget finds its choice among blocks that were scored well and nothing needs to be scored again.
 *
 * Two costs span what devices charge for: parameters, and parameters with attention priced several times as high (its
 * cache, its quadratic part). Budgets lie at even shares between the least and the most that any choice costs.
 */
import { attentionWeights, type BlockConfig, blockParameters, type ModelConfig } from "../models/index.js";
import type { BlockCosts } from "./library.js";
import { blockChoices, type Space } from "./space.js";
import type { BudgetSet } from "./undecided.js";

const shares = [0.85, 0.7, 0.55, 0.4];
const attentionPrice = 4;

export interface RaceBudgets {
  budgets: BudgetSet[];
  costs: BlockCosts;
}

export function raceBudgets(config: ModelConfig, space: Space): RaceBudgets {
  const costs: BlockCosts = (block) => ({
    params: blockParameters(config, block),
    "attention-heavy": blockParameters(config, block) + (attentionPrice - 1) * attentionParameters(config, block),
  });
  const budgets = ["params", "attention-heavy"].flatMap((name) => {
    const totals = space.layers.map((layer) => blockChoices(layer).map((block) => costs(block, layer.layer)[name]!));
    const sum = (pick: (...values: number[]) => number) => totals.reduce((all, own) => all + pick(...own), 0);
    const [least, most] = [sum(Math.min), sum(Math.max)];
    return shares.map((share) => ({ max: { [name]: least + share * (most - least) } }));
  });
  return { budgets, costs };
}

function attentionParameters(config: ModelConfig, { attention }: BlockConfig): number {
  return attentionWeights(config, attention).reduce(
    (sum, { shape }) => sum + shape.reduce((size, length) => size * length, 1),
    0,
  );
}
