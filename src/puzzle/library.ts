/**
 * @module Scores and costs together: the block library that a search takes, {layer: {block: {stats, metrics}}}.
 */
import { internal, mean, meanInterval } from "../base/index.js";
import { type BlockConfig, blockParameters, type ModelConfig, sameBlock } from "../models/index.js";
import type { LayerScores } from "./score.js";
import type { Library, Variant } from "./search/index.js";
import { blockChoices, blockId, type LayerSpace, layerSpace, parseBlockId, type Space } from "./space.js";

/** Costs of one block by name, such as bytes of memory. `params` is there always. */
export type BlockCosts = (block: BlockConfig, layer: number) => Record<string, number>;

export interface ComposeOptions {
  /**
   * What the sum of two halves' scores is multiplied with where only the halves were scored. Measured on one large
   * library: replacing both costs 0.75 to 0.77 of the sum (median), and never less than the worse half here.
   * Defaults to 0.76.
   */
  pairFactor?: number;
  costs?: BlockCosts;
}

/** The library of all pairs of all layers; the parent's own block scores 0. */
export function composeLibrary(
  config: ModelConfig,
  space: Space,
  scores: readonly LayerScores[],
  { pairFactor = 0.76, costs = () => ({}) }: ComposeOptions = {},
): Library {
  return Object.fromEntries(
    scores.map((entry) => {
      const { layer } = entry;
      const parent = config.blocks[layer]!;
      const place = layerSpace(space, layer);
      const variants = blockChoices(place).map((block): [string, Variant] => [
        blockId(block, parent),
        {
          stats: { params: blockParameters(config, block), ...costs(block, layer) },
          metrics: metricsOf(sequenceScores(entry, block, { parent, place, pairFactor })),
          ...(place.span > 1 && { layers: Array.from({ length: place.span }, (_, i) => String(layer + i)) }),
        },
      ]);
      return [String(layer), Object.fromEntries(variants)];
    }),
  );
}

/** Mean over the sequences with its 95 % interval; a single sequence has no interval. */
function metricsOf(values: readonly number[]): Record<string, number> {
  if (values.length < 2) return { kl_div: mean(values) };
  const { mean: centre, low, high } = meanInterval(values);
  return { kl_div: centre, kl_div_low: low, kl_div_high: high };
}

function sequenceScores(
  { kl }: LayerScores,
  block: BlockConfig,
  { parent, pairFactor }: { parent: BlockConfig; place: LayerSpace; pairFactor: number },
): number[] {
  const scored = kl[blockId(block, parent)];
  if (scored) return scored;
  const half = (other: BlockConfig): number[] =>
    kl[blockId(other, parent)] ?? internal(`no score of ${blockId(other, parent)}`);
  const attention = half({ attention: block.attention, ffn: parent.ffn });
  const ffn = half({ attention: parent.attention, ffn: block.ffn });
  return attention.map((a, i) => Math.max(a, ffn[i]!, pairFactor * (a + ffn[i]!)));
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
