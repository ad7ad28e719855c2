/**
 * @module The parent's residual stream on disk: `inputs-000.f32` is what block 0 reads, `inputs-L.f32` what the last of
 * L blocks leaves. Scores and block distillation start from these, so that a replaced block costs only what follows it.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { EspalierError, fileExists, type OnEvent } from "../base/index.js";
import type { Engine } from "../engine/index.js";
import type { F32Tensor } from "../tensor/index.js";
import { type ActivationReader, batchesOf, createActivations, openActivations } from "./activations.js";
import type { Rows } from "./parts.js";

/** Token sequences, all of one length, and how many of them run at once. */
export interface Sequences {
  ids: readonly Int32Array[];
  batch: number;
}

export interface CaptureRequest {
  /** Engine of the parent. */
  engine: Engine;
  text: Sequences;
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
export async function captureEmbedding(engine: Engine, text: Sequences, directory: string): Promise<void> {
  const path = activationPath(directory, 0);
  if (await fileExists(path)) return;
  await writeBatches(path, text, async ({ start, count }) => engine.embed(text.ids.slice(start, start + count)));
}

export interface LayerCapture {
  engine: Engine;
  layer: number;
  text: Sequences;
  directory: string;
}

/** Runs one block over all sequences, from its inputs on disk to the next block's. */
export async function captureLayer(
  { engine, layer, text, directory }: LayerCapture,
  forward: (rows: Rows) => Promise<F32Tensor>,
): Promise<void> {
  const inputs = await openCapture(engine, text, directory, layer);
  try {
    const path = activationPath(directory, layer + 1);
    await writeBatches(path, text, async (range) => forward(await readRows(inputs, range)));
  } finally {
    await inputs.close();
  }
}

/** The layer's own block. */
export async function runBlock(engine: Engine, layer: number, { x, batch, length }: Rows): Promise<F32Tensor> {
  const { output } = await engine.runBlock(layer, x, { batch, length });
  return output;
}

async function writeBatches(
  path: string,
  text: Sequences,
  make: (range: { start: number; count: number }) => Promise<F32Tensor>,
): Promise<void> {
  const writer = await createActivations(path);
  try {
    for (const range of batchesOf(text.ids.length, text.batch)) await writer.append(await make(range));
  } catch (error) {
    await writer.abort();
    throw error;
  }
  await writer.commit();
}

/** The residual stream before `layer`; after the last block for the number of layers. */
export async function openCapture(
  engine: Engine,
  text: Sequences,
  directory: string,
  layer: number,
): Promise<ActivationReader> {
  const shape = { sequences: text.ids.length, length: lengthOf(text), width: engine.config.hiddenSize };
  return openActivations(activationPath(directory, layer), shape);
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

/** Tokens of every sequence. @throws EspalierError when there are none or their lengths differ */
export function lengthOf({ ids }: Sequences): number {
  const length = ids[0]?.length ?? 0;
  if (length > 0 && ids.every((sequence) => sequence.length === length)) return length;
  throw new EspalierError({
    where: "sequences",
    expected: "at least one, all of the same number of tokens",
    found: ids.length === 0 ? "none" : `lengths ${[...new Set(ids.map((sequence) => sequence.length))].join(", ")}`,
    fix: "give a longer text, or a smaller sequence length",
  });
}
