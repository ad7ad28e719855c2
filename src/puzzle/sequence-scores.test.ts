import { describe, expect, test } from "vitest";
import { composeLibrary } from "./library.js";
import type { LayerScores } from "./score.js";
import { createLevel, meanByKind, measurePairFactor, sequenceScores } from "./sequence-scores.js";
import { buildSpace } from "./space.js";
import { tinyConfig } from "./testing.js";

const config = tinyConfig();
const parent = config.blocks[0]!;
const full = "gqa 4 | swiglu 24 (100%)";

function scores(layer: number, kl: Record<string, number[]>): LayerScores {
  return { layer, length: 8, kl: { [full]: [0, 0, 0, 0], ...kl } };
}

describe("scores on different numbers of sequences", () => {
  test("halves are joined over the sequences that both have", () => {
    const entry = scores(0, { "none | swiglu 24 (100%)": [1, 2, 3, 4], "gqa 4 | none": [3, 1] });
    const block = { attention: { kind: "none" }, ffn: { kind: "none" } } as const;
    // Never less than the worse half: 0.5 * (1 + 3) < 3, 0.5 * (2 + 1) < 2.
    expect(sequenceScores(entry, block, { parent, pairFactor: 0.5 })).toEqual([3, 2]);
    const [a, b] = sequenceScores(entry, block, { parent, pairFactor: 0.8 });
    expect(a).toBeCloseTo(3.2, 12);
    expect(b).toBeCloseTo(2.4, 12);
  });

  test("a pair that was scored on fewer sequences is filled in from its halves", () => {
    const halves = { "none | swiglu 24 (100%)": [1, 1, 2, 4], "gqa 4 | none": [1, 1, 2, 4] };
    const entry = scores(0, { ...halves, "none | none": [1.2, 1.2] });
    const block = { attention: { kind: "none" }, ffn: { kind: "none" } } as const;
    // 1.2 where the halves say 0.5 * 2 = 1, so 1.2 times 2 and 4.
    const filled = sequenceScores(entry, block, { parent, pairFactor: 0.5 });
    expect(filled.map((value) => Number(value.toFixed(9)))).toEqual([1.2, 1.2, 2.4, 4.8]);
  });

  test("fewer sequences are brought to the level of all", () => {
    // The first two sequences are half as hard as the four together: sums 2, 2, 6, 6; mean 4.
    const entries = [
      scores(0, { "none | swiglu 24 (100%)": [1, 1, 3, 3], "gqa 4 | none": [5, 7] }),
      scores(1, { "none | swiglu 24 (100%)": [1, 1, 3, 3] }),
    ];
    const level = createLevel(entries.flatMap(({ kl }) => Object.values(kl)));
    expect(level([5, 7])).toEqual([10, 14]);
    expect(level([1, 1, 3, 3])).toEqual([1, 1, 3, 3]);
    // In the middle of a race the parent's zeros alone cover all of the text.
    const halfway = createLevel([[1, 3], [2]]);
    expect(halfway([2])).toEqual([4]);
    expect(halfway([0, 0, 0, 0])).toEqual([0, 0, 0, 0]);
  });

  test("the library says on how many sequences a score rests", () => {
    const space = buildSpace(tinyConfig({ blocks: [parent] }), {
      fewerKvHeads: false,
      linear: false,
      ffnFractions: [1],
    });
    const own = { ...config, blocks: [parent] };
    const kl = { "none | swiglu 24 (100%)": [1, 1, 3, 3], "gqa 4 | none": [5, 7] };
    const withAll = { ...space, layers: space.layers.map((layer) => ({ ...layer, attention: [...layer.attention] })) };
    withAll.layers[0]!.attention = [
      { id: "gqa 4", config: parent.attention },
      { id: "none", config: { kind: "none" } },
    ];
    const library = composeLibrary(own, withAll, [scores(0, kl)])["0"]!;
    expect(library["none | swiglu 24 (100%)"]!.metrics).toMatchObject({ kl_div: 2, kl_div_n: 4 });
    expect(library["gqa 4 | none"]!.metrics).toMatchObject({ kl_div: 12, kl_div_n: 2 });
    expect(library[full]!.metrics).toMatchObject({ kl_div: 0, kl_div_n: 4 });
  });
});

test("the factor of pairs is the median of actual over sum", () => {
  const halves = { "none | swiglu 24 (100%)": [1, 1], "gqa 4 | none": [3, 3], "gqa 4 | linear": [1, 1] };
  expect(measurePairFactor(config, [scores(0, halves)])).toBeUndefined();
  const pairs = { "none | none": [2, 4], "none | linear": [1.4, 1.4] };
  const factor = measurePairFactor(config, [
    scores(0, { ...halves, ...pairs }),
    scores(1, { ...halves, "none | none": [2, 2] }),
  ]);
  // 3 / 4, 1.4 / 2 and 2 / 4.
  expect(factor).toEqual({ factor: 0.7, lower: 0.7, upper: 0.75, pairs: 3 });
});

test("means by kind of text", () => {
  const { chat, prose } = meanByKind([1, 10, 3, 20], ["chat", "prose", "chat", "prose"]);
  expect(chat).toMatchObject({ mean: 2, n: 2 });
  expect(prose).toMatchObject({ mean: 15, n: 2 });
});
