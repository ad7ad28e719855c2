/**
 * @module The search space of Puzzle (arXiv:2411.19146, section 2): for each layer of the parent, the attention and
 * feed-forward sub-blocks that may stand in for its own. Every sub-block keeps the parent's hidden size.
 *
 * Departures: widths are rounded to what checkpoint formats and kernels like, and variants that a target format
 * cannot hold are left out and named.
 */
import { EspalierError, internal } from "../base/index.js";
import {
  type AttentionConfig,
  type BlockConfig,
  blockParameters,
  type FfnConfig,
  type ModelConfig,
} from "../models/index.js";

/** Which half of a block. */
export type Part = "attention" | "ffn";

/** Checkpoint formats that the child has to fit into. */
export type Target = "gguf" | "hf";

/** One way to build the attention half of a layer; `id` is its name everywhere: `gqa 2`, `linear`, `none`. */
export interface AttentionVariant {
  id: string;
  config: AttentionConfig;
}

/** One way to build the feed-forward half; `id` is `swiglu 88 (50%)`, `linear` or `none`. */
export interface FfnVariant {
  id: string;
  config: FfnConfig;
}

/** What may stand at one place of the child. The first variant of each half is the parent's own. */
export interface LayerSpace {
  /** First parent layer that a choice made here replaces. */
  layer: number;
  /** How many consecutive parent layers it replaces; 1 for all variants of a single layer. */
  span: number;
  attention: AttentionVariant[];
  ffn: FfnVariant[];
}

/** A variant that was asked for and is not in the space. */
export interface Omission {
  layer: number;
  part: Part;
  id: string;
  target: Target;
  reason: string;
}

export interface Space {
  layers: LayerSpace[];
  omitted: Omission[];
}

export interface SpaceOptions {
  /** Formats that every child must fit into. Defaults to both. */
  targets?: readonly Target[];
  /** Shares of the parent's feed-forward width, in (0, 1]. Defaults to 1, 0.75, 0.5, 0.25, 0.1. */
  ffnFractions?: readonly number[];
  /** Offer fewer kv heads: n/2, n/4, ..., 1. Defaults to true. */
  fewerKvHeads?: boolean;
  /** Offer one linear layer instead of a sub-block. Defaults to true. */
  linear?: boolean;
  /** Offer leaving a sub-block out. Defaults to true. */
  none?: boolean;
}

const defaultFractions = [1, 0.75, 0.5, 0.25, 0.1] as const;

/** The variants of every layer, the parent's own first, and what the targets forbid. */
export function buildSpace(config: ModelConfig, options: SpaceOptions = {}): Space {
  const { targets = ["gguf", "hf"] } = options;
  checkFractions(options.ffnFractions ?? defaultFractions);
  const omitted: Omission[] = [];
  const layers = config.blocks.map((block, layer) => ({
    layer,
    span: 1,
    attention: attentionVariants(block.attention, options).filter(({ id, config: attention }) =>
      targets.every((target) => {
        const reason = attentionObstacle(target, layer, attention);
        if (reason) omitted.push({ layer, part: "attention", id, target, reason });
        return reason === undefined;
      }),
    ),
    ffn: ffnVariants(block.ffn, options),
  }));
  return { layers, omitted };
}

function checkFractions(fractions: readonly number[]): void {
  const wrong = fractions.filter((fraction) => !(fraction > 0 && fraction <= 1));
  if (wrong.length === 0) return;
  throw new EspalierError({
    where: "space: ffnFractions",
    expected: "shares of the parent's width, above 0 and at most 1",
    found: wrong.join(", "),
    exitCode: 2,
  });
}

/**
 * Why a format cannot hold a variant. The GGUF writer repacks sub-layers (an attention with the next feed-forward that
 * follows it; a linear feed-forward as linear attention), so what is left is the first layer: llama.cpp's `deci` reads
 * the size of a head from there and nowhere else.
 */
function attentionObstacle(target: Target, layer: number, attention: AttentionConfig): string | undefined {
  if (target === "gguf" && layer === 0 && attention.kind !== "gqa") {
    return "llama.cpp reads the head size from the first layer's attention and needs a layer with a key-value cache";
  }
  return undefined;
}

function attentionVariants(parent: AttentionConfig, options: SpaceOptions): AttentionVariant[] {
  const { fewerKvHeads = true, linear = true, none = true } = options;
  const configs: AttentionConfig[] = [parent];
  if (parent.kind === "gqa" && fewerKvHeads) {
    configs.push(...fewerHeads(parent.kvHeads).map((kvHeads) => ({ kind: "gqa", kvHeads }) as const));
  }
  if (parent.kind === "gqa" && linear) configs.push({ kind: "linear" });
  if (parent.kind !== "none" && none) configs.push({ kind: "none" });
  return configs.map((config) => ({ id: attentionId(config), config }));
}

/** 8 -> 4, 2, 1; an odd count goes to its largest proper divisor: 9 -> 3, 1. */
export function fewerHeads(kvHeads: number): number[] {
  if (kvHeads === 1) return [];
  const next = largestProperDivisor(kvHeads);
  return [next, ...fewerHeads(next)];
}

function largestProperDivisor(n: number): number {
  for (let divisor = 2; divisor * divisor <= n; divisor++) if (n % divisor === 0) return n / divisor;
  return 1;
}

function ffnVariants(parent: FfnConfig, options: SpaceOptions): FfnVariant[] {
  const { ffnFractions = defaultFractions, linear = true, none = true } = options;
  const variants: FfnVariant[] = [{ id: ffnId(parent, parent), config: parent }];
  if (parent.kind === "swiglu") {
    for (const fraction of [...ffnFractions].sort((a, b) => b - a)) {
      const config: FfnConfig = { kind: "swiglu", width: roundWidth(parent.width, fraction) };
      const id = ffnId(config, parent);
      // Shares of a narrow parent may round to the same width.
      if (variants.every(({ id: other }) => other !== id)) variants.push({ id, config });
    }
    if (linear) variants.push({ id: "linear", config: { kind: "linear" } });
  }
  if (parent.kind !== "none" && none) variants.push({ id: "none", config: { kind: "none" } });
  return variants;
}

/**
 * A share of the parent's width, to a multiple of 32 where the parent's own width is one (rows of block-quantised
 * tensors must be), else of 4. Never below one such step nor above the parent.
 */
export function roundWidth(parentWidth: number, fraction: number): number {
  if (fraction === 1) return parentWidth;
  const step = parentWidth % 32 === 0 ? 32 : 4;
  return Math.min(parentWidth, Math.max(step, Math.round((parentWidth * fraction) / step) * step));
}

/** `gqa 2`, `linear`, `none`. */
export function attentionId(attention: AttentionConfig): string {
  return attention.kind === "gqa" ? `gqa ${attention.kvHeads}` : attention.kind;
}

/** `swiglu 88 (51%)`, `linear`, `none`; the share is of the parent's width, rounded for reading. */
export function ffnId(ffn: FfnConfig, parent: FfnConfig): string {
  if (ffn.kind !== "swiglu") return ffn.kind;
  const whole = parent.kind === "swiglu" ? parent.width : ffn.width;
  return `swiglu ${ffn.width} (${Math.round((100 * ffn.width) / whole)}%)`;
}

/** The name of a whole block's choice in a block library: `gqa 2 | swiglu 88 (51%)`. */
export function blockId(block: BlockConfig, parent: BlockConfig): string {
  return `${attentionId(block.attention)} | ${ffnId(block.ffn, parent.ffn)}`;
}

/** The block that a name made by `blockId` stands for. Throws on any other text. */
export function parseBlockId(id: string): BlockConfig {
  const [attention, ffn, ...rest] = id.split(" | ");
  if (attention === undefined || ffn === undefined || rest.length > 0) return badBlockId(id);
  return { attention: parseAttention(attention, id), ffn: parseFfn(ffn, id) };
}

/** One half of a block by its name. */
export function parseHalf(part: Part, id: string) {
  return part === "attention" ? { part, config: parseAttention(id, id) } : { part, config: parseFfn(id, id) };
}

function parseAttention(text: string, id: string): AttentionConfig {
  if (text === "linear" || text === "none") return { kind: text };
  const kvHeads = /^gqa (\d+)$/.exec(text)?.[1];
  return kvHeads === undefined ? badBlockId(id) : { kind: "gqa", kvHeads: Number(kvHeads) };
}

function parseFfn(text: string, id: string): FfnConfig {
  if (text === "linear" || text === "none") return { kind: text };
  const width = /^swiglu (\d+) \(\d+%\)$/.exec(text)?.[1];
  return width === undefined ? badBlockId(id) : { kind: "swiglu", width: Number(width) };
}

function badBlockId(id: string): never {
  throw new EspalierError({
    where: `block "${id}"`,
    expected: 'a name such as "gqa 2 | swiglu 88 (50%)", "linear | none"',
    fix: "take the names from the block library that this search was run on",
  });
}

/** Every pair of an attention and a feed-forward variant of one place, the parent's own block first. */
export function blockChoices({ attention, ffn }: LayerSpace): BlockConfig[] {
  return attention.flatMap((a) => ffn.map((f) => ({ attention: a.config, ffn: f.config })));
}

/** How many children the space holds, as a power of ten. */
export function spaceSizeLog10({ layers }: Space): number {
  return layers.reduce((sum, { attention, ffn }) => sum + Math.log10(attention.length * ffn.length), 0);
}

/** Fewest parameters that a child of the space can have, and the parent's own count, blocks only. */
export function blockParameterRange(config: ModelConfig, { layers }: Space): { least: number; most: number } {
  let least = 0;
  let most = 0;
  for (const layer of layers) {
    const counts = blockChoices(layer).map((block) => blockParameters(config, block));
    least += Math.min(...counts);
    most += Math.max(...counts);
  }
  return { least, most };
}

/** The variants of one layer of the parent. */
export function layerSpace({ layers }: Space, layer: number): LayerSpace {
  return layers.find((entry) => entry.layer === layer) ?? internal(`space has no layer ${layer}`);
}

/** One line per omission that is worth a user's eye, equal reasons together. */
export function describeOmissions(omitted: readonly Omission[]): string[] {
  return omitted.map(
    ({ layer, part, id, target, reason }) => `layer ${layer}: ${part} "${id}" left out for ${target}: ${reason}`,
  );
}
