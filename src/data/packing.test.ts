import { describe, expect, test } from "vitest";
import { createRng, type Event } from "../base/index.js";
import { type BranchedSample, createPackedBatches, limitLength, packSamples, type TokenSample } from "./index.js";

const sample = (length: number, first = 0): TokenSample => ({
  ids: Int32Array.from({ length }, (_, i) => first + i),
  learn: Uint8Array.from({ length }, (_, i) => Number(i > 0)),
});
const branched = (prompt: number, ...lengths: number[]): BranchedSample => ({
  prompt: Int32Array.from({ length: prompt }, (_, i) => 100 + i),
  branches: lengths.map((length, b) => ({
    ids: Int32Array.from({ length }, (_, i) => 200 + 10 * b + i),
    learn: new Uint8Array(length).fill(1),
  })),
});

describe("packing", () => {
  test("a row holds segments, prefixes, positions and targets", () => {
    const { batches, fill } = packSamples([sample(3), branched(2, 2, 1)], { batch: 1, length: 9 });
    const { rows, sequences, tokens, targetCount } = batches[0]!;
    const { ids, segments, prefixes, positions, targets } = rows[0]!;
    expect([...ids]).toEqual([100, 101, 200, 201, 210, 0, 1, 2, 0]);
    expect([...segments]).toEqual([0, 0, 1, 1, 2, 3, 3, 3, -1]);
    expect([...prefixes]).toEqual([0, 0, 0, 0, 0, 3, 3, 3, -1]);
    expect([...positions]).toEqual([0, 1, 2, 3, 2, 0, 1, 2, 0]);
    expect(targets).toEqual([
      { from: 1, id: 200, sequence: 0 },
      { from: 2, id: 201, sequence: 0 },
      { from: 1, id: 210, sequence: 1 },
      { from: 5, id: 1, sequence: 2 },
      { from: 6, id: 2, sequence: 2 },
    ]);
    expect(sequences).toEqual([
      { sample: 1, branch: 0, last: 3 },
      { sample: 1, branch: 1, last: 4 },
      { sample: 0, branch: 0, last: 7 },
    ]);
    expect([tokens, targetCount, fill]).toEqual([8, 5, 8 / 9]);
  });

  test("best fit: 7 3 | 6 4 | 5 5 fill three rows of 10", () => {
    const { batches, fill } = packSamples(
      [3, 5, 4, 7, 5, 6].map((length) => sample(length)),
      { batch: 1, length: 10 },
    );
    expect([batches.length, fill]).toEqual([3, 1]);
    expect(batches.map(({ sequences }) => sequences.map((own) => own.sample))).toEqual([
      [3, 0],
      [5, 2],
      [1, 4],
    ]);
  });

  test("targets and sequences of a batch are bounded; every sample comes once", () => {
    const rng = createRng("pack");
    const samples = Array.from({ length: 300 }, () =>
      rng.next() < 0.3 ? branched(1 + rng.int(9), 1 + rng.int(9), 1 + rng.int(9)) : sample(2 + rng.int(40)),
    );
    const shape = { batch: 4, length: 64, targets: 150, sequences: 12 };
    const { batches } = packSamples(samples, shape);
    for (const { rows, targetCount, sequences } of batches) {
      expect(rows).toHaveLength(4);
      expect(rows.flatMap(({ targets }) => targets)).toHaveLength(targetCount);
      expect([targetCount <= 150, sequences.length <= 12]).toEqual([true, true]);
    }
    const seen = batches.flatMap(({ sequences }) => sequences.map((own) => `${own.sample}/${own.branch}`));
    const all = samples.flatMap((own, i) => ("ids" in own ? [`${i}/0`] : own.branches.map((_, b) => `${i}/${b}`)));
    expect(seen.sort()).toEqual(all.sort());
    expect(packSamples(samples, { batch: 4, length: 64 }).fill).toBeGreaterThan(0.97);
  });

  test.each([
    [sample(11), {}, /sample 0: expected at most 10 tokens, as the shape has, found 11.*limitLength/],
    [sample(9), { targets: 7 }, /at most 7 targets/],
    [branched(1, 1, 1, 1), { sequences: 2 }, /at most 2 sequences/],
    [{ ...sample(3), learn: new Uint8Array(3) }, {}, /at least one token that is learnt/],
    [{ ...sample(3), learn: Uint8Array.of(1, 1, 1) }, {}, /a first token that is only read/],
    [branched(0, 2), {}, /a prompt before the branches/],
  ] as const)("what does not fit is refused: %#", (own, limits, message) => {
    expect(() => packSamples([own], { batch: 1, length: 10, ...limits })).toThrow(message);
  });

  test("batches are a function of seed and step; each pass has every sample once, in another order", () => {
    const samples = Array.from({ length: 50 }, (_, i) => sample(2 + (i % 7)));
    const shape = { batch: 2, length: 16 };
    const events: Event[] = [];
    const batches = createPackedBatches(samples, shape, { seed: 3, onEvent: (event) => events.push(event) });
    const { steps, fill } = batches.passOf(0);
    const passes = [0, 1].map((pass) => {
      const start = pass * steps;
      const length = batches.passOf(start).steps;
      return Array.from({ length }, (_, i) => batches.at(start + i).sequences.map((own) => own.sample));
    });
    for (const pass of passes) expect(pass.flat().sort((a, b) => a - b)).toEqual(samples.map((_, i) => i));
    expect(passes[0]).not.toEqual(passes[1]);
    const again = createPackedBatches(samples, shape, { seed: 3 });
    expect(again.at(steps + 1)).toEqual(batches.at(steps + 1));
    expect(again.at(0)).toEqual(batches.at(0));
    expect(createPackedBatches(samples, shape, { seed: 4 }).at(0)).not.toEqual(batches.at(0));
    expect(fill).toBeGreaterThan(0.9);
    expect(events).toHaveLength(1);
    expect(events[0]).toMatchObject({
      message: expect.stringMatching(/^50 samples in \d+ batches of 2 x 16, \d+\.\d % of them tokens$/),
    });
  });
});

describe("lengths", () => {
  const samples = [sample(4), sample(9), sample(6, 50)];
  const run = (
    policy: Parameters<typeof limitLength>[1]["policy"],
    given: readonly (TokenSample | BranchedSample)[] = samples,
    length = 5,
  ) => {
    const events: Event[] = [];
    const result = limitLength(given, { length, policy, where: "a.jsonl", onEvent: (event) => events.push(event) });
    return { ...result, messages: events.map((event) => (event.event === "notice" ? event.message : "")) };
  };

  test("refuse names how many and which", () => {
    expect(() => run("refuse")).toThrow(
      /a\.jsonl: expected samples of at most 5 tokens, found 2 of 3 that are longer: 1 \(9\), 2 \(6\); raise/,
    );
    expect(run("refuse", samples, 9)).toMatchObject({ dropped: 0, truncated: 0, messages: [] });
  });

  test("drop counts", () => {
    const { indices, dropped, messages } = run("drop");
    expect([indices, dropped]).toEqual([[0], 2]);
    expect(messages).toEqual(["a.jsonl: 2 of 3 (66.7 %) longer than 5 tokens, the longest 9: 2 dropped"]);
    expect(() => run("drop", [sample(7)])).toThrow(/1 of 1 that are longer/);
  });

  test("truncation keeps the end or the beginning, and says so", () => {
    const left = run("truncate-left");
    expect(left.samples.map((own) => [...(own as TokenSample).ids])).toEqual([
      [0, 1, 2, 3],
      [4, 5, 6, 7, 8],
      [51, 52, 53, 54, 55],
    ]);
    expect((left.samples[1] as TokenSample).learn).toEqual(Uint8Array.of(0, 1, 1, 1, 1));
    expect(left.messages).toEqual(["a.jsonl: 2 of 3 (66.7 %) longer than 5 tokens, the longest 9: 2 cut"]);
    expect((run("truncate-right").samples[1] as TokenSample).ids).toEqual(Int32Array.of(0, 1, 2, 3, 4));
    // Its answer would be cut off whole.
    const late = { ids: new Int32Array(8), learn: Uint8Array.of(0, 0, 0, 0, 0, 0, 1, 1) };
    expect(run("truncate-right", [...samples, late])).toMatchObject({ dropped: 1, truncated: 2, indices: [0, 1, 2] });
  });

  test("branched samples lose the head of the prompt, or the ends of the longest branches", () => {
    const [left] = run("truncate-left", [branched(4, 2, 1)]).samples as BranchedSample[];
    expect([...left!.prompt]).toEqual([102, 103]);
    expect(left!.branches.map(({ ids }) => ids.length)).toEqual([2, 1]);
    const [right] = run("truncate-right", [branched(1, 5, 1)]).samples as BranchedSample[];
    expect([...right!.branches.map(({ ids }) => ids.length), right!.prompt.length]).toEqual([3, 1, 1]);
    expect(() => run("truncate-left", [branched(1, 3, 2)])).toThrow(/longer/);
  });
});
