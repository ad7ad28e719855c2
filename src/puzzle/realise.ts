/**
 * @module From an architecture to a child: the chosen variants out of the block library, then a closed-form refit of
 * every layer in sequence on the child's own inputs.
 *
 * The child walks over the calibration text beside the parent's captured stream, layer by layer. With x the residual
 * stream before a part and p, c for parent and child, the last matrix of a part is fitted so that the child's own
 * activations give `x_p after - x_c before`: what the parent's stream should be from here, errors of earlier layers
 * included. From the first changed layer on the feed-forward of every layer is fitted, unchanged ones too; up to there the
 * child is its parent, whose captured stream it starts from. The pull is towards the library's weights. What goes into a
 * feed-forward's last matrix is kept on disk while that is fitted, so that the stream moves on by one product.
 * Memory: one block, the sums of one matrix and one batch of activations.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { fileExists, type OnEvent, writeJsonAtomic } from "../base/index.js";
import { sliceSequences } from "../data/index.js";
import type { Engine } from "../engine/index.js";
import { type BlockConfig, type ModelConfig, sameBlock } from "../models/index.js";
import type { Runtime } from "../runtime/index.js";
import { type F32Tensor, f32Tensor } from "../tensor/index.js";
import { type ActivationReader, batchesOf, createActivations, openActivations } from "./activations.js";
import type { BlockLibrary } from "./block-library.js";
import {
  type BatchedText,
  captureLayerFrom,
  dropCapture,
  openCapture,
  readRows,
  streamShape,
  writeBatches,
} from "./capture.js";
import { childFile, childLayerPath } from "./child.js";
import { createMatrixKernels, type MatrixKernels } from "./moments.js";
import { type HalfBlock, runHalf, tapped } from "./parts.js";
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
   * Which attention parts are fitted beside the feed-forwards: `all`, or only those that are `changed` and those of
   * layers without a feed-forward. Defaults to `changed`.
   */
  attention?: "changed" | "all";
  /** Tokens of the text that the fits take, its first whole sequences. Defaults to all. */
  tokens?: number;
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
  /** What `capture` wrote for the same text; unread without a refit. */
  captured: string;
  /** Holds the child; what an interrupted run left there is kept. */
  directory: string;
  onEvent: OnEvent;
  signal: AbortSignal;
}

/** Writes the child's layers and, last, `child.json`. `openChild` makes a model of them. */
export async function realise(request: RealiseRequest): Promise<void> {
  const { engine, blocks, directory, refit = true, onEvent, signal } = request;
  const walk = startWalk(request);
  const { kernels, childStream } = walk;
  const first = await firstMissing(directory, blocks.length);
  // A run that was stopped between the two left the stream of a layer that is done.
  for (let layer = 0; layer < first; layer++) await dropCapture(childStream, layer);
  for (let layer = first; layer < blocks.length; layer++) {
    signal.throwIfAborted();
    const start = await libraryLayer(request.library, engine.config, blocks, layer);
    const child = refit && layer >= walk.firstChanged ? await refitLayer(walk, layer, start) : start;
    await writeTensors(childLayerPath(directory, layer), new Map([...child.attention, ...child.ffn]));
    await dropCapture(childStream, layer);
    onEvent({ event: "progress", stage: "realise", done: layer + 1, total: blocks.length, unit: "layers" });
  }
  await writeJsonAtomic(join(directory, childFile), { blocks });
  kernels.dispose();
}

interface Walk extends RealiseRequest {
  kernels: MatrixKernels;
  /** The part of the text that the fits take. */
  fitted: BatchedText;
  /** The first layer that is not the parent's; the number of layers where all are. */
  firstChanged: number;
  /** Directory of the child's residual stream. */
  childStream: string;
  /** The child's stream between the halves of the layer at work. */
  middle: string;
  /** What its feed-forward's last matrix reads. */
  hidden: string;
}

function startWalk(request: RealiseRequest): Walk {
  const { engine, runtime, blocks, text, directory, tokens } = request;
  const { count, length } = text.sequences;
  const sequences = tokens === undefined ? count : Math.min(count, Math.max(1, Math.ceil(tokens / length)));
  const changed = blocks.findIndex((block, layer) => !sameBlock(block, engine.config.blocks[layer]!));
  const childStream = join(directory, "child");
  return {
    ...request,
    kernels: createMatrixKernels(runtime),
    fitted: { ...text, sequences: sliceSequences(text.sequences, 0, sequences) },
    firstChanged: changed < 0 ? blocks.length : changed,
    childStream,
    middle: join(childStream, "middle.f32"),
    hidden: join(childStream, "hidden.f32"),
  };
}

/** The child's residual stream before a layer; up to the first changed one that is the parent's. */
function openOwn(walk: Walk, layer: number): Promise<ActivationReader> {
  const { engine, fitted, childStream, firstChanged } = walk;
  return layer <= firstChanged ? openParents(walk, layer) : openCapture(engine, fitted, childStream, layer);
}

/** The parent's, of all of the text. */
function openParents({ engine, text, captured }: Walk, layer: number): Promise<ActivationReader> {
  return openCapture(engine, text, captured, layer);
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

/** Fits one layer of the child and moves its stream past it. */
async function refitLayer(walk: Walk, layer: number, start: ChildLayer): Promise<ChildLayer> {
  const attention = await fitAttention(walk, layer, start);
  const ffn = await fitFfn(walk, layer, { ...start, attention });
  const child = { ...start, attention, ffn };
  if (layer + 1 < walk.blocks.length) await moveStream(walk, layer, child);
  await rm(walk.middle);
  await rm(walk.hidden, { force: true });
  return child;
}

/** The child's attention, fitted where that is asked for so that the stream behind it is the parent's. */
async function fitAttention(walk: Walk, layer: number, child: ChildLayer): Promise<SubBlock> {
  const { engine, kernels, fitted, attention: wanted = "changed" } = walk;
  const parent = engine.config.blocks[layer]!;
  const isLast = child.block.ffn.kind === "none";
  const isChanged = attentionId(child.block.attention) !== attentionId(parent.attention);
  const fit = wanted === "all" || isChanged || isLast ? lastMatrix(engine.config, attentionHalf(child)) : undefined;
  if (!fit) return child.attention;
  const sums = kernels.moments(fit.inputs, engine.config.hiddenSize);
  const own = await openOwn(walk, layer);
  const parents = await openParents(walk, isLast ? layer + 1 : layer);
  try {
    for (const range of batchesOf(fitted.sequences.count, fitted.batch)) {
      const rows = await readRows(own, range);
      const { taps } = await runHalf(engine, layer, attentionHalf(child), rows, { taps: true });
      const theirs = await readRows(parents, range);
      const half: HalfBlock = { part: "attention", config: parent.attention };
      const after = isLast ? theirs.x : (await runHalf(engine, layer, half, theirs)).output;
      await sums.add(tapped(taps[fit.tap]), after, withBias(rows.x, child.attention, fit.bias));
    }
  } finally {
    await own.close();
    await parents.close();
  }
  return refitHalf(walk, child.attention, fit, sums.moments);
}

/**
 * The child's feed-forward, fitted so that its block ends where the parent's does. Leaves the stream between the two
 * halves in `middle`, and what its last matrix reads in `hidden`.
 */
async function fitFfn(walk: Walk, layer: number, child: ChildLayer): Promise<SubBlock> {
  const { engine, kernels, fitted, middle } = walk;
  const fit = lastMatrix(engine.config, ffnHalf(child));
  const sums = fit && kernels.moments(fit.inputs, engine.config.hiddenSize);
  const before = await openOwn(walk, layer);
  const wanted = await openParents(walk, layer + 1);
  const hidden = fit && (await createActivations(walk.hidden));
  try {
    await writeBatches(middle, fitted, async (range) => {
      const rows = await readRows(before, range);
      const { output: x } = await runHalf(engine, layer, attentionHalf(child), rows);
      if (fit && sums && hidden) {
        const { taps } = await runHalf(engine, layer, ffnHalf(child), { ...rows, x }, { taps: true });
        const inputs = tapped(taps[fit.tap]);
        await hidden.append(inputs);
        await sums.add(inputs, (await readRows(wanted, range)).x, withBias(x, child.ffn, fit.bias));
      }
      return x;
    });
  } catch (error) {
    await hidden?.abort();
    throw error;
  } finally {
    await before.close();
    await wanted.close();
  }
  await hidden?.commit();
  return fit && sums ? refitHalf(walk, child.ffn, fit, sums.moments) : child.ffn;
}

/** From the middle of the child's block to its end: the last matrix of the feed-forward on what it reads. */
async function moveStream(walk: Walk, layer: number, child: ChildLayer): Promise<void> {
  const { engine, kernels, fitted: text, childStream, middle } = walk;
  const fit = lastMatrix(engine.config, ffnHalf(child));
  const rows = await openActivations(middle, streamShape(engine, text));
  const hidden = fit && (await openActivations(walk.hidden, { ...streamShape(engine, text), width: fit.inputs }));
  try {
    await captureLayerFrom(rows, { engine, text, directory: childStream, layer }, async ({ x }, range) => {
      if (!fit || !hidden) return x;
      const inputs = await hidden.read(range.start, range.count);
      return kernels.addImage(withBias(x, child.ffn, fit.bias), inputs, requireWeight(child.ffn, fit.weight));
    });
  } finally {
    await rows.close();
    await hidden?.close();
  }
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
