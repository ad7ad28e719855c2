/**
 * @module Drawing the tokens of many sequences. Every draw has a number of its own, made from the seed, the prompt, the
 * sample and the position, so that a sequence does not depend on which others run beside it.
 *
 * `topK` keeps the most probable tokens; `topP` then keeps the shortest prefix of those, most probable first, that
 * reaches this share of what they have (Holtzman et al., arXiv:1904.09751, section 3.1). Equal tokens keep the order of
 * their ids.
 */
import { createRng } from "../../base/index.js";

export interface Truncation {
  /** Keep this many of the most probable tokens; 0 keeps all. */
  topK: number;
  /** Keep the most probable tokens up to this probability; 1 keeps all. */
  topP: number;
}

/** A number in [0, 1) that belongs to one token of one sequence. */
export function uniformAt(seed: number, prompt: string | number, sample: number, position: number): number {
  return createRng(`${seed}/${prompt}/${sample}/${position}`).next();
}

/** The token that `uniform` falls on. `odds`: values in [0, 1] that are proportional to the probabilities, [V]. */
export function drawToken(odds: Float32Array, uniform: number, { topK, topP }: Truncation): number {
  if (topP >= 1 && topK <= 0) return drawFromAll(odds, uniform);
  const kept = truncate(odds, { topK, topP });
  let left = uniform * kept.reduce((sum, id) => sum + odds[id]!, 0);
  for (const id of kept) {
    left -= odds[id]!;
    if (left < 0) return id;
  }
  return kept.at(-1)!;
}

function drawFromAll(odds: Float32Array, uniform: number): number {
  const target = uniform * sumOf(odds);
  let reached = 0;
  let last = 0;
  for (let id = 0; id < odds.length; id++) {
    if (odds[id]! === 0) continue;
    reached += odds[id]!;
    last = id;
    if (reached > target) break;
  }
  return last;
}

function sumOf(values: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  return sum;
}

/** Ids of the kept tokens, most probable first. */
function truncate(odds: Float32Array, { topK, topP }: Truncation): number[] {
  const sorted = likeliest(odds, { topK, topP });
  const first = topK > 0 ? sorted.slice(0, topK) : sorted;
  const share = topP * (topK > 0 ? first.reduce((sum, id) => sum + odds[id]!, 0) : sumOf(odds));
  let reached = 0;
  const end = first.findIndex((id) => {
    reached += odds[id]!;
    return reached >= share;
  });
  return end < 0 ? first : first.slice(0, end + 1);
}

/** Leading bits of a float that name its bucket: the exponent and five bits of the mantissa. */
const bucketShift = 18;

/**
 * At least the tokens that are kept, sorted. Only those above a bound are sorted: floats from 0 to 1 order as their bits
 * do, so a histogram over the leading bits tells where enough tokens are above.
 */
function likeliest(odds: Float32Array, { topK, topP }: Truncation): number[] {
  const bits = new Uint32Array(odds.buffer, odds.byteOffset, odds.length);
  const counts = new Uint32Array((0x3f800000 >>> bucketShift) + 1);
  const sums = new Float64Array(counts.length);
  let total = 0;
  for (let id = 0; id < odds.length; id++) {
    const bucket = bits[id]! >>> bucketShift;
    counts[bucket]!++;
    sums[bucket]! += odds[id]!;
    total += odds[id]!;
  }
  let [bucket, count, sum] = [counts.length, 0, 0];
  const enough = () => (topK > 0 ? count >= topK : sum >= topP * total * (1 + 1e-9));
  while (bucket > 0 && !enough()) {
    bucket--;
    count += counts[bucket]!;
    sum += sums[bucket]!;
  }
  const ids: number[] = [];
  for (let id = 0; id < odds.length; id++) if (bits[id]! >>> bucketShift >= bucket) ids.push(id);
  return ids.sort((a, b) => odds[b]! - odds[a]! || a - b);
}
