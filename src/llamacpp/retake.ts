/** A sample that took longer than this many times the shortest of its kind is taken again. */
const disturbedShare = 1.25;
const mostRetakes = 3;

/**
 * Takes samples (in seconds, or any measure of which noise only adds) that something else on the machine has disturbed
 * again, at most three times, and keeps the least. `kind` names what is sampled; equal kinds are compared. `budget`: how often
 * in all, so that a machine that is always busy does not take forever.
 */
export function createRetaking(budget: number): (kind: string, sample: () => Promise<number>) => Promise<number> {
  const shortest = new Map<string, number>();
  let left = budget;
  return async (kind, sample) => {
    let least = Number.POSITIVE_INFINITY;
    for (let take = 0; take <= mostRetakes; take++) {
      least = Math.min(least, await sample());
      const best = Math.min(shortest.get(kind) ?? least, least);
      shortest.set(kind, best);
      if (least <= disturbedShare * best || left === 0) break;
      if (take < mostRetakes) left--;
    }
    return least;
  };
}
