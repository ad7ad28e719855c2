/**
 * @module Block-wise local distillation (arXiv:2411.19146, section 3), decoupled: every variant of a half block is
 * trained by itself on the parent's activations, with the normalised squared error of what it adds to the residual
 * stream, |parent - child|^2 / |parent|^2. One small graph serves all layers.
 *
 * Departures: an attention variant is trained towards the parent's attention, not towards the block's output through
 * the parent's frozen feed-forward: the same optimum where the variant can reach it, and no frozen half to run. Blocks
 * without a half are left as they are.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { mean, type OnEvent } from "../base/index.js";
import { createBatches } from "../data/index.js";
import type { Engine } from "../engine/index.js";
import { buildBlock, type ModelConfig, positionsFrom, rotaryTables } from "../models/index.js";
import type { Runtime } from "../runtime/index.js";
import { type F32Tensor, f32Tensor } from "../tensor/index.js";
import {
  adamw,
  type Batches,
  type BuildLoss,
  cosine,
  createParameters,
  loadParameters,
  normalisedError,
  train,
  withWarmUp,
} from "../train/index.js";
import { type ActivationReader, openActivations } from "./activations.js";
import { type BlockLibrary, hasIndex, type LibraryEntry, writeIndex, writeVariant } from "./block-library.js";
import { type BatchedText, captureMiddle, openCapture, streamShape } from "./capture.js";
import { type HalfBlock, halfBlockConfig } from "./parts.js";
import { parseHalf } from "./space.js";
import { requireWeight, type SubBlock } from "./variants.js";

export interface DistilBlocksOptions {
  /** Tokens that each variant is trained on. */
  tokens: number;
  /** Peak learning rate of AdamW; a warm-up over a twentieth, then a cosine to a tenth. Defaults to 1e-3. */
  learningRate?: number;
  /** Seed of the order of the sequences. Defaults to 0. */
  seed?: number;
}

export interface DistilBlocksRequest extends DistilBlocksOptions {
  runtime: Runtime;
  /** Engine of the parent. */
  engine: Engine;
  /** Where the variants start. */
  library: BlockLibrary;
  /** Training text; `batch` sequences make a step. */
  text: BatchedText;
  /** What `capture` wrote for the same text. */
  captured: string;
  /** Holds a library of the same variants, trained; what an interrupted run left there is kept. */
  directory: string;
  onEvent: OnEvent;
  signal: AbortSignal;
}

export async function distilBlocks(request: DistilBlocksRequest): Promise<void> {
  const { engine, directory, onEvent, signal } = request;
  const layers = engine.config.blocks.length;
  for (let layer = 0; layer < layers; layer++) {
    signal.throwIfAborted();
    if (await hasIndex(directory, layer)) continue;
    await distilLayer(request, layer);
    onEvent({ event: "progress", stage: "distil-blocks", done: layer + 1, total: layers, unit: "layers" });
  }
}

async function distilLayer(request: DistilBlocksRequest, layer: number): Promise<void> {
  const { engine, library, text, captured, directory } = request;
  const { channels, variants } = await library.index(layer);
  if (variants.length === 0) return writeIndex(directory, { layer, ...(channels && { channels }), variants });
  const middlePath = join(directory, `middle-${layer}.f32`);
  await captureMiddle({ engine, layer, text, directory: captured }, middlePath);
  const before = await openCapture(engine, text, captured, layer);
  const middle = await openActivations(middlePath, streamShape(engine, text));
  const after = await openCapture(engine, text, captured, layer + 1);
  const trained: LibraryEntry[] = [];
  try {
    for (const entry of variants) {
      const streams = entry.part === "attention" ? { before, after: middle } : { before: middle, after };
      const start = await library.weights(layer, entry.part, entry.id);
      const { weights, error } = await distilHalf(
        request,
        { ...parseHalf(entry.part, entry.id), weights: start },
        streams,
      );
      await writeVariant(directory, layer, entry, weights);
      trained.push({ ...entry, distilledError: error });
    }
  } finally {
    for (const stream of [before, middle, after]) await stream.close();
  }
  await rm(middlePath, { force: true });
  await writeIndex(directory, { layer, ...(channels && { channels }), variants: trained });
}

/** The parent's residual stream around one half of a block. */
interface Streams {
  before: ActivationReader;
  after: ActivationReader;
}

/** Trains one variant; also gives its mean error over the last tenth of the steps. */
async function distilHalf(
  { runtime, engine, text, tokens, learningRate = 1e-3, seed = 0, onEvent, signal }: DistilBlocksRequest,
  half: HalfBlock & { weights: SubBlock },
  streams: Streams,
): Promise<{ weights: SubBlock; error: number }> {
  const shape = { batch: text.batch, length: text.sequences.length };
  const parameters = createParameters([...half.weights].map(([name, { shape }]) => ({ name, shape })));
  await loadParameters(parameters, (name) => requireWeight(half.weights, name));
  const steps = Math.max(1, Math.round(tokens / (shape.batch * shape.length)));
  const { losses } = await train({
    runtime,
    stage: `distil-blocks ${half.part} ${half.config.kind}`,
    parameters,
    loss: halfLoss(engine.config, half, shape),
    batches: streamBatches(text, streams, seed),
    optimiser: adamw(),
    steps,
    learningRate,
    schedule: withWarmUp(Math.ceil(steps / 20), cosine({ floor: 0.1 })),
    onEvent,
    signal,
  });
  const weights = new Map(Object.entries(parameters.tensors));
  return { weights, error: mean(losses.slice(-Math.ceil(steps / 10))) };
}

/** Inputs of a batch: `before` and `after`, the parent's residual stream around the half, [rows, H]. */
function halfLoss(
  config: ModelConfig,
  half: HalfBlock,
  { batch, length }: { batch: number; length: number },
): BuildLoss {
  return (g, weights, denominator) => {
    const rows = [batch * length, config.hiddenSize];
    const [before, after] = [g.input("before", rows), g.input("after", rows)];
    const tables = rotaryTables(config, positionsFrom(0, length));
    const [cos, sin] = [g.constant(tables.cos), g.constant(tables.sin)];
    const inputs = { x: before, weights, batch, length, cos, sin };
    const { output } = buildBlock(g, config, halfBlockConfig(half), inputs);
    const error = normalisedError(g, g.sub(after, before), g.sub(output, before));
    return { loss: g.div(error, denominator) };
  };
}

/** Batches of sequences in seeded order, every one once per pass. */
function streamBatches({ sequences, batch }: BatchedText, { before, after }: Streams, seed: number): Batches {
  const order = createBatches(sequences, { batchSize: batch, seed: `distil-blocks ${seed}` });
  const gather = async (stream: ActivationReader, indices: readonly number[]): Promise<F32Tensor> => {
    const rows = f32Tensor([batch * stream.length, stream.width]);
    for (const [i, index] of indices.entries()) {
      rows.data.set((await stream.read(index, 1)).data, i * stream.length * stream.width);
    }
    return rows;
  };
  return async (step) => {
    const { indices } = order.at(step);
    const feeds = { before: await gather(before, indices), after: await gather(after, indices) };
    return { feeds, weight: 1, tokens: batch * sequences.length };
  };
}
