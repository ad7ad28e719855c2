/**
 * @module Replace-one-block scores (arXiv:2411.19146, section 4.2): how far the next-token distribution moves,
 * KL(parent || child) in nats a token, when one block of the parent is replaced.
 *
 * A replaced block starts from the parent's captured input, so that it costs itself and the blocks that follow it.
 * Attention and feed-forward halves run apart: pairs share the attention half, and variants of the feed-forward
 * alone share the parent's.
 *
 * Departures: where every pair would take too long, only pairs with one half of the parent's are run; `library.ts`
 * joins them. Values are kept for each sequence, so that intervals and paired comparisons can be made of them.
 */
import { join } from "node:path";
import { checkSchema, fileExists, type OnEvent, readJson, writeJsonAtomic, z } from "../base/index.js";
import type { Engine } from "../engine/index.js";
import type { BlockConfig } from "../models/index.js";
import type { F32Tensor } from "../tensor/index.js";
import { batchesOf } from "./activations.js";
import type { BlockLibrary } from "./block-library.js";
import { type BatchedText, openCapture, readRows, runBlock } from "./capture.js";
import { type Rows, runHalf } from "./parts.js";
import { attentionId, blockId, ffnId, type LayerSpace, layerSpace, type Space } from "./space.js";
import { layerName } from "./tensor-files.js";
import type { SubBlock } from "./variants.js";

const scoresSchema = z.strictObject({
  layer: z.int().min(0),
  /** Tokens of a sequence. */
  length: z.int().min(1),
  /** By block name (`gqa 2 | linear`): KL in nats a token, one value for each sequence. */
  kl: z.record(z.string(), z.array(z.number())),
});

/** Scores of one layer. */
export type LayerScores = z.output<typeof scoresSchema>;

export interface ScoreOptions {
  /**
   * Score every pair of an attention and a feed-forward variant, instead of each half beside the parent's other half.
   * Defaults to true where the whole space has at most 400 pairs.
   */
  joint?: boolean;
  /** Layers to score, for a share of the work. Defaults to all. */
  layers?: readonly number[];
}

export interface ScoreRequest extends ScoreOptions {
  /** Engine of the parent. */
  engine: Engine;
  space: Space;
  library: BlockLibrary;
  text: BatchedText;
  /** What `capture` wrote for the same text. */
  captured: string;
  /** Holds one file per layer; those that are there already are kept. */
  directory: string;
  onEvent: OnEvent;
  signal: AbortSignal;
}

const jointLimit = 400;

/** True where scoring all pairs is cheap enough to be the default. */
export function scoresJointly({ layers }: Space): boolean {
  return layers.reduce((sum, { attention, ffn }) => sum + attention.length * ffn.length, 0) <= jointLimit;
}

export async function scoreBlocks(request: ScoreRequest): Promise<void> {
  const { engine, directory, onEvent, signal } = request;
  const layers = request.layers ?? engine.config.blocks.map((_, layer) => layer);
  for (const [done, layer] of layers.entries()) {
    if (!(await fileExists(scoresPath(directory, layer)))) {
      signal.throwIfAborted();
      await writeJsonAtomic(scoresPath(directory, layer), await scoreLayer(request, layer));
    }
    onEvent({ event: "progress", stage: "score", done: done + 1, total: layers.length, unit: "layers" });
  }
}

export async function readScores(directory: string, layer: number): Promise<LayerScores> {
  const path = scoresPath(directory, layer);
  return checkSchema(scoresSchema, await readJson(path), path);
}

function scoresPath(directory: string, layer: number): string {
  return join(directory, `${layerName(layer)}.json`);
}

/** Scores every variant of one layer; a unit of work of its own. */
export async function scoreLayer(request: ScoreRequest, layer: number): Promise<LayerScores> {
  const { engine, text, captured, signal, joint = scoresJointly(request.space) } = request;
  const parent = engine.config.blocks[layer]!;
  const pairs = scoredPairs(layerSpace(request.space, layer), joint);
  const weights = await loadHalves(request.library, layer, pairs, parent);
  const inputs = await openCapture(engine, text, captured, layer);
  const finals = await openCapture(engine, text, captured, engine.config.blocks.length);
  const kl: Record<string, number[]> = Object.fromEntries(pairs.map((pair) => [blockId(pair, parent), []]));
  try {
    for (const range of batchesOf(text.sequences.count, text.batch)) {
      signal.throwIfAborted();
      const children = await replaceBlock(engine, layer, { pairs, weights, rows: await readRows(inputs, range) });
      await finishChildren(engine, layer, children);
      await compareChildren(engine, await readRows(finals, range), children, kl);
    }
  } finally {
    await inputs.close();
    await finals.close();
  }
  return { layer, length: inputs.length, kl };
}

/** The pairs to run, those with the same attention next to each other. */
function scoredPairs({ attention, ffn }: LayerSpace, joint: boolean): BlockConfig[] {
  return attention.flatMap((a, i) =>
    ffn.filter((_, j) => joint || i === 0 || j === 0).map((f) => ({ attention: a.config, ffn: f.config })),
  );
}

type Halves = Map<string, SubBlock>;

async function loadHalves(
  library: BlockLibrary,
  layer: number,
  pairs: readonly BlockConfig[],
  parent: BlockConfig,
): Promise<Halves> {
  const halves: Halves = new Map();
  for (const { attention, ffn } of pairs) {
    for (const [part, id] of [
      ["attention", attentionId(attention)],
      ["ffn", ffnId(ffn, parent.ffn)],
    ] as const) {
      const key = `${part} ${id}`;
      if (!halves.has(key)) halves.set(key, await library.weights(layer, part, id));
    }
  }
  return halves;
}

/** A child with one replaced block, under way through the parent's other blocks. */
interface Child {
  id: string;
  rows: Rows;
}

async function replaceBlock(
  engine: Engine,
  layer: number,
  { pairs, weights, rows }: { pairs: readonly BlockConfig[]; weights: Halves; rows: Rows },
): Promise<Child[]> {
  const parent = engine.config.blocks[layer]!;
  const children: Child[] = [];
  let shared: { id: string; x: F32Tensor } | undefined;
  for (const pair of pairs) {
    const attention = attentionId(pair.attention);
    if (shared?.id !== attention) {
      const half = {
        part: "attention",
        config: pair.attention,
        weights: weights.get(`attention ${attention}`)!,
      } as const;
      shared = { id: attention, x: (await runHalf(engine, layer, half, rows)).output };
    }
    const ffn = { part: "ffn", config: pair.ffn, weights: weights.get(`ffn ${ffnId(pair.ffn, parent.ffn)}`)! } as const;
    const { output } = await runHalf(engine, layer, ffn, { ...rows, x: shared.x });
    children.push({ id: blockId(pair, parent), rows: { ...rows, x: output } });
  }
  return children;
}

/** Runs the parent's later blocks: all children through one before the next, so that each is read once a batch. */
async function finishChildren(engine: Engine, layer: number, children: Child[]): Promise<void> {
  for (let next = layer + 1; next < engine.config.blocks.length; next++) {
    for (const child of children) child.rows = { ...child.rows, x: await runBlock(engine, next, child.rows) };
  }
}

/** Adds each child's KL from the parent to its list, one value for each sequence of the batch. */
async function compareChildren(
  engine: Engine,
  parent: Rows,
  children: readonly Child[],
  kl: Record<string, number[]>,
): Promise<void> {
  const reference = await engine.holdReference(parent.x);
  for (const { id, rows } of children) {
    kl[id]!.push(...(await engine.klAgainst(reference, rows.x, { batch: rows.batch })));
  }
}
