import { describe, expect, test } from "vitest";
import { createRng } from "../base/index.js";
import { maxAbsDifference } from "../tensor/index.js";
import { canonicalise } from "./canonical.js";
import { type BlockConfig, describeBlock } from "./config.js";
import { createTestModel, gqa, linear, none, referenceLogits, swiglu, testConfig } from "./testing.js";

const ids = [1, 403, 407, 261, 378, 432, 383];

function packed(blocks: BlockConfig[], target: "gguf" | "hf" = "gguf") {
  const { model, notes } = canonicalise(createTestModel(testConfig({ blocks })), target);
  return { blocks: model.config.blocks.map(describeBlock), family: model.config.family, notes };
}

describe("canonicalise for GGUF", () => {
  test("leaves pairs of attention and SwiGLU alone", () => {
    const blocks = [
      { attention: gqa(4), ffn: swiglu(64) },
      { attention: linear, ffn: swiglu(20) },
      { attention: none, ffn: swiglu(32) },
    ];
    expect(packed(blocks)).toEqual({ blocks: blocks.map(describeBlock), family: "deci", notes: [] });
  });

  test("an attention without feed-forward takes the feed-forward of the next block without attention", () => {
    const blocks = [
      { attention: gqa(2), ffn: none },
      { attention: none, ffn: none },
      { attention: none, ffn: swiglu(48) },
    ];
    expect(packed(blocks).blocks).toEqual(["gqa:2+swiglu:48"]);
  });

  test("where there is none it gets one of zeros, in the middle and at the end", () => {
    const blocks = [
      { attention: gqa(2), ffn: none },
      { attention: gqa(1), ffn: swiglu(48) },
      { attention: linear, ffn: none },
    ];
    expect(packed(blocks).blocks).toEqual(["gqa:2+swiglu:32", "gqa:1+swiglu:48", "linear+swiglu:32"]);
  });

  test("a first block without attention gets a linear attention of zeros", () => {
    const { blocks, notes } = packed([
      { attention: none, ffn: swiglu(16) },
      { attention: none, ffn: swiglu(16) },
    ]);
    expect(blocks).toEqual(["linear+swiglu:16", "none+swiglu:16"]);
    expect(notes).toEqual([
      "layer 0 has no attention: a linear attention of zeros stands in its place, which adds nothing",
    ]);
  });

  test("a linear feed-forward becomes a linear attention and packs with what follows", () => {
    const blocks = [
      { attention: gqa(4), ffn: linear },
      { attention: none, ffn: swiglu(24) },
      { attention: gqa(2), ffn: swiglu(64) },
    ];
    expect(packed(blocks).blocks).toEqual(["gqa:4+swiglu:32", "linear+swiglu:24", "gqa:2+swiglu:64"]);
  });

  test("packing that ends alike everywhere is plain Llama", () => {
    const blocks = [
      { attention: gqa(4), ffn: none },
      { attention: none, ffn: swiglu(64) },
      { attention: gqa(4), ffn: swiglu(64) },
    ];
    expect(packed(blocks)).toMatchObject({ family: "llama", blocks: ["gqa:4+swiglu:64", "gqa:4+swiglu:64"] });
  });

  test("a model of nothing is one block of zeros", () => {
    expect(packed([{ attention: none, ffn: none }]).blocks).toEqual(["linear+swiglu:32"]);
  });
});

test("for Hugging Face only empty blocks go", () => {
  const blocks = [
    { attention: none, ffn: linear },
    { attention: none, ffn: none },
    { attention: gqa(2), ffn: none },
  ];
  expect(packed(blocks, "hf").blocks).toEqual(["none+linear", "gqa:2+none"]);
});

test("for Hugging Face biases of q, k and v alone are written with a zero output bias", async () => {
  const blocks = [
    { attention: gqa(2), ffn: swiglu(16) },
    { attention: gqa(4), ffn: swiglu(16) },
  ];
  const model = createTestModel(testConfig({ blocks, attentionBias: true }));
  const { model: written } = canonicalise(model, "hf");
  expect(written.config.attentionOutputBias).toBe(true);
  const bias = await written.weights.read("model.layers.1.self_attn.o_proj.bias");
  expect(bias.data).toEqual(new Float32Array(32));
  expect(maxAbsDifference(await referenceLogits(model, ids), await referenceLogits(written, ids))).toBe(0);
});

describe("the function stays the same, to rounding", () => {
  const attentions = [gqa(4), gqa(2), gqa(1), linear, none];
  const ffns = [swiglu(40), swiglu(8), linear, none];

  test.each([1, 2, 3, 4, 5, 6, 7, 8])("random child %i", async (seed) => {
    const rng = createRng(seed);
    const blocks = Array.from({ length: 5 }, () => ({
      attention: attentions[rng.int(attentions.length)]!,
      ffn: ffns[rng.int(ffns.length)]!,
    }));
    const model = createTestModel(testConfig({ blocks }), seed);
    const expected = await referenceLogits(model, ids);
    for (const target of ["gguf", "hf"] as const) {
      const { model: written } = canonicalise(model, target);
      // Zeros add exactly nothing, and no product changes its order of summation.
      expect(maxAbsDifference(expected, await referenceLogits(written, ids))).toBe(0);
    }
  });
});
