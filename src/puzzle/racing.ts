/**
 * @module Racing: scoring text is spent only where it can change a choice. All variants are scored on a few sequences;
 * then, round after round, those that can still be chosen under any of the budgets (`undecided.ts`) on more. At the
 * end the pairs that were chosen, and the nearest others, are scored together instead of as halves.
 *
 * Every share of the work has a file of its own, and what a round goes on with follows from the files of the rounds
 * before it, so an interrupted race goes on where it stopped and ends with the same bytes.
 */
import { join } from "node:path";
import { checkSchema, internal, readJson, writeJsonAtomic, z } from "../base/index.js";
import { type BlockConfig, type ModelConfig, sameBlock } from "../models/index.js";
import { type BlockCosts, composeLibrary } from "./library.js";
import {
  hasScores,
  type LayerPart,
  type LayerScores,
  readScores,
  type ScoreRequest,
  scoredBlocks,
  scoreLayer,
  writeScores,
} from "./score.js";
import { measurePairFactor, pairFactorOf, sequenceScores } from "./sequence-scores.js";
import { blockChoices, blockId, layerSpace, parseBlockId } from "./space.js";
import { type BudgetSet, findUndecided, type Samples, type Undecided } from "./undecided.js";

export interface RaceOptions {
  /** Bounds of every child that is to be chosen from these scores. */
  budgets: readonly BudgetSet[];
  /** Costs of one block, all that the budgets name; `params` is there always. */
  costs?: BlockCosts;
  /** Sequences scored by the end of each round. Defaults to 4, 8, 16 and so on up to all of the text. */
  rounds?: readonly number[];
  /** Pairs scored together at the end beside the chosen ones: this many for each layer. Defaults to 1. */
  pairsPerLayer?: number;
  /** Sequences on which pairs are scored; what they cost beside their halves varies little. Defaults to a quarter, at least 4. */
  pairSequences?: number;
}

export type RaceRequest = ScoreRequest & RaceOptions;

const reportSchema = z.strictObject({
  rounds: z.array(
    z.strictObject({
      /** Sequences that the blocks still open have scores of after this round. */
      sequences: z.int(),
      /** Blocks scored in it. */
      blocks: z.int(),
      /** By budget: what the search chose after it. */
      choices: z.array(z.record(z.string(), z.string())),
    }),
  ),
  /** Pairs scored together at the end. */
  pairs: z.int(),
  /** Their share of the sum of halves; absent where there were none. */
  pairFactor: z.strictObject({ factor: z.number(), lower: z.number(), upper: z.number(), pairs: z.int() }).optional(),
  /** Blocks times sequences that were run, pairs at the end not among them. */
  evaluations: z.int(),
  /** The same for the pairs at the end. */
  pairEvaluations: z.int(),
  /** What scoring everything on all sequences would have run, pairs not among them. */
  fullEvaluations: z.int(),
});

/** How a race went. */
export type RaceReport = z.output<typeof reportSchema>;

const emptyReport = { pairs: 0, evaluations: 0, pairEvaluations: 0 };
const reportFile = "race.json";

/** Leaves what `scoreBlocks` leaves, with as many sequences for each block as it took, and `race.json`. */
export async function raceBlocks(request: RaceRequest): Promise<RaceReport> {
  const { engine, directory } = request;
  const { config } = engine;
  const rounds = roundsOf(request);
  const report = { ...emptyReport, rounds: [] as RaceReport["rounds"], fullEvaluations: fullEvaluations(request) };
  const work = createWork(request);
  let scores: LayerScores[] = [];
  let active = config.blocks.map((_, layer) => scoredBlocks(request, layer));
  let undecided: Undecided | undefined;
  for (const [round, sequences] of rounds.entries()) {
    const later = rounds.at(-1)! - sequences;
    scores = withParent(request, await work.run(`round-${round}`, { active, scores, sequences, later }));
    undecided = await decide(request, scores);
    const blocks = count(active.map((own, layer) => changed(request, layer, own)));
    report.rounds.push({ sequences, blocks, choices: undecided.choices });
    active = config.blocks.map((_, layer) => stillOpen(request, layer, undecided!));
  }
  report.evaluations = work.evaluations();
  scores = await racePairs(request, work, scores, undecided ?? internal("a race without rounds"), report);
  report.pairEvaluations = work.evaluations() - report.evaluations;
  const pairFactor = measurePairFactor(config, scores);
  const whole = { ...report, ...(pairFactor && { pairFactor }) };
  for (const entry of scores) await writeScores(directory, entry);
  await writeJsonAtomic(join(directory, reportFile), whole);
  return whole;
}

export async function readRace(directory: string): Promise<RaceReport> {
  const path = join(directory, reportFile);
  return checkSchema(reportSchema, await readJson(path), path);
}

function roundsOf({ rounds, text }: RaceRequest): number[] {
  const all = text.sequences.count;
  const doubling = Array.from({ length: 30 }, (_, i) => 4 * 2 ** i);
  return [...new Set([...(rounds ?? doubling).filter((n) => n < all), all])].sort((a, b) => a - b);
}

function fullEvaluations(request: RaceRequest): number {
  const blocks = request.engine.config.blocks.map((_, layer) => changed(request, layer, scoredBlocks(request, layer)));
  return count(blocks) * request.text.sequences.count;
}

function count(blocks: readonly (readonly unknown[])[]): number {
  return blocks.reduce((sum, { length }) => sum + length, 0);
}

/** The parent's own block scores 0 and takes no work. */
function changed({ engine }: RaceRequest, layer: number, blocks: readonly BlockConfig[]): BlockConfig[] {
  return blocks.filter((block) => !sameBlock(block, engine.config.blocks[layer]!));
}

interface Share {
  /** By layer: the blocks to score. */
  active: readonly (readonly BlockConfig[])[];
  /** What is known so far. */
  scores: readonly LayerScores[];
  /** Sequences that they are to have scores of. */
  sequences: number;
  /** Sequences of later rounds, for the estimate of what is left. */
  later: number;
}

/** Scores blocks of every layer on the sequences that they lack, file by file. */
interface Work {
  run(name: string, share: Share): Promise<LayerScores[]>;
  /** Blocks times sequences so far. */
  evaluations(): number;
}

function createWork(request: RaceRequest): Work {
  const { directory, onEvent, signal } = request;
  let done = 0;
  return {
    evaluations: () => done,
    async run(name, { active, scores, sequences, later }) {
      const place = join(directory, name);
      const missing = active.map((blocks, layer) => missingOf(request, layer, blocks, scores[layer], sequences));
      // As if every block now open were to stay so: an upper bound that comes down as blocks are settled.
      const total = done + missing.reduce((sum, parts) => sum + sizeOf(parts), 0) + count(active) * later;
      const merged: LayerScores[] = [];
      for (const [layer, parts] of missing.entries()) {
        if (!(await hasScores(place, layer))) {
          signal.throwIfAborted();
          await writeScores(place, await scoreParts(request, layer, parts));
        }
        merged.push(append(scores[layer], await readScores(place, layer)));
        done += sizeOf(parts);
        const note = `${name.replace("-", " ")}, layer ${layer + 1} of ${active.length}`;
        onEvent({ event: "progress", stage: "score", done, total, unit: "blocks x sequences", note });
      }
      return merged;
    },
  };
}

type Part = Required<LayerPart>;

/** What is to be run so that all of the blocks have scores of `sequences`; those with as many so far together. */
function missingOf(
  request: RaceRequest,
  layer: number,
  blocks: readonly BlockConfig[],
  scores: LayerScores | undefined,
  sequences: number,
): Part[] {
  const parent = request.engine.config.blocks[layer]!;
  const groups = new Map<number, BlockConfig[]>();
  for (const block of changed(request, layer, blocks)) {
    const start = scores?.kl[blockId(block, parent)]?.length ?? 0;
    if (start < sequences) groups.set(start, [...(groups.get(start) ?? []), block]);
  }
  return [...groups].map(([start, own]) => ({ blocks: own, range: { start, count: sequences - start } }));
}

function sizeOf(parts: readonly Part[]): number {
  return parts.reduce((sum, { blocks, range }) => sum + blocks.length * range.count, 0);
}

async function scoreParts(request: RaceRequest, layer: number, parts: readonly Part[]): Promise<LayerScores> {
  let scores = await scoreLayer(request, layer, { blocks: [] });
  for (const part of parts) scores = append(scores, await scoreLayer(request, layer, part));
  return scores;
}

/** Puts the sequences of a later round behind those of the rounds before. */
function append(before: LayerScores | undefined, after: LayerScores): LayerScores {
  const kl = { ...before?.kl };
  for (const [id, values] of Object.entries(after.kl)) kl[id] = [...(kl[id] ?? []), ...values];
  return { ...after, kl };
}

/** The parent's own block is the parent: it scores 0 on all of the text. */
function withParent({ engine, text }: RaceRequest, scores: readonly LayerScores[]): LayerScores[] {
  return scores.map((entry) => {
    const parent = engine.config.blocks[entry.layer]!;
    const zeros = new Array<number>(text.sequences.count).fill(0);
    return { ...entry, kl: { [blockId(parent, parent)]: zeros, ...entry.kl } };
  });
}

async function decide(request: RaceRequest, scores: readonly LayerScores[]): Promise<Undecided> {
  const { engine, space, costs, budgets, signal } = request;
  const { config } = engine;
  const library = composeLibrary(config, space, scores, costs ? { costs } : {});
  return findUndecided({ library, samples: samplesOf(request, config, scores), budgets, signal });
}

function samplesOf({ space }: RaceRequest, config: ModelConfig, scores: readonly LayerScores[]): Samples {
  const pairFactor = pairFactorOf(config, scores);
  return Object.fromEntries(
    scores.map((entry) => {
      const parent = config.blocks[entry.layer]!;
      const blocks = blockChoices(layerSpace(space, entry.layer));
      const values = blocks.map((block) => [
        blockId(block, parent),
        sequenceScores(entry, block, { parent, pairFactor }),
      ]);
      return [String(entry.layer), Object.fromEntries(values)];
    }),
  );
}

/** Of the blocks that are scored in a layer, those that an open block rests on. */
function stillOpen(request: RaceRequest, layer: number, { open }: Undecided): BlockConfig[] {
  const parent = request.engine.config.blocks[layer]!;
  const blocks = (open[layer] ?? []).map(parseBlockId);
  const needed = new Set(
    blocks.flatMap((block) => [
      blockId(block, parent),
      blockId({ attention: block.attention, ffn: parent.ffn }, parent),
      blockId({ attention: parent.attention, ffn: block.ffn }, parent),
    ]),
  );
  return scoredBlocks(request, layer).filter((block) => needed.has(blockId(block, parent)));
}

/** Searches and scores of pairs are repeated until every chosen pair was scored as one, at most so often. */
const pairRounds = 4;

/** Scores pairs of two replaced halves together: the chosen ones and, at first, those that come nearest. */
async function racePairs(
  request: RaceRequest,
  work: Work,
  scores: LayerScores[],
  undecided: Undecided,
  report: RaceReport,
): Promise<LayerScores[]> {
  const { count: all } = request.text.sequences;
  const sequences = Math.min(request.pairSequences ?? Math.max(4, Math.ceil(all / 4)), all);
  let [known, now] = [scores, undecided];
  for (let round = 0; round < pairRounds; round++) {
    const nearest = round === 0 ? (request.pairsPerLayer ?? 1) : 0;
    const pairs = known.map(({ kl }, layer) => openPairs(now, layer, kl, nearest));
    if (count(pairs) === 0) break;
    const active = pairs.map((ids) => ids.map(parseBlockId));
    known = await work.run(`pairs-${round}`, { active, scores: known, sequences, later: 0 });
    report.pairs += count(pairs);
    now = await decide(request, known);
    report.rounds.push({ sequences, blocks: count(pairs), choices: now.choices });
  }
  return known;
}

/** Of the blocks of a layer that have no scores of their own, the chosen ones and the open ones of least reduced cost. */
function openPairs(
  { choices, open, reduced }: Undecided,
  layer: number,
  kl: LayerScores["kl"],
  nearest: number,
): string[] {
  const unknown = (ids: readonly string[]) => [...new Set(ids)].filter((id) => !(id in kl));
  const chosen = unknown(choices.flatMap((choice) => choice[layer] ?? []));
  const others = unknown(open[layer] ?? []).filter((id) => !chosen.includes(id));
  others.sort((a, b) => reduced[layer]![a]! - reduced[layer]![b]! || (a < b ? -1 : 1));
  return [...chosen, ...others.slice(0, nearest)];
}
