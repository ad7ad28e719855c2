import { describe, expect, test } from "vitest";
import { createBlend, createStagedBlend } from "./index.js";

const items = (name: string, count: number) => Array.from({ length: count }, (_, i) => `${name}${i}`);
const sources = [
  { name: "code", items: items("c", 7), weight: 3 },
  { name: "chat", items: items("t", 10), weight: 1 },
];
const draw = <T>(blend: { at(sample: number): T }, count: number, from = 0) =>
  Array.from({ length: count }, (_, i) => blend.at(from + i));

describe("a blend", () => {
  test("keeps the shares, and takes every item of a source once per pass", () => {
    const blend = createBlend(sources, { seed: 1 });
    const drawn = draw(blend, 640);
    expect(drawn.filter(({ source }) => source === "code")).toHaveLength(480);
    for (let block = 0; block < 10; block++) {
      expect(drawn.slice(64 * block, 64 * (block + 1)).filter(({ source }) => source === "chat")).toHaveLength(16);
    }
    const chat = drawn.filter(({ source }) => source === "chat");
    for (let pass = 0; pass < 16; pass++) {
      const own = chat.slice(10 * pass, 10 * (pass + 1));
      expect(own.map(({ item }) => item).sort()).toEqual(items("t", 10).sort());
      expect(own.every((entry) => entry.pass === pass)).toBe(true);
    }
    expect(blend.counts(640)).toEqual([
      { source: "code", share: 0.75, samples: 480, passes: 480 / 7 },
      { source: "chat", share: 0.25, samples: 160, passes: 16 },
    ]);
    const odd = blend.counts(77).map(({ samples }) => samples);
    expect(odd[0]).toBe(drawn.slice(0, 77).filter(({ source }) => source === "code").length);
  });

  test("is a function of seed and number alone", () => {
    const drawn = draw(createBlend(sources, { seed: 1 }), 300);
    const again = createBlend(sources, { seed: 1 });
    for (const sample of [299, 0, 130, 64, 63]) expect(again.at(sample)).toEqual(drawn[sample]);
    expect(draw(createBlend(sources, { seed: 2 }), 300)).not.toEqual(drawn);
    const plain = draw(createBlend(sources, { seed: 1, shuffle: false }), 64).filter(({ source }) => source === "chat");
    expect(plain.slice(0, 11).map(({ index }) => index)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]);
  });

  test("without weights takes each item as often as any other", () => {
    const plain = sources.map(({ name, items: own }) => ({ name, items: own }));
    const drawn = draw(createBlend(plain, { seed: 1 }), 17 * 64);
    expect(drawn.filter(({ source }) => source === "code")).toHaveLength(7 * 64);
  });

  test("holds rare sources to their share: 2 % and 98 %", () => {
    const blend = createBlend(
      [
        { ...sources[0]!, weight: 0.02 },
        { ...sources[1]!, weight: 0.98 },
      ],
      { seed: 0 },
    );
    expect(blend.counts(1000).map(({ samples }) => samples)).toEqual([20, 980]);
  });

  test.each([
    [[], /at least one source/],
    [[{ name: "x", items: [] }], /x: expected at least one item/],
    [[{ ...sources[0]!, weight: 0 }], /code: expected a weight above 0, found 0/],
    [[{ ...sources[0]!, weight: 1e-9 }, sources[1]!], /code: expected a share of at least/],
  ])("refuses %#", (given, message) => {
    expect(() => createBlend(given, { seed: 0 })).toThrow(message);
  });
});

describe("stages", () => {
  const stages = [
    { name: "code first", samples: 100, sources: [sources[0]!] },
    { name: "general", samples: 200, sources: [sources[1]!], carryOver: 0.1 },
  ];

  test("follow each other; the second holds a share of the first", () => {
    const blend = createStagedBlend(stages, { seed: 5 });
    expect(blend.samples).toBe(300);
    const drawn = draw(blend, 300);
    expect(drawn.slice(0, 100).every(({ stage, source }) => stage === "code first" && source === "code")).toBe(true);
    const second = drawn.slice(100);
    expect(second.every(({ stage }) => stage === "general")).toBe(true);
    expect(second.filter(({ source }) => source === "code (carried over)")).toHaveLength(20);
    expect(createStagedBlend(stages, { seed: 5 }).at(250)).toEqual(drawn[250]);
    expect(() => blend.at(300)).toThrow(RangeError);
  });

  test.each([
    [[], /at least one stage/],
    [[{ ...stages[0]!, samples: 0 }], /samples above 0/],
    [[{ ...stages[0]!, carryOver: 0.1 }], /no carry-over in the first stage/],
    [[stages[0]!, { ...stages[1]!, carryOver: 1 }], /from 0 to below 1/],
  ])("refuse %#", (given, message) => {
    expect(() => createStagedBlend(given, { seed: 0 })).toThrow(message);
  });
});
