/**
 * @module From an architecture to a child: the chosen variants out of the block library, then a closed-form refit of
 * every layer in sequence on the child's own inputs.
 *
 * Parent and child walk together over the calibration text, layer by layer. With x the residual stream before a part
 * and p, c for parent and child, the last matrix of each part is fitted so that the child's own activations give
 * `x_p after - x_c before`: what the parent's stream should be from here, errors of earlier layers included. Every
 * layer is fitted, unchanged ones too; the pull is towards the library's weights. Memory: one block of each, the sums
 * of one matrix and one batch of activations.
 */
import { join } from "node:path";
import { fileExists, type OnEvent, writeJsonAtomic } from "../base/index.js";
import type { Engine } from "../engine/index.js";
import type { BlockConfig, ModelConfig } from "../models/index.js";
import type { Runtime } from "../runtime/index.js";
import { type F32Tensor, f32Tensor } from "../tensor/index.js";
import { batchesOf } from "./activations.js";
import type { BlockLibrary } from "./block-library.js";
import { type BatchedText, captureEmbedding, captureLayer, dropCapture, openCapture, readRows } from "./capture.js";
import { childFile, childLayerPath } from "./child.js";
import { createMatrixKernels, type MatrixKernels } from "./moments.js";
import { type HalfBlock, runHalf, runTapped, tapped } from "./parts.js";
import { asF32, defaultRidge, type Moments } from "./refit.js";
import { attentionId, ffnId } from "./space.js";
import { writeTensors } from "./tensor-files.js";
import { names, requireWeight, type SubBlock, withWeight } from "./variants.js";

export interface RealiseOptions {
  /** Fit the layers in sequence. Without it the child has the library's weights as they are. Defaults to true. */
  refit?: boolean;
  /** Strength of the pull towards the library's weights, as a share of the mean diagonal. Defaults to 1e-2. */
  ridge?: number;
  /**
   * Which attention parts are fitted beside the feed-forwards: `all`, or only those that are `needed`: linear ones, and
   * those of layers without a feed-forward. Defaults to `all`.
   */
  attention?: "needed" | "all";
}

export interface RealiseRequest extends RealiseOptions {
  runtime: Runtime;
  /** Engine of the parent. */
  engine: Engine;
  library: BlockLibrary;
  /** The child's blocks, one for each layer of the parent. */
  blocks: readonly BlockConfig[];
  /** Calibration text. */
  text: BatchedText;
  /** Holds the child; what an interrupted run left there is kept. */
  directory: string;
  onEvent: OnEvent;
  signal: AbortSignal;
}

/** Writes the child's layers and, last, `child.json`. `openChild` makes a model of them. */
export async function realise(request: RealiseRequest): Promise<void> {
  const { engine, blocks, directory, refit = true, onEvent, signal } = request;
  const kernels = createMatrixKernels(request.runtime);
  const walk: Walk = {
    ...request,
    kernels,
    parentStream: join(directory, "parent"),
    childStream: join(directory, "child"),
  };
  const first = await firstMissing(directory, blocks.length);
  // A run that was stopped between the two left the streams of a layer that is done.
  for (let layer = 0; layer < first; layer++) await dropStreams(walk, layer);
  if (refit && first === 0) {
    await captureEmbedding(engine, request.text, walk.parentStream);
    await captureEmbedding(engine, request.text, walk.childStream);
  }
  for (let layer = first; layer < blocks.length; layer++) {
    signal.throwIfAborted();
    const start = await libraryLayer(request.library, engine.config, blocks, layer);
    const child = refit ? await refitLayer(walk, layer, start) : start;
    await writeTensors(childLayerPath(directory, layer), new Map([...child.attention, ...child.ffn]));
    await dropStreams(walk, layer);
    onEvent({ event: "progress", stage: "realise", done: layer + 1, total: blocks.length, unit: "layers" });
  }
  await dropStreams(walk, blocks.length);
  await writeJsonAtomic(join(directory, childFile), { blocks });
  kernels.dispose();
}

interface Walk extends RealiseRequest {
  kernels: MatrixKernels;
  /** Directories of the two residual streams. */
  parentStream: string;
  childStream: string;
}

interface ChildLayer {
  block: BlockConfig;
  attention: SubBlock;
  ffn: SubBlock;
}

async function firstMissing(directory: string, layers: number): Promise<number> {
  for (let layer = 0; layer < layers; layer++) if (!(await fileExists(childLayerPath(directory, layer)))) return layer;
  return layers;
}

async function dropStreams({ parentStream, childStream }: Walk, layer: number): Promise<void> {
  await dropCapture(parentStream, layer);
  await dropCapture(childStream, layer);
}

async function libraryLayer(
  library: BlockLibrary,
  config: ModelConfig,
  blocks: readonly BlockConfig[],
  layer: number,
): Promise<ChildLayer> {
  const block = blocks[layer]!;
  return {
    block,
    attention: await library.weights(layer, "attention", attentionId(block.attention)),
    ffn: await library.weights(layer, "ffn", ffnId(block.ffn, config.blocks[layer]!.ffn)),
  };
}

/** Fits one layer of the child and moves both streams past it. */
async function refitLayer(walk: Walk, layer: number, start: ChildLayer): Promise<ChildLayer> {
  const attention = await moveParent(walk, layer, start);
  const ffn = await fitFfn(walk, layer, { ...start, attention });
  const child = { ...start, attention, ffn };
  await captureLayer({ ...walk, layer, directory: walk.childStream }, async (rows) => {
    const { output: x } = await runHalf(walk.engine, layer, attentionHalf(child), rows);
    return (await runHalf(walk.engine, layer, ffnHalf(child), { ...rows, x })).output;
  });
  return child;
}

/** Runs the parent's block over the text; on the way, fits the child's attention where that is asked for. */
async function moveParent(walk: Walk, layer: number, child: ChildLayer): Promise<SubBlock> {
  const { engine, kernels, attention: wanted = "all" } = walk;
  const { attention, ffn } = child.block;
  const isLast = ffn.kind === "none";
  const isNeeded = attention.kind === "linear" || isLast;
  const fit = wanted === "all" || isNeeded ? lastMatrix(engine.config, attentionHalf(child)) : undefined;
  const sums = fit && kernels.moments(fit.inputs, engine.config.hiddenSize);
  const childRows = await openCapture(engine, walk.text, walk.childStream, layer);
  let start = 0;
  try {
    await captureLayer({ ...walk, layer, directory: walk.parentStream }, async (rows) => {
      const parent = await runTapped(engine, layer, rows);
      if (fit && sums) {
        const own = await readRows(childRows, { start, count: rows.batch });
        const { taps } = await runHalf(engine, layer, attentionHalf(child), own, { taps: true });
        const wantedRows = isLast ? parent.output : parent.afterAttention;
        await sums.add(tapped(taps[fit.tap]), wantedRows, withBias(own.x, child.attention, fit.bias));
      }
      start += rows.batch;
      return parent.output;
    });
  } finally {
    await childRows.close();
  }
  return fit && sums ? refitHalf(walk, child.attention, fit, sums.moments) : child.attention;
}

/** The child's feed-forward, fitted so that its block ends where the parent's does. */
async function fitFfn(walk: Walk, layer: number, child: ChildLayer): Promise<SubBlock> {
  const { engine, kernels, text } = walk;
  const { config } = engine;
  const fit = lastMatrix(config, ffnHalf(child));
  if (!fit) return child.ffn;
  const sums = kernels.moments(fit.inputs, config.hiddenSize);
  const before = await openCapture(engine, text, walk.childStream, layer);
  const wanted = await openCapture(engine, text, walk.parentStream, layer + 1);
  try {
    for (const range of batchesOf(text.sequences.count, text.batch)) {
      const rows = await readRows(before, range);
      const { output: x } = await runHalf(engine, layer, attentionHalf(child), rows);
      const { taps } = await runHalf(engine, layer, ffnHalf(child), { ...rows, x }, { taps: true });
      await sums.add(tapped(taps[fit.tap]), (await readRows(wanted, range)).x, withBias(x, child.ffn, fit.bias));
    }
  } finally {
    await before.close();
    await wanted.close();
  }
  return refitHalf(walk, child.ffn, fit, sums.moments);
}

function attentionHalf({ block, attention }: ChildLayer): HalfBlock {
  return { part: "attention", config: block.attention, weights: attention };
}

function ffnHalf({ block, ffn }: ChildLayer): HalfBlock {
  return { part: "ffn", config: block.ffn, weights: ffn };
}

/** The matrix that ends a half, what goes into it, and its bias if the sub-block has one. */
interface LastMatrix {
  weight: string;
  bias?: string;
  tap: "attentionInput" | "attentionHeads" | "ffnInput" | "ffnHidden";
  inputs: number;
}

function lastMatrix({ hiddenSize, heads, headDim }: ModelConfig, half: HalfBlock): LastMatrix | undefined {
  switch (half.config.kind) {
    case "gqa":
      return { weight: `${names.o}.weight`, bias: `${names.o}.bias`, tap: "attentionHeads", inputs: heads * headDim };
    case "swiglu":
      return {
        weight: `${names.down}.weight`,
        bias: `${names.down}.bias`,
        tap: "ffnHidden",
        inputs: half.config.width,
      };
    case "linear":
      return half.part === "attention"
        ? { weight: names.linearAttention, tap: "attentionInput", inputs: hiddenSize }
        : { weight: names.linearFfn, tap: "ffnInput", inputs: hiddenSize };
    case "none":
      return undefined;
  }
}

/** The residual stream with a half's output bias added, which the fit leaves alone. */
function withBias(x: F32Tensor, half: SubBlock, name: string | undefined): F32Tensor {
  const bias = name === undefined ? undefined : half.get(name);
  if (!bias) return x;
  const values = asF32(bias);
  return f32Tensor(
    x.shape,
    x.data.map((value, i) => value + values[i % values.length]!),
  );
}

async function refitHalf(
  { kernels, ridge = defaultRidge }: Walk,
  half: SubBlock,
  { weight }: LastMatrix,
  moments: Moments,
): Promise<SubBlock> {
  return withWeight(half, weight, await kernels.refit(requireWeight(half, weight), moments, ridge));
}
