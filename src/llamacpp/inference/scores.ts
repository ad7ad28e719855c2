/** @module Log-probabilities of tokens, read off the logits of a row of the batch. */
import type { TokenLogprob } from "../inference.js";
import type { Internals, NativeSampler } from "../native-context.js";

export type Score = Required<Pick<TokenLogprob, "logprob" | "top">>;

export interface Scorer {
  /** Log-probability of the token, with the `top` likeliest ones. Calls for different rows may overlap. */
  score(row: number, id: number, top: number): Promise<Score>;
  dispose(): void;
}

/**
 * @param text Of a single token, for the likeliest ones.
 */
export function createScorer({ ctx, createSampler }: Internals, text: (id: number) => string): Scorer {
  // A sampler holds the row that it works on, so each overlapping call has its own.
  const greedy = createPool(() => createSampler({ temperature: 0 }));
  const likeliest = new Map<number, Pool>();
  const poolFor = (count: number): Pool => {
    // At temperature 1 the logits stay as they are, and the chain cuts all but the likeliest off without a full sort.
    const pool = likeliest.get(count) ?? createPool(() => createSampler({ temperature: 1, topK: count, seed: 1 }));
    likeliest.set(count, pool);
    return pool;
  };

  const topOf = async (row: number, count: number, logTotal: number) => {
    const [, , , pairs = []] = await poolFor(count).use((sampler) => ctx.sampleToken(row, sampler, false, false, true));
    return pairsOf(pairs).map(([id, logit]) => ({ id, text: text(id), logprob: logit - logTotal }));
  };

  return {
    async score(row, id, top) {
      // The greedy choice is the largest logit, which the total weight is relative to.
      const [largest, , , pairs = [], weight = Number.NaN] = await greedy.use((sampler) =>
        ctx.sampleToken(row, sampler, false, false, [[id], false, false, true, 0], true),
      );
      const logits = new Map(pairsOf(pairs));
      const logTotal = logits.get(largest)! + Math.log(weight);
      const logprob = logits.get(id)! - logTotal;
      if (top === 0) return { logprob, top: [] };
      if (top > 1) return { logprob, top: await topOf(row, top, logTotal) };
      return { logprob, top: [{ id: largest, text: text(largest), logprob: -Math.log(weight) }] };
    },
    dispose() {
      for (const pool of [greedy, ...likeliest.values()]) pool.dispose();
    },
  };
}

function pairsOf(flat: readonly number[]): [id: number, logit: number][] {
  return Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i]!, flat[2 * i + 1]!]);
}

interface Pool {
  use<T>(work: (sampler: NativeSampler) => Promise<T>): Promise<T>;
  dispose(): void;
}

/** Work that overlaps more than this gains nothing: the pool of threads behind the binding has four. */
const mostSamplers = 4;

function createPool(create: () => NativeSampler): Pool {
  const free: NativeSampler[] = [];
  const waiting: ((sampler: NativeSampler) => void)[] = [];
  let made = 0;
  const take = (): Promise<NativeSampler> => {
    const sampler = free.pop();
    if (sampler) return Promise.resolve(sampler);
    if (made === mostSamplers) return new Promise((resolve) => waiting.push(resolve));
    made++;
    return Promise.resolve(create());
  };
  return {
    async use(work) {
      const sampler = await take();
      try {
        return await work(sampler);
      } finally {
        const next = waiting.shift();
        if (next) next(sampler);
        else free.push(sampler);
      }
    },
    dispose() {
      for (const sampler of free.splice(0)) sampler.dispose();
    },
  };
}
