/**
 * @module From the search's proposal to a choice that stands: the best few are put together and measured whole, the
 * scores are corrected by what that shows (`corrections.ts`), and the search is run again, until what it proposes was
 * measured already and nothing measured is better. A candidate is first looked at on a few sequences; only the proposal
 * and those few that may be the best are measured on all of them.
 */
import { type Interval, mean, meanInterval, pairedInterval } from "../base/index.js";
import type { SequenceRange } from "./assembled.js";
import { type Corrections, correctLibrary, fitCorrections, type MeasuredChoice } from "./corrections.js";
import { predictedKl } from "./library.js";
import {
  createPricer,
  type Library,
  type PairTerm,
  type SearchOptions,
  type SearchResult,
  search,
} from "./search/index.js";
import { yieldTo } from "./search/search.js";
import { createLevel } from "./sequence-scores.js";

type Choice = Record<string, string>;

export interface SettleRequest {
  library: Library;
  /** Budgets of the child, how many candidates a round proposes (`solutions`, default 8) and how far apart they are. */
  search: Omit<SearchOptions, "sweep" | "pairTerms" | "signal">;
  /** True KL of whole candidates on some sequences of the text, for each by sequence. */
  measure: (choices: readonly Choice[], range: SequenceRange) => Promise<number[][]>;
  /** Sequences of the text. */
  sequences: number;
  /** The first of them, on which every candidate is measured. Defaults to all. */
  look?: number;
  /** What the search found under the scores as they are; it proposes the first candidates. Defaults to searching. */
  searched?: Pick<SearchResult, "choice" | "solutions">;
  /** Searches at most. Defaults to 3. */
  rounds?: number;
  /** Other choices within the budgets that are measured with the first ones. */
  also?: readonly Choice[];
  /** Candidates of the same library measured before, such as another child's; only the corrections use them. */
  known?: readonly MeasuredChoice[];
  signal?: AbortSignal;
}

/** One candidate, in the order in which they were measured; of those that were only looked at the first values. */
export interface Candidate extends MeasuredChoice {
  /** Round in which it was proposed, from 1. */
  round: number;
  /** What the corrected scores said before it was measured. */
  corrected: number;
  /** Brought to the level of the whole text. */
  measured: Interval;
  /** Its true KL above the chosen one's, paired by sequence. */
  aboveChosen: Interval;
}

export interface SettleRound {
  round: number;
  /** What the search proposed, and what was said of it and found. */
  choice: Choice;
  predicted: number;
  corrected: number;
  measured: Interval;
  /** Candidates that were measured in this round. */
  candidates: number;
  /** The proposal had been measured, and nothing measured is better. */
  stands: boolean;
}

export interface Settled {
  /** Least true KL of all that was measured. */
  choice: Choice;
  predicted: number;
  measured: Interval;
  /** Whether the last search proposed the choice itself. */
  stands: boolean;
  rounds: SettleRound[];
  candidates: Candidate[];
  /** From everything measured. */
  corrections: Corrections;
}

/** Measures, corrects and searches again. The budgets must be within reach. */
export async function settleChoice(request: SettleRequest): Promise<Settled> {
  const { library, rounds = 3, also = [], known = [] } = request;
  const found: Found[] = [];
  const record: SettleRound[] = [];
  // A round that found nothing new to measure would be followed by the same again.
  const isOver = (last?: SettleRound) => last !== undefined && (last.stands || last.candidates === 0);
  for (let round = 1; round <= rounds && !isOver(record.at(-1)); round++) {
    const corrections = fitCorrections(library, [...known, ...found]);
    const proposals = await propose(request, corrections);
    const others =
      round === 1 ? also.map((choice) => ({ choice, corrected: correctedKl(library, corrections, choice) })) : [];
    const fresh = [...proposals, ...others].filter(isNew(found));
    const kl = await request.measure(
      fresh.map(({ choice }) => choice),
      { start: 0, count: lookOf(request) },
    );
    fresh.forEach(({ choice, corrected }, i) => {
      found.push({ choice, corrected, predicted: predictedKl(library, choice), kl: kl[i]!, round });
    });
    const [first] = proposals;
    const own = found.find(({ choice }) => sameChoice(choice, first!.choice))!;
    await measureWhole(request, found, own);
    record.push({
      round,
      choice: own.choice,
      predicted: own.predicted,
      corrected: first!.corrected,
      measured: meanInterval(own.kl),
      candidates: fresh.length,
      stands: own.round < round && own === best(wholeOf(request, found)),
    });
  }
  return describe(request, found, record);
}

function lookOf({ sequences, look = sequences }: SettleRequest): number {
  return Math.min(look, sequences);
}

/** How many candidates of a round are measured on all of the text beside the proposal. */
const finalists = 3;

/** Measures on the rest of the text what the search proposed, and the nearest of those that may be better than all. */
async function measureWhole(request: SettleRequest, found: readonly Found[], proposal: Found): Promise<void> {
  const { sequences, measure } = request;
  const look = lookOf(request);
  const seen = ({ kl }: Found) => kl.slice(0, look);
  const least = found.reduce((a, b) => (mean(seen(b)) < mean(seen(a)) ? b : a));
  const mayBeBest = (other: Found) => other === least || pairedInterval(seen(other), seen(least)).low < 0;
  const open = found.filter((other) => other.kl.length < sequences && other !== proposal && mayBeBest(other));
  open.sort((a, b) => mean(seen(a)) - mean(seen(b)));
  const chosen = [...(proposal.kl.length < sequences ? [proposal] : []), ...open.slice(0, finalists)];
  const rest = await measure(
    chosen.map(({ choice }) => choice),
    { start: look, count: sequences - look },
  );
  for (const [i, candidate] of chosen.entries()) candidate.kl = [...candidate.kl, ...rest[i]!];
}

function wholeOf({ sequences }: SettleRequest, found: readonly Found[]): Found[] {
  return found.filter(({ kl }) => kl.length === sequences);
}

type Found = MeasuredChoice & Pick<Candidate, "round" | "corrected">;

interface Proposal {
  choice: Choice;
  corrected: number;
}

/**
 * Half of the proposals are the best choices by the corrected scores, best first. The others each do without a variant
 * of the best one, those that lose least by it: choices that all share a variant say nothing of what it costs.
 */
async function propose(request: SettleRequest, terms: Corrections): Promise<Proposal[]> {
  const { library, search: options, signal, searched } = request;
  const { solutions: pool = 8 } = options;
  const corrected = correctLibrary(library, terms);
  const shared = { ...options, ...(signal && { signal }) };
  const solutions = nearestOf(pool);
  const uncorrected = terms.scale === 1 && terms.offsets.length === 0;
  const found =
    (uncorrected && searched) || (await search(corrected, { ...shared, solutions, pairTerms: terms.pairTerms }));
  const nearest = found.solutions.map(({ choice, objective }) => ({ choice, corrected: objective }));
  const contrast = { choice: found.choice, known: nearest, wanted: pool - nearest.length };
  return [...nearest, ...(await contrasts(request, corrected, terms.pairTerms, contrast))];
}

interface Contrast {
  /** The best choice. */
  choice: Choice;
  /** Proposed already. */
  known: readonly Proposal[];
  /** How many to find. */
  wanted: number;
}

/**
 * The best choices without one of the changed variants of another, those that lose least by it. Taken in the order of
 * what the relaxation promises, until it promises no more than is found.
 */
async function contrasts(
  { library, search: options, signal }: SettleRequest,
  corrected: Library,
  pairTerms: readonly PairTerm[],
  { choice, known, wanted }: Contrast,
): Promise<Proposal[]> {
  const pricer = await createPricer();
  const open: { rest: Library; request: SearchOptions; bound: number }[] = [];
  for (const [layer, variant] of Object.entries(choice)) {
    if (library[layer]![variant]!.metrics.kl_div! <= 0) continue;
    await yieldTo(signal);
    const { [variant]: _, ...others } = corrected[layer]!;
    const rest = { ...corrected, [layer]: others };
    const request = { ...options, gap: roughGap, pairTerms: termsOf(rest, pairTerms) };
    const relaxed = pricer.relax(rest, request);
    if (relaxed) open.push({ rest, request, bound: relaxed.bound });
  }
  open.sort((a, b) => a.bound - b.bound);
  const found: Proposal[] = [];
  for (const { rest, request, bound } of open) {
    if (bound > (found[wanted - 1]?.corrected ?? Number.POSITIVE_INFINITY)) break;
    await yieldTo(signal);
    const priced = pricer.price(rest, request);
    if (!priced || [...known, ...found].some((other) => sameChoice(other.choice, priced.choice))) continue;
    found.push({ choice: priced.choice, corrected: priced.objective });
    found.sort((a, b) => a.corrected - b.corrected);
  }
  return found.slice(0, wanted);
}

/** How many of the candidates of a round are its best choices. */
export function nearestOf(candidates: number): number {
  return Math.ceil(candidates / 2);
}

/** Of candidates that only give contrast no proof to the last digit is needed. */
const roughGap = 1e-3;

/** Terms of variants that the library has. */
function termsOf(library: Library, terms: readonly PairTerm[]): PairTerm[] {
  const has = ([layer, variant]: PairTerm["a"]) => library[layer]?.[variant] !== undefined;
  return terms.filter(({ a, b }) => has(a) && has(b));
}

/** What the corrected scores say of a choice. */
export function correctedKl(library: Library, corrections: Corrections, choice: Choice): number {
  const together = corrections.pairTerms.filter(({ a, b }) => choice[a[0]] === a[1] && choice[b[0]] === b[1]);
  const sum = predictedKl(correctLibrary(library, corrections), choice);
  return together.reduce((total, { value }) => total + value, sum);
}

function isNew(found: readonly Found[]) {
  return ({ choice }: { choice: Choice }, at: number, all: readonly { choice: Choice }[]): boolean =>
    !found.some((other) => sameChoice(other.choice, choice)) &&
    all.findIndex((other) => sameChoice(other.choice, choice)) === at;
}

function sameChoice(a: Choice, b: Choice): boolean {
  const layers = Object.keys(a);
  return layers.length === Object.keys(b).length && layers.every((layer) => a[layer] === b[layer]);
}

function best(found: readonly Found[]): Found {
  return found.reduce((least, other) => (mean(other.kl) < mean(least.kl) ? other : least));
}

function describe(request: SettleRequest, found: Found[], rounds: SettleRound[]): Settled {
  const { library, known = [] } = request;
  const chosen = best(wholeOf(request, found));
  const level = createLevel(found.map(({ kl }) => kl));
  return {
    choice: chosen.choice,
    predicted: chosen.predicted,
    measured: meanInterval(chosen.kl),
    stands: rounds.at(-1)?.stands ?? false,
    rounds,
    candidates: found.map((candidate) => ({
      ...candidate,
      measured: meanInterval(level(candidate.kl)),
      aboveChosen: pairedInterval(candidate.kl, chosen.kl.slice(0, candidate.kl.length)),
    })),
    corrections: fitCorrections(library, [...known, ...found]),
  };
}
