/**
 * @module Samples of any length in rows of one static length: best-fit decreasing (Johnson, 1974), the longest first and
 * each into the fullest row that has room. A branched sample takes its prompt once.
 */
import { createRng, EspalierError, ignoreEvents, type OnEvent } from "../base/index.js";
import { sampleLength } from "./lengths.js";
import type { BranchedSample, TokenSample } from "./types.js";

/** A token that is predicted. */
export interface Target {
  /** Place in the row of the token that predicts it; for the first token of a branch the prompt's last one. */
  from: number;
  id: number;
  /** Number of the sequence that it counts for, 0..S-1 within the batch. */
  sequence: number;
}

/** One row, all arrays of its static length. */
export interface PackedRow {
  /** 0 where padded. */
  ids: Int32Array;
  /** Number of the piece that a token belongs to (a prompt and each of its branches are pieces); -1 where padded. */
  segments: Int32Array;
  /** Number of the piece that a token sees besides its own: of a branch its prompt, else its own; -1 where padded. */
  prefixes: Int32Array;
  /** For rotary tables: from 0 with every sample; a branch goes on where its prompt ends. */
  positions: Int32Array;
  targets: Target[];
}

/** Of which sample, and which branch of it (0 of plain ones), a sequence is, and where it ends. */
export interface PackedSequence {
  sample: number;
  branch: number;
  /** Its last learnt token, as an index into batch * length: the end of an answer. */
  last: number;
}

export interface PackedBatch {
  /** As many as the shape has, the last ones empty where samples ran out. */
  rows: PackedRow[];
  /** By their number within the batch. */
  sequences: PackedSequence[];
  /** Tokens that are no padding. */
  tokens: number;
  /** Targets of all rows. */
  targetCount: number;
}

export interface PackShape {
  /** Rows of a batch. */
  batch: number;
  /** Tokens of a row. */
  length: number;
  /** Most targets of a batch. Defaults to batch * length. */
  targets?: number;
  /** Most sequences of a batch. Defaults to no bound. */
  sequences?: number;
}

export interface PackedSamples {
  batches: PackedBatch[];
  /** Share of the places that hold tokens. */
  fill: number;
}

export type PackableSample = TokenSample | BranchedSample;

/**
 * Packs every sample exactly once. Rows come in the order in which they were opened, the longest samples first: see
 * `createPackedBatches` for an order to train in.
 *
 * @throws EspalierError for a sample that no row or batch holds: `limitLength` comes first
 */
export function packSamples(samples: readonly PackableSample[], shape: PackShape): PackedSamples {
  return gatherBatches(samples, packRows(samples, shape), shape);
}

export interface PackedBatches {
  /** The batch of one step: a function of seed and step alone, so that a run resumes by its step number. */
  at(step: number): PackedBatch;
  /** Batches of the pass that holds this step; passes may differ by a batch or two. */
  passOf(step: number): { pass: number; steps: number; fill: number };
}

export interface PackedBatchOptions {
  seed: number | string;
  /** Takes a notice with the fill rate, once. */
  onEvent?: OnEvent;
}

/**
 * Batches for training: every sample once per pass, packed anew and in another order each time.
 *
 * @param source the samples, or those of each pass
 */
export function createPackedBatches(
  source: readonly PackableSample[] | ((pass: number) => readonly PackableSample[]),
  shape: PackShape,
  { seed, onEvent = ignoreEvents }: PackedBatchOptions,
): PackedBatches {
  const samplesOf = typeof source === "function" ? source : () => source;
  if (samplesOf(0).length === 0)
    throw new EspalierError({ where: "samples", expected: "at least one sample", found: "none" });
  const starts = [0];
  let current: { pass: number; packed: PackedSamples } | undefined;
  const packPass = (pass: number): PackedSamples => {
    if (current?.pass === pass) return current.packed;
    const rng = createRng(`${seed}/packing ${pass}`);
    const samples = samplesOf(pass);
    const order = rng.shuffle(samples.map((_, i) => i));
    const rows = packRows(samples, shape, order);
    const packed = gatherBatches(samples, rng.shuffle(rows), shape);
    if (!current) onEvent({ event: "notice", level: "info", message: describeFill(samples.length, packed, shape) });
    current = { pass, packed };
    starts[pass + 1] = starts[pass]! + packed.batches.length;
    return packed;
  };
  const find = (step: number) => {
    let pass = 0;
    while (starts[pass + 1] === undefined || step >= starts[pass + 1]!) {
      if (starts[pass + 1] === undefined) packPass(pass);
      else pass++;
    }
    return { pass, packed: packPass(pass) };
  };
  return {
    at(step) {
      const { pass, packed } = find(step);
      return packed.batches[step - starts[pass]!]!;
    },
    passOf(step) {
      const { pass, packed } = find(step);
      return { pass, steps: packed.batches.length, fill: packed.fill };
    },
  };
}

function describeFill(count: number, { batches, fill }: PackedSamples, { batch, length }: PackShape): string {
  return `${count} samples in ${batches.length} batches of ${batch} x ${length}, ${(100 * fill).toFixed(1)} % of them tokens`;
}

/** A row that is being filled: numbers of samples, and what they take. */
interface OpenRow {
  samples: number[];
  tokens: number;
  targets: number;
  sequences: number;
}

interface Needs {
  tokens: number;
  targets: number;
  sequences: number;
}

/** Tokens of a sample that are predicted, over all its branches. */
export function sampleTargets(sample: PackableSample): number {
  const parts = "ids" in sample ? [sample] : sample.branches;
  return parts.reduce((sum, { learn }) => sum + learn.reduce((own, x) => own + x, 0), 0);
}

function needsOf(sample: PackableSample): Needs {
  const sequences = "ids" in sample ? 1 : sample.branches.length;
  return { tokens: sampleLength(sample), targets: sampleTargets(sample), sequences };
}

function limitsOf({ batch, length, targets = batch * length, sequences = Number.POSITIVE_INFINITY }: PackShape): Needs {
  return { tokens: length, targets, sequences };
}

const fits = (used: Needs, more: Needs, limits: Needs): boolean =>
  used.tokens + more.tokens <= limits.tokens &&
  used.targets + more.targets <= limits.targets &&
  used.sequences + more.sequences <= limits.sequences;

/** @param order numbers of samples: those of equal length are taken in this order */
function packRows(
  samples: readonly PackableSample[],
  shape: PackShape,
  order: readonly number[] = samples.map((_, i) => i),
): OpenRow[] {
  const limits = limitsOf(shape);
  const needs = samples.map(needsOf);
  const empty: Needs = { tokens: 0, targets: 0, sequences: 0 };
  const sorted = order.toSorted((a, b) => needs[b]!.tokens - needs[a]!.tokens);
  const rows: OpenRow[] = [];
  // Rows by the room that is left in them.
  const byRoom: OpenRow[][] = Array.from({ length: shape.length + 1 }, () => []);
  for (const sample of sorted) {
    const own = needs[sample]!;
    checkSample(samples[sample]!, sample, own, limits);
    const row = takeFullest(byRoom, own, limits) ?? { samples: [], ...empty };
    if (row.samples.length === 0) rows.push(row);
    row.samples.push(sample);
    row.tokens += own.tokens;
    row.targets += own.targets;
    row.sequences += own.sequences;
    byRoom[shape.length - row.tokens]!.push(row);
  }
  return rows;
}

function takeFullest(byRoom: readonly OpenRow[][], own: Needs, limits: Needs): OpenRow | undefined {
  for (let room = own.tokens; room < byRoom.length; room++) {
    const at = byRoom[room]!.findIndex((row) => fits(row, own, limits));
    if (at >= 0) return byRoom[room]!.splice(at, 1)[0];
  }
  return undefined;
}

function checkSample(sample: PackableSample, index: number, own: Needs, limits: Needs): void {
  const problem = (expected: string, found: string, fix: string) =>
    new EspalierError({ where: `sample ${index}`, expected, found, fix, exitCode: 2 });
  const over = (["tokens", "targets", "sequences"] as const).find((what) => own[what] > limits[what]);
  if (over)
    throw problem(
      `at most ${limits[over]} ${over}, as the shape has`,
      `${own[over]}`,
      "shorten it (limitLength), or raise the shape",
    );
  if (own.targets === 0) throw problem("at least one token that is learnt", "none", "leave the sample out");
  if ("ids" in sample && sample.learn[0] === 1)
    throw problem("a first token that is only read", "a learnt one", "nothing stands before it to predict it from");
  if ("prompt" in sample && sample.prompt.length === 0)
    throw problem("a prompt before the branches", "none", "give at least one token");
}

/** Rows in their order, each into the first open batch that has room for it. */
function gatherBatches(samples: readonly PackableSample[], rows: readonly OpenRow[], shape: PackShape): PackedSamples {
  const { targets, sequences } = limitsOf(shape);
  const limits = { tokens: shape.batch * shape.length, targets, sequences };
  const groups: { rows: OpenRow[]; used: Needs }[] = [];
  let firstOpen = 0;
  for (const row of rows) {
    const at = groups.findIndex(
      ({ rows: own, used }, i) => i >= firstOpen && own.length < shape.batch && fits(used, row, limits),
    );
    const group = groups[at] ?? { rows: [], used: { tokens: 0, targets: 0, sequences: 0 } };
    if (at < 0) groups.push(group);
    group.rows.push(row);
    for (const what of ["tokens", "targets", "sequences"] as const) group.used[what] += row[what];
    while (groups[firstOpen]?.rows.length === shape.batch) firstOpen++;
  }
  const batches = groups.map((group) => buildBatch(samples, group.rows, shape));
  const tokens = batches.reduce((sum, batch) => sum + batch.tokens, 0);
  return { batches, fill: tokens / Math.max(1, batches.length * shape.batch * shape.length) };
}

function buildBatch(
  samples: readonly PackableSample[],
  open: readonly OpenRow[],
  { batch, length }: PackShape,
): PackedBatch {
  const sequences: PackedSequence[] = [];
  const rows = Array.from({ length: batch }, (_, i) => {
    const writer = createRowWriter(length, i * length);
    for (const sample of open[i]?.samples ?? []) writer.add(samples[sample]!, sample, sequences);
    return writer.row;
  });
  const tokens = open.reduce((sum, row) => sum + row.tokens, 0);
  return { rows, sequences, tokens, targetCount: open.reduce((sum, row) => sum + row.targets, 0) };
}

/** @param offset place of the row's first token in the batch */
function createRowWriter(length: number, offset: number) {
  const row: PackedRow = {
    ids: new Int32Array(length),
    segments: new Int32Array(length).fill(-1),
    prefixes: new Int32Array(length).fill(-1),
    positions: new Int32Array(length),
    targets: [],
  };
  let [at, segment] = [0, 0];
  const write = (ids: Int32Array, position: number, prefix: number): number => {
    row.ids.set(ids, at);
    row.segments.fill(segment, at, at + ids.length);
    row.prefixes.fill(prefix, at, at + ids.length);
    for (let i = 0; i < ids.length; i++) row.positions[at + i] = position + i;
    segment++;
    at += ids.length;
    return at - ids.length;
  };
  /** @param before place of the token that predicts the first one */
  const aim = ({ ids, learn }: TokenSample, start: number, before: number, sequence: number): void => {
    ids.forEach((id, i) => {
      if (learn[i] === 1) row.targets.push({ from: i === 0 ? before : start + i - 1, id, sequence });
    });
  };
  const add = (sample: PackableSample, number: number, sequences: PackedSequence[]): void => {
    if ("ids" in sample) {
      const start = write(sample.ids, 0, segment);
      const last = offset + start + sample.learn.lastIndexOf(1);
      aim(sample, start, start, sequences.push({ sample: number, branch: 0, last }) - 1);
      return;
    }
    const prompt = segment;
    const before = write(sample.prompt, 0, prompt) + sample.prompt.length - 1;
    sample.branches.forEach((branch, i) => {
      const start = write(branch.ids, sample.prompt.length, prompt);
      const last = offset + start + branch.learn.lastIndexOf(1);
      aim(branch, start, before, sequences.push({ sample: number, branch: i, last }) - 1);
    });
  };
  return { row, add };
}
