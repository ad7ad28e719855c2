import { describe, expect, test } from "vitest";
import { createRng } from "../base/index.js";
import { createPairTable, mergeSymbols, type PairTable } from "./merges.js";

/** Byte-pair encoding by its definition: while there is a pair, merge the leftmost of the best. */
function mergeNaively(symbols: readonly number[], table: PairTable): number[] {
  const list = [...symbols];
  for (;;) {
    let best = -1;
    let bestRank = Number.POSITIVE_INFINITY;
    for (let i = 0; i + 1 < list.length; i++) {
      if (list[i]! < 0 || list[i + 1]! < 0) continue;
      const slot = table.find(list[i]!, list[i + 1]!);
      if (slot >= 0 && table.rank(slot) < bestRank) [best, bestRank] = [i, table.rank(slot)];
    }
    if (best < 0) return list;
    list.splice(best, 2, table.merged(table.find(list[best]!, list[best + 1]!)));
  }
}

function merge(symbols: readonly number[], table: PairTable): number[] {
  const array = Int32Array.from(symbols);
  const next = new Int32Array(array.length);
  mergeSymbols(array, next, array.length, table);
  const result: number[] = [];
  for (let i = 0; i < array.length; i = next[i]!) result.push(array[i]!);
  return result;
}

describe("merging", () => {
  test("the best pair first, the leftmost of equals", () => {
    const table = createPairTable(2);
    table.add(1, 1, 0, 2);
    table.add(2, 1, 1, 3);
    expect(merge([1, 1, 1, 1, 1], table)).toEqual([2, 3]);
    expect(merge([1, -1, 1, 1], table)).toEqual([1, -1, 2]);
  });

  test("equals the definition on random tables and texts, shared ranks included", () => {
    const rng = createRng("merges");
    for (let round = 0; round < 300; round++) {
      const table = createPairTable(4);
      for (let i = 0; i < 40; i++) table.add(rng.int(6 + i), rng.int(6 + i), rng.int(30), 6 + i);
      const symbols = Array.from({ length: rng.int(60) }, () => rng.int(7) - 1);
      expect(merge(symbols, table)).toEqual(mergeNaively(symbols, table));
    }
  });

  test("a long text without words takes time in proportion", () => {
    const table = createPairTable(20);
    for (let i = 0; i < 16; i++) table.add(i, i, i, i + 1);
    const merged = merge(new Array<number>(1 << 20).fill(0), table);
    expect(merged).toEqual(new Array<number>(16).fill(16));
  });
});

test("the pair table keeps what comes first and grows", () => {
  const table = createPairTable(1);
  for (let i = 0; i < 5000; i++) table.add(i, i * 7, i, i + 1);
  table.add(3, 21, 99, 99);
  expect(table.size).toBe(5000);
  expect(table.merged(table.find(3, 21))).toBe(4);
  expect(table.rank(table.find(4999, 34993))).toBe(4999);
  expect(table.find(3, 22)).toBe(-1);
});
