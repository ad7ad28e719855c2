/**
 * @module Which prompts a rollout takes: in a seeded order, or from easy to hard by their pass rates, as Llama-Nemotron's
 * reasoning stage does (arXiv:2505.00949, section 5.1): "a Gaussian target distribution" over pass rates for each batch,
 * its centre moving from high rates to low ones; what a pool lacks is filled from the largest that remain.
 *
 * Departures: pools are tenths of the pass rate; once all prompts were taken, they are all there again.
 */
import { createRng, EspalierError } from "../../base/index.js";

/** Numbers of the tasks of a rollout: a pure function. */
export type PromptPlan = (rollout: number) => readonly number[];

/** Every prompt once in each pass, in another order each time; the last rollout of a pass reaches into the next one. */
export function shuffledPrompts(count: number, perRollout: number, seed: number | string): PromptPlan {
  if (count < 1) throw new EspalierError({ where: "prompts", expected: "at least one", found: "none" });
  const orders = new Map<number, number[]>();
  const orderOf = (pass: number) => {
    const order = orders.get(pass) ?? createRng(`${seed}/prompts ${pass}`).shuffle(range(count));
    orders.set(pass, order);
    return order;
  };
  return (rollout) =>
    range(perRollout).map((i) => {
      const place = rollout * perRollout + i;
      return orderOf(Math.floor(place / count))[place % count]!;
    });
}

export interface CurriculumOptions {
  perRollout: number;
  /** Rollouts over which the centre moves from the highest pass rate to the lowest. */
  rollouts: number;
  /** Deviation of the target. Defaults to 0.2. */
  spread?: number;
  seed: number | string;
}

/** @param passRates of each task, 0 to 1 */
export function curriculumPrompts(
  passRates: readonly number[],
  { perRollout, rollouts, spread = 0.2, seed }: CurriculumOptions,
): PromptPlan {
  const rng = createRng(`${seed}/curriculum`);
  const fresh = () => poolsOf(passRates, rng.shuffle(range(passRates.length)));
  let pools = fresh();
  const [highest, lowest] = [Math.max(...passRates), Math.min(...passRates)];
  const plan = range(rollouts).map((rollout) => {
    const centre = highest + ((lowest - highest) * rollout) / Math.max(1, rollouts - 1);
    const taken: number[] = [];
    while (taken.length < perRollout) {
      if (pools.every(({ tasks }) => tasks.length === 0)) pools = fresh();
      taken.push(...takeAround(pools, centre, spread, perRollout - taken.length));
    }
    return rng.shuffle(taken);
  });
  return (rollout) => plan[Math.min(rollout, rollouts - 1)]!;
}

interface Pool {
  rate: number;
  tasks: number[];
}

/** Pools by tenths of the pass rate, each with its middle rate. */
function poolsOf(passRates: readonly number[], order: readonly number[]): Pool[] {
  const pools = range(11).map((tenth): Pool => ({ rate: tenth / 10, tasks: [] }));
  for (const task of order) pools[Math.round(10 * Math.min(1, Math.max(0, passRates[task]!)))]!.tasks.push(task);
  return pools;
}

function takeAround(pools: Pool[], centre: number, spread: number, count: number): number[] {
  const weights = pools.map(({ rate }) => Math.exp(-((rate - centre) ** 2) / (2 * spread ** 2)));
  const wanted = wholeShares(weights, count);
  const taken = pools.flatMap(({ tasks }, i) => tasks.splice(0, wanted[i]!));
  while (taken.length < count) {
    const largest = pools.reduce((best, pool) => (pool.tasks.length > best.tasks.length ? pool : best));
    if (largest.tasks.length === 0) break;
    taken.push(largest.tasks.shift()!);
  }
  return taken;
}

/** Whole numbers that sum to `count`, by largest remainders. */
function wholeShares(weights: readonly number[], count: number): number[] {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const exact = weights.map((weight) => (count * weight) / total);
  const shares = exact.map(Math.floor);
  const rest = count - shares.reduce((sum, share) => sum + share, 0);
  const byRemainder = range(weights.length).sort((a, b) => exact[b]! - shares[b]! - (exact[a]! - shares[a]!) || a - b);
  for (const i of byRemainder.slice(0, rest)) shares[i]!++;
  return shares;
}

const range = (count: number) => Array.from({ length: count }, (_, i) => i);
