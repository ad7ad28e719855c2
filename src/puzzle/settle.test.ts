import { describe, expect, test } from "vitest";
import { createRng, mean } from "../base/index.js";
import type { SequenceRange } from "./assembled.js";
import { fitCorrections } from "./corrections.js";
import { predictedKl } from "./library.js";
import { type Library, search } from "./search/index.js";
import { settleChoice } from "./settle.js";

type Choice = Record<string, string>;

/** Layers with four variants each: the smaller, the worse, more or less. */
function randomLibrary(seed: number, layers = 8): Library {
  const rng = createRng(`settle ${seed}`);
  return Object.fromEntries(
    Array.from({ length: layers }, (_, layer) => {
      const importance = Math.exp(0.7 * rng.normal());
      const variants = ["full", "large", "small", "none"].map((name, j) => [
        name,
        { stats: { size: 9 - 3 * j }, metrics: { kl_div: j === 0 ? 0 : 0.05 * importance * j ** 1.7 } },
      ]);
      return [String(layer), Object.fromEntries(variants)];
    }),
  );
}

const sequences = 16;

/** Truth by sequence: `of(choice)` with noise that all choices share, and a little of their own. */
function measurer(of: (choice: Choice) => number) {
  const asked: Choice[] = [];
  const measure = async (choices: readonly Choice[], { start, count }: SequenceRange) => {
    if (start === 0) asked.push(...choices);
    return choices.map((choice) => {
      const own = createRng(JSON.stringify(choice));
      const shared = createRng("text");
      const values = Array.from({ length: sequences }, () => {
        return of(choice) * (1 + 0.2 * shared.normal()) + 0.001 * own.normal();
      });
      return values.slice(start, start + count);
    });
  };
  return { measure, asked, sequences };
}

const budgets = { max: { size: 45 } };

describe("a choice that stands", () => {
  test("where scores add up, the first proposal stays and the next search confirms it", async () => {
    const library = randomLibrary(1);
    const { measure, asked } = measurer((choice) => predictedKl(library, choice));
    const { choice, stands, rounds, candidates, corrections } = await settleChoice({
      library,
      search: budgets,
      measure,
      sequences,
    });
    expect(choice).toEqual((await search(library, budgets)).choice);
    expect(stands).toBe(true);
    expect(rounds).toHaveLength(2);
    expect(asked.length).toBe(candidates.length);
    expect(corrections.scale).toBeCloseTo(1, 1);
    for (const { aboveChosen } of candidates) expect(aboveChosen.mean).toBeGreaterThanOrEqual(0);
  });

  test.each([2, 3, 4])("a planted interaction between neighbours is found and avoided, library %i", async (seed) => {
    const library = randomLibrary(seed);
    const naive = (await search(library, budgets)).choice;
    // Two neighbours that the sum of scores would change, and that together cost as much again as everything else.
    const at = Object.keys(library).findIndex(
      (layer, i, all) => naive[layer] !== "full" && all[i + 1] !== undefined && naive[all[i + 1]!] !== "full",
    );
    const [a, b] = [String(at), String(at + 1)];
    const planted = predictedKl(library, naive);
    const both = (choice: Choice) => choice[a] === naive[a] && choice[b] === naive[b];
    const truth = (choice: Choice) => predictedKl(library, choice) + (both(choice) ? planted : 0);
    const { measure } = measurer(truth);
    const settled = await settleChoice({
      library,
      search: { ...budgets, solutions: 4 },
      measure,
      sequences,
      rounds: 5,
    });
    expect(both(settled.choice)).toBe(false);
    expect(settled.stands).toBe(true);
    // As good as the best of all choices that avoid it, to a few percent of what the first proposal costs.
    const pairTerms = [{ a: [a, naive[a]!], b: [b, naive[b]!], value: planted } as const];
    const best = await search(library, { ...budgets, pairTerms });
    expect(truth(settled.choice)).toBeLessThan(best.objective! + 0.1 * planted);
    expect(settled.rounds[0]!.measured.mean).toBeGreaterThan(1.5 * settled.rounds[0]!.predicted);
    expect(settled.measured.mean).toBeLessThan(0.8 * settled.rounds[0]!.measured.mean);
  });

  test("a variant that is worse in company than its score is found", async () => {
    const library = randomLibrary(5);
    const naive = (await search(library, budgets)).choice;
    const layer = Object.keys(naive).findLast((name) => naive[name] !== "full")!;
    const worse = predictedKl(library, naive);
    const truth = (choice: Choice) => predictedKl(library, choice) + (choice[layer] === naive[layer] ? worse : 0);
    const { measure } = measurer(truth);
    const settled = await settleChoice({ library, search: budgets, measure, sequences, rounds: 5 });
    const real = structuredClone(library);
    real[layer]![naive[layer]!]!.metrics.kl_div! += worse;
    const { objective } = await search(real, budgets);
    expect(objective!).toBeLessThan(0.95 * truth(naive));
    expect(truth(settled.choice)).toBeLessThan(1.02 * objective!);
  });

  test("all are looked at, the proposal and the few nearest are measured whole, the choice is one of these", async () => {
    const library = randomLibrary(2);
    const ranges: string[] = [];
    const { measure } = measurer((choice) => predictedKl(library, choice));
    const settled = await settleChoice({
      library,
      search: budgets,
      sequences,
      look: 4,
      async measure(choices, range) {
        if (choices.length > 0) ranges.push(`${choices.length} from ${range.start}: ${range.count}`);
        return measure(choices, range);
      },
    });
    const { choice, candidates } = settled;
    expect(choice).toEqual((await search(library, budgets)).choice);
    const whole = candidates.filter(({ kl }) => kl.length === sequences);
    expect(candidates.filter(({ kl }) => kl.length === 4).length).toBe(candidates.length - whole.length);
    expect(whole.length).toBeLessThan(candidates.length);
    expect(ranges[0]).toMatch(/^[5-8] from 0: 4$/);
    expect(ranges[1]).toMatch(/^[1-4] from 4: 12$/);
    // Those that were only looked at are brought to the level of the text, and compared on what they have.
    for (const { measured, predicted, kl, aboveChosen } of candidates) {
      expect(measured.mean / predicted).toBeGreaterThan(0.8);
      expect(measured.mean / predicted).toBeLessThan(1.2);
      expect(aboveChosen.n).toBe(kl.length);
    }
  });

  test("another choice that is better in truth is taken; rounds end", async () => {
    const library = randomLibrary(6);
    const also = Object.fromEntries(Object.keys(library).map((layer, i) => [layer, i % 2 ? "none" : "large"]));
    const same = (choice: Choice) => Object.keys(also).every((layer) => also[layer] === choice[layer]);
    const { measure } = measurer((choice) => (same(choice) ? 1e-3 : predictedKl(library, choice)));
    const { choice, rounds, stands } = await settleChoice({
      library,
      search: budgets,
      measure,
      sequences,
      also: [also],
      rounds: 1,
    });
    expect(choice).toEqual(also);
    expect(rounds).toHaveLength(1);
    expect(stands).toBe(false);
  });
});

describe("corrections", () => {
  test("nothing measured corrects nothing", () => {
    expect(fitCorrections(randomLibrary(7), [])).toEqual({ scale: 1, offsets: [], pairTerms: [] });
  });

  test("a common factor becomes the scale and leaves no offsets", () => {
    const library = randomLibrary(8);
    const measured = ["large", "small", "none"].map((name) => {
      const choice = Object.fromEntries(Object.keys(library).map((layer) => [layer, name]));
      const predicted = predictedKl(library, choice);
      return { choice, predicted, kl: [0.8 * predicted, 0.8 * predicted] };
    });
    const { scale, offsets, pairTerms } = fitCorrections(library, measured);
    expect(scale).toBeCloseTo(0.8, 2);
    for (const { value } of offsets) expect(Math.abs(value)).toBeLessThan(0.005);
    expect(pairTerms).toEqual([]);
  });

  test("one variant that costs more than its score: the offset goes to it, not to what all share", () => {
    const library = randomLibrary(9);
    const base = Object.fromEntries(Object.keys(library).map((layer) => [layer, "large"]));
    const measured = Object.keys(library).map((layer) => {
      const choice = { ...base, [layer]: "small" };
      const predicted = predictedKl(library, choice);
      return { choice, predicted, kl: [predicted, predicted].map((kl) => kl + (layer === "3" ? 0.1 : 0)) };
    });
    const { offsets } = fitCorrections(library, measured);
    const largest = offsets.reduce((a, b) => (Math.abs(b.value) > Math.abs(a.value) ? b : a));
    expect(largest).toMatchObject({ layer: "3", variant: "small" });
    expect(largest.value).toBeGreaterThan(0);
    expect(mean(offsets.map(({ value }) => Math.abs(value)))).toBeLessThan(largest.value);
  });
});
