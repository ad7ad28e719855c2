/**
 * @module The true KL of whole candidates on the scoring text: the library's blocks put together as they are. The same
 * sequences and positions as the scores of single blocks, so that prediction and truth are compared sequence by sequence.
 *
 * Candidates run together, layer by layer. Those whose blocks are the same so far share one stream, which parts where
 * they differ; up to the first replaced block it is the parent's captured one. Their streams are compared with one
 * evaluation of the parent's head.
 */
import { join } from "node:path";
import {
  checkSchema,
  digestJson,
  fileExists,
  internal,
  type OnEvent,
  readJson,
  writeJsonAtomic,
  z,
} from "../base/index.js";
import type { Engine } from "../engine/index.js";
import { type BlockConfig, sameBlock } from "../models/index.js";
import { batchesOf } from "./activations.js";
import type { BlockLibrary } from "./block-library.js";
import { type BatchedText, openCapture, readRows } from "./capture.js";
import { compareRows } from "./compare.js";
import { type HalfBlock, type Rows, runHalf } from "./parts.js";
import { attentionId, blockId, ffnId } from "./space.js";

/** Some sequences of a text: the first and how many. */
export interface SequenceRange {
  start: number;
  count: number;
}

export interface AssembledRequest {
  /** Engine of the parent. */
  engine: Engine;
  library: BlockLibrary;
  text: BatchedText;
  /** What `capture` wrote for the same text. */
  captured: string;
  /** Positions of a sequence that are compared; as in `ScoreOptions`. */
  positions?: number;
  /** Sequences of the text. Defaults to all. */
  range?: SequenceRange;
  signal: AbortSignal;
  /** Called after each layer that candidates went through, with the share of the work that is done. */
  onProgress?: (share: number) => void;
}

/** KL(parent || child) of candidates, nats a token, for each by sequence. */
export async function scoreAssembled(
  request: AssembledRequest,
  candidates: readonly (readonly BlockConfig[])[],
): Promise<number[][]> {
  const kl = candidates.map((): number[] => []);
  const pieces = candidates.length > 0 ? piecesOf(request, candidates.length) : [];
  for (const [done, ranges] of pieces.entries()) {
    const onProgress = (share: number) => request.onProgress?.((done + share) / pieces.length);
    const part = await scorePiece({ ...request, onProgress }, ranges, candidates);
    for (const [i, values] of part.entries()) kl[i]!.push(...values);
  }
  return kl;
}

/** Bytes of all candidates' activations that are held at once. */
const heldBytes = 256 << 20;

/** The batches of the text, as many at a time as memory has room for. */
function piecesOf({ engine, text, range }: AssembledRequest, candidates: number): SequenceRange[][] {
  const { start, count } = wholeRange(text, range);
  const ranges = batchesOf(count, text.batch).map((batch) => ({ ...batch, start: start + batch.start }));
  const batchBytes = 4 * candidates * text.batch * text.sequences.length * engine.config.hiddenSize;
  const size = Math.max(1, Math.floor(heldBytes / batchBytes));
  return Array.from({ length: Math.ceil(ranges.length / size) }, (_, i) => ranges.slice(i * size, (i + 1) * size));
}

function wholeRange(
  { sequences }: BatchedText,
  { start, count } = { start: 0, count: sequences.count },
): SequenceRange {
  return { start, count: Math.min(count, sequences.count - start) };
}

/** Candidates whose blocks are the same so far, with what these make of the text. */
interface Stream {
  members: number[];
  /** Of each range; absent while the blocks are the parent's. */
  batches?: Rows[];
}

async function scorePiece(
  request: AssembledRequest,
  ranges: readonly SequenceRange[],
  candidates: readonly (readonly BlockConfig[])[],
): Promise<number[][]> {
  const layers = request.engine.config.blocks.length;
  let streams: Stream[] = [{ members: [...candidates.keys()] }];
  for (let layer = 0; layer < layers; layer++) {
    const parted: Stream[] = [];
    for (const stream of streams) {
      request.signal.throwIfAborted();
      parted.push(...(await partStream(request, layer, { stream, ranges, candidates })));
    }
    streams = parted;
    request.onProgress?.((layer + 1) / (layers + 1));
  }
  return compareStreams(request, ranges, streams, candidates.length);
}

interface Parting {
  stream: Stream;
  ranges: readonly SequenceRange[];
  candidates: readonly (readonly BlockConfig[])[];
}

/** A stream past one layer: one for each block that its members have there. Blocks of one attention run it once. */
async function partStream(
  request: AssembledRequest,
  layer: number,
  { stream, ranges, candidates }: Parting,
): Promise<Stream[]> {
  const { engine } = request;
  const parent = engine.config.blocks[layer]!;
  const byBlock = new Map<string, number[]>();
  for (const member of stream.members) {
    const id = blockId(candidates[member]![layer]!, parent);
    byBlock.set(id, [...(byBlock.get(id) ?? []), member]);
  }
  const parted: Stream[] = [];
  const attended = new Map<string, Rows[]>();
  let before = stream.batches;
  for (const members of byBlock.values()) {
    const block = candidates[members[0]!]![layer]!;
    if (!stream.batches && sameBlock(block, parent)) {
      parted.push({ members });
      continue;
    }
    const [attention, ffn] = await loadHalves(request, block, layer);
    before ??= await readBatches(request, layer, ranges);
    const key = attentionId(block.attention);
    const middle = attended.get(key) ?? (await runHalves(engine, layer, attention, before));
    attended.set(key, middle);
    parted.push({ members, batches: await runHalves(engine, layer, ffn, middle) });
  }
  return parted;
}

async function compareStreams(
  { engine, text, captured, positions, signal }: AssembledRequest,
  ranges: readonly SequenceRange[],
  streams: readonly Stream[],
  candidates: number,
): Promise<number[][]> {
  const kl = Array.from({ length: candidates }, (): number[] => []);
  const changed = streams.flatMap(({ members, batches }) => (batches ? [{ members, batches }] : []));
  const finals = await openCapture(engine, text, captured, engine.config.blocks.length);
  try {
    for (const [i, range] of ranges.entries()) {
      const states = changed.map(({ batches }) => batches[i]!.x);
      const options = { first: range.start, positions, signal };
      const values = states.length > 0 ? await compareRows(engine, await readRows(finals, range), states, options) : [];
      const valuesOf = new Map(changed.flatMap(({ members }, s) => members.map((member) => [member, values[s]!])));
      const none = new Array<number>(range.count).fill(0);
      for (const [member, own] of kl.entries()) own.push(...(valuesOf.get(member) ?? none));
    }
  } finally {
    await finals.close();
  }
  return kl;
}

async function readBatches(
  { engine, text, captured }: AssembledRequest,
  layer: number,
  ranges: readonly SequenceRange[],
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
async function loadHalves(
  { engine, library }: AssembledRequest,
  block: BlockConfig,
  layer: number,
): Promise<[attention: HalfBlock, ffn: HalfBlock]> {
  const parent = engine.config.blocks[layer]!;
  const own = { attention: attentionId(parent.attention), ffn: ffnId(parent.ffn, parent.ffn) };
  const ids = { attention: attentionId(block.attention), ffn: ffnId(block.ffn, parent.ffn) };
  const weights = async (part: "attention" | "ffn") =>
    ids[part] === own[part] ? {} : { weights: await library.weights(layer, part, ids[part]) };
  const attention: HalfBlock = { part: "attention", config: block.attention, ...(await weights("attention")) };
  const ffn: HalfBlock = { part: "ffn", config: block.ffn, ...(await weights("ffn")) };
  return [attention, ffn];
}

/** One half on every batch. */
async function runHalves(engine: Engine, layer: number, half: HalfBlock, batches: readonly Rows[]): Promise<Rows[]> {
  const after: Rows[] = [];
  for (const rows of batches) after.push({ ...rows, x: (await runHalf(engine, layer, half, rows)).output });
  return after;
}

export interface ScoreCandidatesRequest extends Omit<AssembledRequest, "onProgress"> {
  /** Holds one file for each candidate; those that are there already are kept. */
  directory: string;
  onEvent: OnEvent;
}

const klSchema = z.strictObject({ kl: z.array(z.number()) });

/** The KL of several candidates, each kept in a file of its own when all are known. */
export async function scoreCandidates(
  request: ScoreCandidatesRequest,
  candidates: readonly (readonly BlockConfig[])[],
): Promise<number[][]> {
  const { directory, text, positions, onEvent } = request;
  const range = wholeRange(text, request.range);
  const pathOf = (blocks: readonly BlockConfig[]) =>
    join(directory, `${digestJson({ blocks, range, positions }).slice(0, 16)}.json`);
  const missing: (readonly BlockConfig[])[] = [];
  for (const blocks of candidates) if (!(await fileExists(pathOf(blocks)))) missing.push(blocks);
  const onProgress = (share: number) =>
    onEvent({
      event: "progress",
      stage: "candidates",
      done: Math.floor(share * missing.length),
      total: missing.length,
      unit: "candidates",
    });
  const measured = await scoreAssembled({ ...request, range, onProgress }, missing);
  for (const [i, blocks] of missing.entries())
    await writeJsonAtomic(pathOf(blocks), { kl: measured[i] ?? internal("no KL") });
  onProgress(1);
  const read = async (path: string) => checkSchema(klSchema, await readJson(path), path).kl;
  return Promise.all(candidates.map((blocks) => read(pathOf(blocks))));
}
