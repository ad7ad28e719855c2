/**
 * @module Fills a block library: every variant's training-free start and, unless told otherwise, its closed-form refit
 * against what the parent's sub-block adds to the residual stream on the calibration text.
 *
 * | variant | start | refitted |
 * |---|---|---|
 * | narrower SwiGLU | the channels worth keeping (`channel-order.ts`) | `down_proj`, from the kept channels |
 * | fewer kv heads | mean of adjacent heads | `o_proj`, from the merged heads' output |
 * | linear attention | Wo repeat(Wv) | the whole matrix, from the normed input |
 * | linear feed-forward | Wdown Wup | the whole matrix, from the normed input |
 */
import { internal, type OnEvent } from "../base/index.js";
import type { Model } from "../models/index.js";
import type { Runtime } from "../runtime/index.js";
import { type F32Tensor, f32Tensor } from "../tensor/index.js";
import { type BlockLibrary, hasIndex, type LibraryEntry, writeIndex, writeVariant } from "./block-library.js";
import { kvHeadsOf, type LayerStatistics, readStatistics } from "./calibrate.js";
import { type ChannelRanking, rankByScore } from "./channel-order.js";
import { createMatrixKernels, type MatrixKernels } from "./moments.js";
import { readSubBlock } from "./parts.js";
import { asF32, defaultRidge, type Moments, selectInputs, wideInputs } from "./refit.js";
import { type AttentionVariant, type FfnVariant, layerSpace, type Space } from "./space.js";
import {
  channelContribution,
  linearAttention,
  linearFfn,
  matrix,
  mergeKvHeads,
  names,
  requireWeight,
  type SubBlock,
  sliceFfn,
  transposed,
  withWeight,
} from "./variants.js";

export interface BuildVariantsOptions {
  /** Closed-form refits after the training-free starts. Defaults to true. */
  refit?: boolean;
  /** How channels of a feed-forward are ranked; see `channel-order.ts`. Defaults to `elimination`. */
  ranking?: ChannelRanking;
  /** Strength of the pull towards the start, as a share of the mean diagonal. Defaults to 1e-2. */
  ridge?: number;
}

export interface BuildVariantsRequest extends BuildVariantsOptions {
  runtime: Runtime;
  parent: Model;
  space: Space;
  /** What `calibrate` wrote. */
  statistics: string;
  /** A library from the same statistics: its order of channels is taken over where it has one. */
  ranked?: BlockLibrary;
  /** Holds the library; what an interrupted run left there is kept. */
  directory: string;
  onEvent: OnEvent;
  signal: AbortSignal;
}

export async function buildVariants(request: BuildVariantsRequest): Promise<void> {
  const { runtime, parent, directory, onEvent, signal } = request;
  const layers = parent.config.blocks.length;
  const kernels = createMatrixKernels(runtime);
  for (let layer = 0; layer < layers; layer++) {
    signal.throwIfAborted();
    if (await hasIndex(directory, layer)) continue;
    await buildLayer(request, kernels, layer);
    onEvent({ event: "progress", stage: "variants", done: layer + 1, total: layers, unit: "layers" });
  }
  kernels.dispose();
}

/** A variant with its last matrix, what it was fitted from, and the start's error. */
interface Start {
  weights: SubBlock;
  /** Name of the matrix that a refit changes. */
  fitted: string;
  moments: Moments;
}

interface LayerSource {
  parent: Model;
  layer: number;
  weights: SubBlock;
  statistics: LayerStatistics;
  kernels: MatrixKernels;
  ranking: ChannelRanking;
  ridge: number;
  ranked?: BlockLibrary | undefined;
}

async function buildLayer(request: BuildVariantsRequest, kernels: MatrixKernels, layer: number): Promise<void> {
  const { parent, space, directory, ranked: known, ranking = "elimination", ridge = defaultRidge } = request;
  const { attention, ffn } = layerSpace(space, layer);
  const statistics = await readStatistics(request.statistics, layer);
  const entries: LibraryEntry[] = [];
  const add = async (part: "attention" | "ffn", id: string, start: Start) => {
    const { weights, ...errors } = await finish(start, kernels, request);
    await writeVariant(directory, layer, { part, id }, weights);
    entries.push({ part, id, ...errors });
  };
  const source = { parent, layer, statistics, kernels, ranking, ridge, ranked: known };
  const attentionSource = { ...source, weights: await readSubBlock(parent, layer, "attention") };
  for (const variant of attention.slice(1)) {
    if (variant.config.kind !== "none")
      await add("attention", variant.id, await startAttention(attentionSource, variant));
  }
  const ffnWeights = await readSubBlock(parent, layer, "ffn");
  const ffnSource = { ...source, weights: ffnWeights };
  const narrows = ffn.slice(1).some(({ config }) => config.kind === "swiglu");
  const ranked = narrows && statistics.hidden ? await rankChannels(ffnSource) : undefined;
  for (const variant of ffn.slice(1)) {
    if (variant.config.kind !== "none") await add("ffn", variant.id, await startFfn(ffnSource, ranked, variant));
  }
  const channels = ranked && { channels: [...ranked.order] };
  await writeIndex(directory, { layer, ...channels, variants: entries });
}

async function finish(
  start: Start,
  kernels: MatrixKernels,
  { refit = true, ridge = defaultRidge }: BuildVariantsOptions,
) {
  const { weights, fitted, moments } = start;
  const before = requireWeight(weights, fitted);
  const startError = await kernels.errorOf(before, moments);
  if (!refit) return { weights, startError };
  const after = await kernels.refit(before, moments, ridge);
  return { weights: withWeight(weights, fitted, after), startError, refitError: await kernels.errorOf(after, moments) };
}

async function startAttention(source: LayerSource, { config }: AttentionVariant): Promise<Start> {
  const { parent, layer, weights, statistics, kernels } = source;
  const from = kvHeadsOf(parent.config.blocks[layer]!.attention);
  switch (config.kind) {
    case "gqa": {
      const merged = mergeKvHeads(parent.config, weights, { from, to: config.kvHeads });
      const moments = statistics.merged.get(config.kvHeads);
      return { weights: merged, fitted: `${names.o}.weight`, moments: found(moments, layer) };
    }
    case "linear": {
      const linear = await linearAttention(parent.config, weights, from, kernels.multiply);
      return { weights: linear, fitted: names.linearAttention, moments: found(statistics.attention, layer) };
    }
    case "none":
      return internal("no attention has no weights");
  }
}

async function startFfn(
  { layer, weights, statistics, kernels }: LayerSource,
  ranked: RankedChannels | undefined,
  { config }: FfnVariant,
): Promise<Start> {
  switch (config.kind) {
    case "swiglu": {
      const { order, moments } = found(ranked, layer);
      const kept = order.subarray(0, config.width);
      const sliced = sliceFfn(weights, kept);
      return { weights: sliced, fitted: `${names.down}.weight`, moments: selectInputs(moments, kept) };
    }
    case "linear": {
      const linear = await linearFfn(weights, kernels.multiply);
      return { weights: linear, fitted: names.linearFfn, moments: found(statistics.ffn, layer) };
    }
    case "none":
      return internal("no feed-forward has no weights");
  }
}

/** Serves all widths: which channels to keep, and the moments of all of them. */
interface RankedChannels {
  order: Int32Array;
  moments: Moments;
}

/**
 * What the parent adds is linear in its channels (bias aside), so the cross sums follow from the Gram matrix: X^T Y = G Wdown^T, |Y|^2 = tr(Wdown G Wdown^T).
 */
async function rankChannels(source: LayerSource): Promise<RankedChannels> {
  const { layer, weights, statistics, kernels } = source;
  const down = matrix(weights, `${names.down}.weight`); // [H, I]
  const [m, n] = down.shape as [number, number];
  const gram = found(statistics.hidden, layer);
  const columns = transposed(down); // [I, H]
  const exact = f32Tensor([n, n], gram instanceof Float32Array ? gram : Float32Array.from(gram));
  const product = asF32(await kernels.multiply(exact, columns));
  const cross = n < wideInputs ? new Float64Array(product) : product;
  let targetSquares = 0;
  for (let i = 0; i < cross.length; i++) targetSquares += cross[i]! * columns.data[i]!;
  const order = (await knownOrder(source)) ?? (await orderChannels(source, down, columns));
  return { order, moments: { gram, cross, targetSquares, n, m } };
}

async function knownOrder({ ranked, layer }: LayerSource): Promise<Int32Array | undefined> {
  const channels = (await ranked?.index(layer))?.channels;
  return channels && Int32Array.from(channels);
}

/** @param columns `down` transposed */
async function orderChannels(
  { layer, statistics, kernels, ranking, ridge }: LayerSource,
  down: F32Tensor,
  columns: F32Tensor,
): Promise<Int32Array> {
  if (ranking === "contribution") return rankByScore(channelContribution(found(statistics.channels, layer), down));
  const [m, n] = down.shape as [number, number];
  return kernels.rank(found(statistics.hidden, layer), columns.data, { n, m, ridge });
}

function found<T>(value: T | undefined, layer: number): T {
  return value ?? internal(`no statistics for a variant of layer ${layer}; was it calibrated for the same space?`);
}
