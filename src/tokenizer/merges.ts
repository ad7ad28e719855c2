/**
 * @module Byte-pair encoding: neighbouring symbols are merged, the best pair first and the leftmost of equals, until no
 * pair is left. One loop serves both kinds of vocabulary: ranked merges (Hugging Face, GPT-2) and scored tokens
 * (SentencePiece), which differ only in how a pair gets its rank.
 *
 * The loop keeps a heap of candidate pairs, so a text of n characters takes O(n log n) however long its words are:
 * some vocabularies have no pre-tokenizer and merge across a whole document.
 */

/** What a pair of neighbouring symbols becomes, and how early. */
export interface PairTable {
  /** Keeps the first rank when a pair comes twice. */
  add(left: number, right: number, rank: number, merged: number): void;
  /** Slot of the pair, or -1. */
  find(left: number, right: number): number;
  rank(slot: number): number;
  merged(slot: number): number;
  readonly size: number;
}

/** An open-addressing hash table over typed arrays: a `Map` with 300,000 number pairs takes ten times the memory. */
export function createPairTable(expected: number): PairTable {
  let capacity = 16;
  while (capacity < expected * 2) capacity *= 2;
  let lefts = new Int32Array(capacity).fill(-1);
  let rights = new Int32Array(capacity);
  let ranks = new Int32Array(capacity);
  let mergeds = new Int32Array(capacity);
  let size = 0;

  const slotOf = (left: number, right: number): number => {
    let slot = (Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b)) >>> 0;
    slot = (slot ^ (slot >>> 15)) & (capacity - 1);
    while (lefts[slot] !== -1 && (lefts[slot] !== left || rights[slot] !== right)) slot = (slot + 1) & (capacity - 1);
    return slot;
  };

  const grow = (): void => {
    const old = { lefts, rights, ranks, mergeds };
    capacity *= 2;
    lefts = new Int32Array(capacity).fill(-1);
    rights = new Int32Array(capacity);
    ranks = new Int32Array(capacity);
    mergeds = new Int32Array(capacity);
    size = 0;
    for (let i = 0; i < old.lefts.length; i++) {
      if (old.lefts[i] !== -1) table.add(old.lefts[i]!, old.rights[i]!, old.ranks[i]!, old.mergeds[i]!);
    }
  };

  const table: PairTable = {
    add(left, right, rank, merged) {
      if ((size + 1) * 2 > capacity) grow();
      const slot = slotOf(left, right);
      if (lefts[slot] !== -1) return;
      lefts[slot] = left;
      rights[slot] = right;
      ranks[slot] = rank;
      mergeds[slot] = merged;
      size++;
    },
    find(left, right) {
      const slot = slotOf(left, right);
      return lefts[slot] === -1 ? -1 : slot;
    },
    rank: (slot) => ranks[slot]!,
    merged: (slot) => mergeds[slot]!,
    get size() {
      return size;
    },
  };
  return table;
}

/**
 * Merges `symbols` in place: afterwards `next[i]` leads from each remaining symbol to the one after it (n at the end),
 * starting at 0. Negative symbols take part in no merge.
 */
export function mergeSymbols(symbols: Int32Array, next: Int32Array, n: number, table: PairTable): void {
  const previous = new Int32Array(n);
  const heap = createHeap(n);
  // Rank and position in one number: ranks stay below 2^21 (vocabularies are limited) and positions below 2^32.
  const push = (at: number): void => {
    if (at < 0 || next[at]! >= n || symbols[at]! < 0) return;
    const right = symbols[next[at]!]!;
    if (right < 0) return;
    const slot = table.find(symbols[at]!, right);
    if (slot >= 0) heap.push(table.rank(slot) * 4294967296 + at);
  };
  for (let i = 0; i < n; i++) {
    next[i] = i + 1;
    previous[i] = i - 1;
  }
  for (let i = 0; i + 1 < n; i++) push(i);
  for (;;) {
    const best = heap.pop();
    if (best < 0) return;
    const at = best % 4294967296;
    const right = next[at]!;
    if (symbols[at]! < 0 || right >= n || symbols[right]! < 0) continue;
    // An entry is stale when one of its two symbols has been merged since; what stands there now must have its rank.
    const slot = table.find(symbols[at]!, symbols[right]!);
    if (slot < 0 || table.rank(slot) !== (best - at) / 4294967296) continue;
    symbols[at] = table.merged(slot);
    symbols[right] = DEAD;
    next[at] = next[right]!;
    if (next[right]! < n) previous[next[right]!] = at;
    push(previous[at]!);
    push(at);
  }
}

/** Mark of a symbol that was merged into the one before it. */
const DEAD = -2;

/** A binary heap of numbers, smallest first; -1 when it is empty. */
function createHeap(expected: number): { push(value: number): void; pop(): number } {
  let values = new Float64Array(Math.max(16, expected));
  let size = 0;
  return {
    push(value) {
      if (size === values.length) {
        const larger = new Float64Array(size * 2);
        larger.set(values);
        values = larger;
      }
      let at = size++;
      while (at > 0) {
        const parent = (at - 1) >> 1;
        if (values[parent]! <= value) break;
        values[at] = values[parent]!;
        at = parent;
      }
      values[at] = value;
    },
    pop() {
      if (size === 0) return -1;
      const top = values[0]!;
      const last = values[--size]!;
      let at = 0;
      for (;;) {
        let child = at * 2 + 1;
        if (child >= size) break;
        if (child + 1 < size && values[child + 1]! < values[child]!) child++;
        if (values[child]! >= last) break;
        values[at] = values[child]!;
        at = child;
      }
      values[at] = last;
      return top;
    },
  };
}
