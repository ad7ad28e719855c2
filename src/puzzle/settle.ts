/**
 * @module From the search's proposal to a choice that stands: the best few are put together and measured whole, the
 * scores are corrected by what that shows (`corrections.ts`), and the search is run again, until what it proposes was
 * measured already and nothing measured is better.
 */
import { type Interval, mean, meanInterval, pairedInterval } from "../base/index.js";
import { type Corrections, correctLibrary, fitCorrections, type MeasuredChoice } from "./corrections.js";
import { predictedKl } from "./library.js";
import { createPricer, type Library, type PairTerm, type SearchOptions, search } from "./search/index.js";
import { yieldTo } from "./search/search.js";

type Choice = Record<string, string>;

export interface SettleRequest {
  library: Library;
  /** Budgets of the child, how many candidates a round proposes (`solutions`, default 8) and how far apart they are. */
  search: Omit<SearchOptions, "sweep" | "pairTerms" | "signal">;
  /** True KL of whole candidates, for each by sequence, all on the same sequences. */
  measure: (choices: readonly Choice[]) => Promise<number[][]>;
  /** Searches at most. Defaults to 3. */
  rounds?: number;
  /** Other choices within the budgets that are measured with the first ones. */
  also?: readonly Choice[];
  /** Candidates of the same library measured before, such as another child's; only the corrections use them. */
  known?: readonly MeasuredChoice[];
  signal?: AbortSignal;
}

/** One candidate, in the order in which they were measured. */
export interface Candidate extends MeasuredChoice {
  /** Round in which it was proposed, from 1. */
  round: number;
  /** What the corrected scores said before it was measured. */
  corrected: number;
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
    const kl = await request.measure(fresh.map(({ choice }) => choice));
    fresh.forEach(({ choice, corrected }, i) => {
      found.push({ choice, corrected, predicted: predictedKl(library, choice), kl: kl[i]!, round });
    });
    const [first] = proposals;
    const own = found.find(({ choice }) => sameChoice(choice, first!.choice))!;
    record.push({
      round,
      choice: own.choice,
      predicted: own.predicted,
      corrected: first!.corrected,
      measured: meanInterval(own.kl),
      candidates: fresh.length,
      stands: own.round < round && own === best(found),
    });
  }
  return describe(request, found, record);
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
async function propose({ library, search: options, signal }: SettleRequest, terms: Corrections): Promise<Proposal[]> {
  const { solutions: pool = 8 } = options;
  const corrected = correctLibrary(library, terms);
  const shared = { ...options, ...(signal && { signal }) };
  const solutions = Math.ceil(pool / 2);
  const found = await search(corrected, { ...shared, solutions, pairTerms: terms.pairTerms });
  const nearest = found.solutions.map(({ choice, objective }) => ({ choice, corrected: objective }));
  const pricer = await createPricer();
  const without: Proposal[] = [];
  for (const [layer, variant] of Object.entries(found.choice)) {
    if (library[layer]![variant]!.metrics.kl_div! <= 0) continue;
    await yieldTo(signal);
    const { [variant]: _, ...others } = corrected[layer]!;
    const rest = { ...corrected, [layer]: others };
    const priced = pricer.price(rest, { ...shared, gap: roughGap, pairTerms: termsOf(rest, terms.pairTerms) });
    if (priced) without.push({ choice: priced.choice, corrected: priced.objective });
  }
  without.sort((a, b) => a.corrected - b.corrected);
  const all = [...nearest, ...without];
  return all.filter(({ choice }, i) => all.findIndex((other) => sameChoice(other.choice, choice)) === i).slice(0, pool);
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

function describe({ library, known = [] }: SettleRequest, found: Found[], rounds: SettleRound[]): Settled {
  const chosen = best(found);
  return {
    choice: chosen.choice,
    predicted: chosen.predicted,
    measured: meanInterval(chosen.kl),
    stands: rounds.at(-1)?.stands ?? false,
    rounds,
    candidates: found.map((candidate) => ({
      ...candidate,
      measured: meanInterval(candidate.kl),
      aboveChosen: pairedInterval(candidate.kl, chosen.kl),
    })),
    corrections: fitCorrections(library, [...known, ...found]),
  };
}
