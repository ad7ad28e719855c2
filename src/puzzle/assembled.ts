/**
 * @module The true KL of whole candidates on the scoring text: the library's blocks put together as they are, from the
 * captured input of the first replaced block on. The same sequences and positions as the scores of single blocks, so
 * that prediction and truth are compared sequence by sequence.
 */
import { join } from "node:path";
import { checkSchema, digestJson, fileExists, type OnEvent, readJson, writeJsonAtomic, z } from "../base/index.js";
import type { Engine } from "../engine/index.js";
import { type BlockConfig, sameBlock } from "../models/index.js";
import { batchesOf } from "./activations.js";
import type { BlockLibrary } from "./block-library.js";
import { type BatchedText, openCapture, readRows } from "./capture.js";
import { compareRows } from "./compare.js";
import { type HalfBlock, type Rows, runHalf } from "./parts.js";
import { attentionId, ffnId } from "./space.js";

export interface AssembledRequest {
  /** Engine of the parent. */
  engine: Engine;
  library: BlockLibrary;
  text: BatchedText;
  /** What `capture` wrote for the same text. */
  captured: string;
  /** Positions of a sequence that are compared; as in `ScoreOptions`. */
  positions?: number;
  /** The first sequences of the text. Defaults to all. */
  sequences?: number;
  signal: AbortSignal;
}

/** KL(parent || child) of one candidate, nats a token, by sequence. */
export async function scoreAssembled(request: AssembledRequest, blocks: readonly BlockConfig[]): Promise<number[]> {
  const { engine, text, captured, positions, signal, sequences = text.sequences.count } = request;
  const parents = engine.config.blocks;
  const first = blocks.findIndex((block, layer) => !sameBlock(block, parents[layer]!));
  const count = Math.min(sequences, text.sequences.count);
  if (first < 0) return new Array<number>(count).fill(0);
  const ranges = batchesOf(count, text.batch);
  const batches = await readBatches(request, first, ranges);
  // All of the text through one layer before the next, so that weights are read once.
  for (let layer = first; layer < blocks.length; layer++) {
    signal.throwIfAborted();
    const halves = await loadHalves(request, blocks[layer]!, layer);
    for (const [i, rows] of batches.entries()) batches[i] = await runHalves(engine, layer, halves, rows);
  }
  const finals = await openCapture(engine, text, captured, parents.length);
  const kl: number[] = [];
  try {
    for (const [i, range] of ranges.entries()) {
      const reference = await readRows(finals, range);
      const options = { first: range.start, positions, signal };
      kl.push(...(await compareRows(engine, reference, [batches[i]!.x], options))[0]!);
    }
  } finally {
    await finals.close();
  }
  return kl;
}

async function readBatches(
  { engine, text, captured }: AssembledRequest,
  layer: number,
  ranges: readonly { start: number; count: number }[],
): Promise<Rows[]> {
  const inputs = await openCapture(engine, text, captured, layer);
  try {
    const batches: Rows[] = [];
    for (const range of ranges) batches.push(await readRows(inputs, range));
    return batches;
  } finally {
    await inputs.close();
  }
}

/** Both halves of a block; one that is the parent's own runs on the engine's weights. */
async function loadHalves({ engine, library }: AssembledRequest, block: BlockConfig, layer: number) {
  const parent = engine.config.blocks[layer]!;
  const own = { attention: attentionId(parent.attention), ffn: ffnId(parent.ffn, parent.ffn) };
  const ids = { attention: attentionId(block.attention), ffn: ffnId(block.ffn, parent.ffn) };
  const weights = async (part: "attention" | "ffn") =>
    ids[part] === own[part] ? {} : { weights: await library.weights(layer, part, ids[part]) };
  const attention: HalfBlock = { part: "attention", config: block.attention, ...(await weights("attention")) };
  const ffn: HalfBlock = { part: "ffn", config: block.ffn, ...(await weights("ffn")) };
  return [attention, ffn];
}

async function runHalves(engine: Engine, layer: number, halves: readonly HalfBlock[], rows: Rows): Promise<Rows> {
  let { x } = rows;
  for (const half of halves) x = (await runHalf(engine, layer, half, { ...rows, x })).output;
  return { ...rows, x };
}

export interface ScoreCandidatesRequest extends AssembledRequest {
  /** Holds one file for each candidate; those that are there already are kept. */
  directory: string;
  onEvent: OnEvent;
}

const klSchema = z.strictObject({ kl: z.array(z.number()) });

/** The KL of several candidates, each kept in a file of its own as soon as it is known. */
export async function scoreCandidates(
  request: ScoreCandidatesRequest,
  candidates: readonly (readonly BlockConfig[])[],
): Promise<number[][]> {
  const { directory, text, onEvent, signal, sequences = text.sequences.count, positions } = request;
  const found: number[][] = [];
  for (const [done, blocks] of candidates.entries()) {
    const path = join(directory, `${digestJson({ blocks, sequences, positions }).slice(0, 16)}.json`);
    if (!(await fileExists(path))) {
      signal.throwIfAborted();
      await writeJsonAtomic(path, { kl: await scoreAssembled(request, blocks) });
    }
    found.push(checkSchema(klSchema, await readJson(path), path).kl);
    onEvent({ event: "progress", stage: "candidates", done: done + 1, total: candidates.length, unit: "candidates" });
  }
  return found;
}
