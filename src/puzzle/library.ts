/**
 * @module Scores and costs together: the block library that a search takes, {layer: {block: {stats, metrics}}}.
 */
import { internal, mean, meanInterval } from "../base/index.js";
import { type BlockConfig, blockParameters, type ModelConfig, sameBlock } from "../models/index.js";
import type { LayerScores } from "./score.js";
import type { Library, Variant } from "./search/index.js";
import { createLevel, pairFactorOf, sequenceScores } from "./sequence-scores.js";
import { blockChoices, blockId, layerSpace, parseBlockId, type Space } from "./space.js";

/** Costs of one block by name, such as bytes of memory. `params` is there always. */
export type BlockCosts = (block: BlockConfig, layer: number) => Record<string, number>;

export interface ComposeOptions {
  /**
   * What the sum of two halves' scores is multiplied with where only the halves were scored; never less than the worse
   * half is taken. Defaults to what the pairs among the scores show (`measurePairFactor`), with fewer than 5 to 0.76,
   * the median of NVIDIA's library of a 70B model.
   */
  pairFactor?: number;
  costs?: BlockCosts;
}

/** The library of all pairs of all layers; the parent's own block scores 0. Scores are brought to one level. */
export function composeLibrary(
  config: ModelConfig,
  space: Space,
  scores: readonly LayerScores[],
  { pairFactor = pairFactorOf(config, scores), costs = () => ({}) }: ComposeOptions = {},
): Library {
  const level = createLevel(scores.flatMap(({ kl }) => Object.values(kl)));
  return Object.fromEntries(
    scores.map((entry) => {
      const { layer } = entry;
      const parent = config.blocks[layer]!;
      const place = layerSpace(space, layer);
      const variants = blockChoices(place).map((block): [string, Variant] => [
        blockId(block, parent),
        {
          stats: { params: blockParameters(config, block), ...costs(block, layer) },
          metrics: metricsOf(level(sequenceScores(entry, block, { parent, pairFactor }))),
          ...(place.span > 1 && { layers: Array.from({ length: place.span }, (_, i) => String(layer + i)) }),
        },
      ]);
      return [String(layer), Object.fromEntries(variants)];
    }),
  );
}

/** Mean over the sequences with its 95 % interval and their number; a single sequence has no interval. */
function metricsOf(values: readonly number[]): Record<string, number> {
  if (values.length < 2) return { kl_div: mean(values), kl_div_n: values.length };
  const { mean: centre, low, high, n } = meanInterval(values);
  return { kl_div: centre, kl_div_low: low, kl_div_high: high, kl_div_n: n };
}

/** layer -> block name, as a search returns it, as the child's blocks from first to last. */
export function architectureOf(config: ModelConfig, choice: Readonly<Record<string, string>>): BlockConfig[] {
  return config.blocks.map((_, layer) => parseBlockId(choice[layer] ?? internal(`no choice for layer ${layer}`)));
}

/** The choice that stands for an architecture. */
export function choiceOf(config: ModelConfig, blocks: readonly BlockConfig[]): Record<string, string> {
  return Object.fromEntries(blocks.map((block, layer) => [String(layer), blockId(block, config.blocks[layer]!)]));
}

/** Sum of the scores of an architecture's blocks: the KL that the search predicts for it. */
export function predictedKl(library: Library, choice: Readonly<Record<string, string>>): number {
  return Object.entries(choice).reduce(
    (sum, [layer, id]) => sum + (library[layer]?.[id]?.metrics.kl_div ?? Number.NaN),
    0,
  );
}

/** Layers in which a child differs from its parent. */
export function changedLayers(config: ModelConfig, blocks: readonly BlockConfig[]): number[] {
  return blocks.flatMap((block, layer) => (sameBlock(block, config.blocks[layer]!) ? [] : [layer]));
}
