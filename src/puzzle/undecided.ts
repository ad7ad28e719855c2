/**
 * @module Which blocks can still change what a search chooses, given scores that are known by sequence only so far.
 *
 * A selection with block j in place of the chosen block c of its layer has an objective of at least `bound` + r(j), r
 * the reduced cost. The difference of the two scores is known within its interval, paired by sequence; where the bound
 * stays above the best objective even at the low end, j is settled. Beside these blocks, the ones that other draws of
 * the same sequences would choose stay open (all scores move together there, and the prices with them), and blocks that
 * another of the layer beats surely in score and in every cost are dropped.
 */
import { createRng, EspalierError, mean, pairedInterval } from "../base/index.js";
import { createPricer, type Library, type PricedChoices, type SearchOptions, type Variant } from "./search/index.js";
import { yieldTo } from "./search/search.js";

/** Bounds that one child must keep; as in `SearchOptions`. */
export type BudgetSet = Pick<SearchOptions, "max" | "min" | "fixed">;

/** layer -> variant -> score of each of the first sequences. */
export type Samples = Record<string, Record<string, readonly number[]>>;

export interface UndecidedRequest {
  /** Costs and scores (`kl_div`) of every variant. */
  library: Library;
  /** What the scores rest on; a variant may have fewer sequences than another. */
  samples: Samples;
  /** One for each child that shares the library. */
  budgets: readonly BudgetSet[];
  signal?: AbortSignal;
}

export interface Undecided {
  /** layer -> variants that can still be chosen, the chosen ones among them. */
  open: Record<string, string[]>;
  /** The choice under each of the budgets by the scores known so far. */
  choices: Record<string, string>[];
  /** layer -> variant -> least reduced cost under any of the budgets. */
  reduced: Record<string, Record<string, number>>;
}

/** Draws with replacement of the sequences, for each set of budgets. */
const draws = 8;
/** A proof to the last digit is for the final search. */
const gap = 1e-3;
/** Reduced costs in nats below this are the solver's rounding. */
const rounding = 1e-9;

export async function findUndecided(request: UndecidedRequest): Promise<Undecided> {
  const { library, samples, budgets, signal } = request;
  const pricer = await createPricer();
  const open = new Map(Object.keys(library).map((layer) => [layer, new Set<string>()]));
  const choices: Record<string, string>[] = [];
  const reduced: Undecided["reduced"] = {};
  for (const bounds of budgets) {
    await yieldTo(signal);
    const options = { ...bounds, gap, ...(signal && { signal }) };
    const priced = pricer.price(library, options) ?? unreachable(bounds);
    choices.push(priced.choice);
    lower(reduced, priced.reduced);
    for (const [layer, variants] of Object.entries(samples)) {
      for (const id of contenders(priced, layer, variants)) open.get(layer)!.add(id);
    }
    for (let draw = 0; draw < draws; draw++) {
      const relaxed = pricer.relax(redrawn(request, draw), options) ?? unreachable(bounds);
      for (const [layer, ids] of Object.entries(relaxed.reduced)) {
        for (const [id, value] of Object.entries(ids)) if (value <= rounding) open.get(layer)!.add(id);
      }
    }
  }
  const chosen = new Set(choices.flatMap((choice) => Object.entries(choice).map(([layer, id]) => `${layer} ${id}`)));
  const costs = costNames(budgets);
  const kept = (layer: string, id: string) =>
    chosen.has(`${layer} ${id}`) || !isBeaten(id, library[layer]!, samples[layer]!, costs);
  return {
    open: Object.fromEntries([...open].map(([layer, ids]) => [layer, [...ids].filter((id) => kept(layer, id))])),
    choices,
    reduced,
  };
}

/** The library as other draws of the sequences show it: drawn with replacement, the same for blocks of the same count. */
function redrawn({ library, samples }: UndecidedRequest, draw: number): Library {
  const share = (values: readonly number[]): number => {
    const rng = createRng(`draw ${draw} of ${values.length}`);
    const drawn = mean(values.map(() => values[rng.int(values.length)]!));
    return drawn === 0 ? 1 : drawn / mean(values);
  };
  const entry = (layer: string, id: string, { metrics, ...rest }: Variant): [string, Variant] => [
    id,
    { ...rest, metrics: { kl_div: metrics.kl_div! * share(samples[layer]![id]!) } },
  ];
  return Object.fromEntries(
    Object.entries(library).map(([layer, variants]) => [
      layer,
      Object.fromEntries(Object.entries(variants).map(([id, variant]) => entry(layer, id, variant))),
    ]),
  );
}

function unreachable({ max = {}, min = {} }: BudgetSet): never {
  throw new EspalierError({
    where: "scoring",
    expected: "budgets that some choice of blocks meets",
    found: JSON.stringify({ max, min }),
    fix: "loosen the budget; `espalier search` says how far",
    exitCode: 2,
  });
}

/** The chosen variant of a layer and those that the reduced-cost test leaves open. */
function contenders({ choice, objective, bound, reduced }: PricedChoices, layer: string, variants: Samples[string]) {
  const chosen = choice[layer];
  // A choice over several layers stands elsewhere: nothing to compare with.
  if (chosen === undefined) return Object.keys(variants);
  const slack = objective - bound;
  return Object.entries(variants).flatMap(([id, values]) => {
    if (id === chosen) return [id];
    const { mean: centre, low } = difference(values, variants[chosen]!);
    return reduced[layer]![id]! + low - centre > slack ? [] : [id];
  });
}

/** a - b over the sequences that both have. */
function difference(a: readonly number[], b: readonly number[]) {
  const n = Math.min(a.length, b.length);
  return pairedInterval(a.slice(0, n), b.slice(0, n));
}

function isBeaten(id: string, variants: Library[string], samples: Samples[string], costs: readonly CostName[]) {
  return Object.keys(variants).some(
    (other) =>
      other !== id &&
      sameSpan(variants[other]!, variants[id]!) &&
      costs.every(({ name, sign }) => sign * cost(variants[other]!, name) <= sign * cost(variants[id]!, name)) &&
      difference(samples[id]!, samples[other]!).low > 0,
  );
}

function sameSpan(a: Variant, b: Variant): boolean {
  return a.layers?.join() === b.layers?.join();
}

function cost({ stats, metrics }: Variant, name: string): number {
  return stats[name] ?? metrics[name]!;
}

/** A bounded cost; `sign` is -1 where more of it is better. */
interface CostName {
  name: string;
  sign: 1 | -1;
}

function costNames(budgets: readonly BudgetSet[]): CostName[] {
  return budgets.flatMap(({ max = {}, min = {} }) => [
    ...Object.keys(max).map((name) => ({ name, sign: 1 as const })),
    ...Object.keys(min).map((name) => ({ name, sign: -1 as const })),
  ]);
}

function lower(least: Undecided["reduced"], reduced: Undecided["reduced"]): void {
  for (const [layer, variants] of Object.entries(reduced)) {
    least[layer] ??= {};
    for (const [id, value] of Object.entries(variants)) {
      least[layer][id] = Math.min(least[layer][id] ?? Number.POSITIVE_INFINITY, value);
    }
  }
}
