/**
 * @module The parent's residual stream on disk: `inputs-000.f32` is what block 0 reads, `inputs-L.f32` what the last of
 * L blocks leaves. Scores and block distillation start from these, so that a replaced block costs only what follows it.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { fileExists, type OnEvent } from "../base/index.js";
import { type Sequences, sequenceAt } from "../data/index.js";
import type { Engine } from "../engine/index.js";
import type { F32Tensor } from "../tensor/index.js";
import {
  type ActivationReader,
  type ActivationShape,
  batchesOf,
  createActivations,
  openActivations,
} from "./activations.js";
import { type Rows, readSubBlock, runHalf } from "./parts.js";

/** Calibration or scoring text, and how many of its sequences run at once. */
export interface BatchedText {
  sequences: Sequences;
  batch: number;
}

export interface CaptureRequest {
  /** Engine of the parent. */
  engine: Engine;
  text: BatchedText;
  /** Holds the result; what an interrupted run left there is kept. */
  directory: string;
  onEvent: OnEvent;
  signal: AbortSignal;
}

/** Writes the residual stream before every block and after the last, block by block. */
export async function capture({ engine, text, directory, onEvent, signal }: CaptureRequest): Promise<void> {
  const layers = engine.config.blocks.length;
  await captureEmbedding(engine, text, directory);
  for (let layer = 0; layer < layers; layer++) {
    signal.throwIfAborted();
    if (await fileExists(activationPath(directory, layer + 1))) continue;
    await captureLayer({ engine, layer, text, directory }, (rows) => runBlock(engine, layer, rows));
    onEvent({ event: "progress", stage: "capture", done: layer + 1, total: layers, unit: "layers" });
  }
}

/** The embedded text, what block 0 reads. */
export async function captureEmbedding(engine: Engine, text: BatchedText, directory: string): Promise<void> {
  const path = activationPath(directory, 0);
  if (await fileExists(path)) return;
  await writeBatches(path, text, async ({ start, count }) => embedRange(engine, text, start, count));
}

function embedRange(engine: Engine, { sequences }: BatchedText, start: number, count: number): Promise<F32Tensor> {
  return engine.embed(Array.from({ length: count }, (_, i) => sequenceAt(sequences, start + i)));
}

export interface LayerCapture {
  engine: Engine;
  layer: number;
  text: BatchedText;
  directory: string;
}

/** Runs one block over all sequences, from its inputs on disk to the next block's. */
export async function captureLayer(capture: LayerCapture, forward: (rows: Rows) => Promise<F32Tensor>): Promise<void> {
  const inputs = await openCapture(capture.engine, capture.text, capture.directory, capture.layer);
  try {
    await captureLayerFrom(inputs, capture, forward);
  } finally {
    await inputs.close();
  }
}

/** The same from rows that are elsewhere, such as between the halves of the block. */
export async function captureLayerFrom(
  inputs: ActivationReader,
  { layer, text, directory }: LayerCapture,
  forward: (rows: Rows, range: { start: number; count: number }) => Promise<F32Tensor>,
): Promise<void> {
  const path = activationPath(directory, layer + 1);
  await writeBatches(path, text, async (range) => forward(await readRows(inputs, range), range));
}

/** Writes the residual stream between the two halves of the parent's block, from its captured inputs. */
export async function captureMiddle({ engine, layer, text, directory }: LayerCapture, path: string): Promise<void> {
  const config = engine.config.blocks[layer]!.attention;
  const inputs = await openCapture(engine, text, directory, layer);
  const weights = await readSubBlock(engine.model, layer, "attention");
  const half = { part: "attention", config, weights } as const;
  try {
    await writeBatches(path, text, async (range) => {
      return (await runHalf(engine, layer, half, await readRows(inputs, range))).output;
    });
  } finally {
    await inputs.close();
  }
}

/** The layer's own block. */
export async function runBlock(engine: Engine, layer: number, { x, batch, length }: Rows): Promise<F32Tensor> {
  const { output } = await engine.runBlock(layer, x, { batch, length });
  return output;
}

/** Writes what `make` gives for each batch of the text; no file where it fails. */
export async function writeBatches(
  path: string,
  text: BatchedText,
  make: (range: { start: number; count: number }) => Promise<F32Tensor>,
): Promise<void> {
  const writer = await createActivations(path);
  try {
    for (const range of batchesOf(text.sequences.count, text.batch)) await writer.append(await make(range));
  } catch (error) {
    await writer.abort();
    throw error;
  }
  await writer.commit();
}

/** The residual stream before `layer`; after the last block for the number of layers. */
export async function openCapture(
  engine: Engine,
  text: BatchedText,
  directory: string,
  layer: number,
): Promise<ActivationReader> {
  return openActivations(activationPath(directory, layer), streamShape(engine, text));
}

/** Shape of the residual stream of a text. */
export function streamShape({ config }: Engine, { sequences }: BatchedText): ActivationShape {
  return { sequences: sequences.count, length: sequences.length, width: config.hiddenSize };
}

export async function readRows(reader: ActivationReader, range: { start: number; count: number }): Promise<Rows> {
  return { x: await reader.read(range.start, range.count), batch: range.count, length: reader.length };
}

/** Removes one layer's inputs, once nothing reads them any more. */
export async function dropCapture(directory: string, layer: number): Promise<void> {
  await rm(activationPath(directory, layer), { force: true });
}

function activationPath(directory: string, layer: number): string {
  return join(directory, `inputs-${String(layer).padStart(3, "0")}.f32`);
}
