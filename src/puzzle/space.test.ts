import { describe, expect, test } from "vitest";
import { gqa, swiglu, testConfig } from "../models/testing.js";
import {
  blockChoices,
  blockId,
  blockParameterRange,
  buildSpace,
  describeOmissions,
  fewerHeads,
  parseBlockId,
  roundWidth,
} from "./space.js";

const config = testConfig({
  family: "llama",
  hiddenSize: 64,
  heads: 8,
  maxPositions: 512,
  blocks: Array.from({ length: 3 }, () => ({ attention: gqa(4), ffn: swiglu(172) })),
});

test("kv heads halve, odd counts go to their largest divisor", () => {
  expect([fewerHeads(8), fewerHeads(3), fewerHeads(12), fewerHeads(9), fewerHeads(1)]).toEqual([
    [4, 2, 1],
    [1],
    [6, 3, 1],
    [3, 1],
    [],
  ]);
});

test("widths are multiples of 32 where the parent's is one, else of 4", () => {
  expect([1, 0.75, 0.5, 0.25, 0.1].map((f) => roundWidth(1536, f))).toEqual([1536, 1152, 768, 384, 160]);
  // 129 -> 128, 86 -> 88 (halves round up), 43 -> 44, 17.2 -> 16.
  expect([1, 0.75, 0.5, 0.25, 0.1].map((f) => roundWidth(172, f))).toEqual([172, 128, 88, 44, 16]);
  expect([roundWidth(32, 0.1), roundWidth(6, 0.9)]).toEqual([32, 4]);
});

describe("space", () => {
  test("the parent's own comes first, and layer 0 keeps some attention for GGUF", () => {
    const { layers, omitted } = buildSpace(config);
    expect(layers[1]!.attention.map(({ id }) => id)).toEqual(["gqa 4", "gqa 2", "gqa 1", "linear", "none"]);
    expect(layers[0]!.attention.map(({ id }) => id)).toEqual(["gqa 4", "gqa 2", "gqa 1"]);
    expect(layers[1]!.ffn.map(({ id }) => id)).toEqual([
      "swiglu 172 (100%)",
      "swiglu 128 (74%)",
      "swiglu 88 (51%)",
      "swiglu 44 (26%)",
      "swiglu 16 (9%)",
      "linear",
      "none",
    ]);
    expect(blockChoices(layers[1]!)).toHaveLength(35);
    expect(describeOmissions(omitted)).toEqual([
      'layer 0: attention "linear" left out for gguf: llama.cpp reads the head size from the first layer\'s attention and needs a layer with a key-value cache',
      'layer 0: attention "none" left out for gguf: llama.cpp reads the head size from the first layer\'s attention and needs a layer with a key-value cache',
    ]);
  });

  test("without GGUF nothing is left out", () => {
    const { layers, omitted } = buildSpace(config, { targets: ["hf"] });
    expect([layers[0]!.attention.at(-1)!.id, omitted]).toEqual(["none", []]);
  });

  test("families of variants can be switched off", () => {
    const { layers } = buildSpace(config, { ffnFractions: [0.5], fewerKvHeads: false, linear: false, none: false });
    expect(layers[2]!.attention.map(({ id }) => id)).toEqual(["gqa 4"]);
    expect(layers[2]!.ffn.map(({ id }) => id)).toEqual(["swiglu 172 (100%)", "swiglu 88 (51%)"]);
  });

  test("a parent that lacks a sub-block offers nothing there", () => {
    const { layers } = buildSpace({
      ...config,
      blocks: [config.blocks[0]!, { attention: { kind: "none" }, ffn: { kind: "linear" } }],
    });
    expect([layers[1]!.attention, layers[1]!.ffn].map((list) => list.map(({ id }) => id))).toEqual([
      ["none"],
      ["linear", "none"],
    ]);
  });

  test("shares outside (0, 1] are refused", () => {
    expect(() => buildSpace(config, { ffnFractions: [0.5, 1.5, 0] })).toThrow(/found 1.5, 0/);
  });

  test("the range of parameters spans empty and full blocks", () => {
    // Full: 64*64*2 + 2*32*64 + 64 + 3*64*172 + 64 = 45440 a layer. Layer 0 keeps one kv head: 64*64*2 + 2*8*64 + 64 = 9280.
    expect(blockParameterRange(config, buildSpace(config))).toEqual({ least: 9280, most: 3 * 45440 });
  });
});

test("a block's name says what it is and can be read back", () => {
  const parent = config.blocks[0]!;
  for (const block of blockChoices(buildSpace(config).layers[1]!)) {
    expect(parseBlockId(blockId(block, parent))).toEqual(block);
  }
  expect(() => parseBlockId("gqa two | none")).toThrow(/gqa two/);
});
