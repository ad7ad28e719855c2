/**
 * @module Replace-one-block scores (arXiv:2411.19146, section 4.2): how far the next-token distribution moves,
 * KL(parent || child) in nats a token, when one block of the parent is replaced.
 *
 * A replaced block starts from the parent's captured input, so that it costs itself and the blocks that follow it.
 * Attention and feed-forward halves run apart: pairs share the attention half, and variants of the feed-forward
 * alone share the parent's. The parent's own block scores 0 without being run.
 *
 * Departures: where every pair would take too long, only pairs with one half of the parent's are run; `library.ts`
 * joins them. Values are kept for each sequence, so that intervals and paired comparisons can be made of them; a
 * variant may have fewer than another (`racing.ts`), always of the first sequences of the text.
 */
import { join } from "node:path";
import { checkSchema, fileExists, type OnEvent, readJson, writeJsonAtomic, z } from "../base/index.js";
import type { Engine } from "../engine/index.js";
import { type BlockConfig, sameBlock } from "../models/index.js";
import type { F32Tensor } from "../tensor/index.js";
import { batchesOf } from "./activations.js";
import type { BlockLibrary } from "./block-library.js";
import { type BatchedText, openCapture, readRows, runBlock } from "./capture.js";
import { checkPositions, compareRows } from "./compare.js";
import { type Rows, runHalf } from "./parts.js";
import { attentionId, blockId, ffnId, type LayerSpace, layerSpace, type Space } from "./space.js";
import { layerName } from "./tensor-files.js";
import type { SubBlock } from "./variants.js";

const scoresSchema = z.strictObject({
  layer: z.int().min(0),
  /** Tokens of a sequence. */
  length: z.int().min(1),
  /** Positions of a sequence that were compared; all where absent. */
  positions: z.int().min(1).optional(),
  /** By block name (`gqa 2 | linear`): KL in nats a token, one value for each of the first sequences of the text. */
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
  /**
   * Positions of each sequence at which distributions are compared, drawn once for each sequence, one from each equal
   * stretch. Saves time in the head and widens the intervals; see docs/puzzle.md for what that is worth. Defaults to all.
   */
  positions?: number;
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

/** Scores everything on all of the text. */
export async function scoreBlocks(request: ScoreRequest): Promise<void> {
  const { engine, directory, onEvent, signal } = request;
  const layers = request.layers ?? engine.config.blocks.map((_, layer) => layer);
  for (const [done, layer] of layers.entries()) {
    if (!(await fileExists(scoresPath(directory, layer)))) {
      signal.throwIfAborted();
      await writeScores(directory, await scoreLayer(request, layer));
    }
    onEvent({ event: "progress", stage: "score", done: done + 1, total: layers.length, unit: "layers" });
  }
}

export async function readScores(directory: string, layer: number): Promise<LayerScores> {
  const path = scoresPath(directory, layer);
  return checkSchema(scoresSchema, await readJson(path), path);
}

export async function writeScores(directory: string, scores: LayerScores): Promise<void> {
  await writeJsonAtomic(scoresPath(directory, scores.layer), scores);
}

export async function hasScores(directory: string, layer: number): Promise<boolean> {
  return fileExists(scoresPath(directory, layer));
}

function scoresPath(directory: string, layer: number): string {
  return join(directory, `${layerName(layer)}.json`);
}

/** A share of the work on one layer. */
export interface LayerPart {
  /** Which blocks. Defaults to all that the request asks for. */
  blocks?: readonly BlockConfig[];
  /** Which sequences of the text. Defaults to all. */
  range?: { start: number; count: number };
}

/** Scores variants of one layer; a unit of work of its own. */
export async function scoreLayer(request: ScoreRequest, layer: number, part: LayerPart = {}): Promise<LayerScores> {
  const { engine, text, captured, positions, signal } = request;
  const { blocks = scoredBlocks(request, layer), range = { start: 0, count: text.sequences.count } } = part;
  const { length } = text.sequences;
  if (positions !== undefined) checkPositions(positions, length);
  const parent = engine.config.blocks[layer]!;
  const pairs = blocks.filter((block) => !sameBlock(block, parent));
  const weights = await loadHalves(request.library, layer, pairs, parent);
  const whole = { start: range.start, count: pairs.length > 0 ? range.count : 0 };
  const inputs = await openCapture(engine, text, captured, layer);
  const finals = await openCapture(engine, text, captured, engine.config.blocks.length);
  const values: number[][] = pairs.map(() => []);
  try {
    for (const { start, count } of batchesOf(whole.count, text.batch)) {
      signal.throwIfAborted();
      const batch = { start: whole.start + start, count };
      const children = await replaceBlock(engine, layer, { pairs, weights, rows: await readRows(inputs, batch) });
      await finishChildren(engine, layer, children);
      const states = children.map(({ rows }) => rows.x);
      const reference = await readRows(finals, batch);
      const kl = await compareRows(engine, reference, states, { first: batch.start, positions, signal });
      for (const [i, own] of kl.entries()) values[i]!.push(...own);
    }
  } finally {
    await inputs.close();
    await finals.close();
  }
  const scored = pairs.map((pair, i) => [blockId(pair, parent), values[i]!] as const);
  const own = blocks.length > pairs.length ? { [blockId(parent, parent)]: new Array<number>(range.count).fill(0) } : {};
  return {
    layer,
    length,
    ...(positions !== undefined && { positions }),
    kl: { ...own, ...Object.fromEntries(scored) },
  };
}

/** The blocks of a layer that a request scores, those with the same attention next to each other. */
export function scoredBlocks({ space, joint = scoresJointly(space) }: ScoreRequest, layer: number): BlockConfig[] {
  return scoredPairs(layerSpace(space, layer), joint);
}

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
