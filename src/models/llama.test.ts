import { describe, expect, test } from "vitest";
import { createGraph, interpret } from "../graph/index.js";
import { f32Tensor } from "../tensor/index.js";
import {
  type BlockConfig,
  blockWeightInputs,
  buildBlock,
  buildModel,
  buildPackedMask,
  type ModelConfig,
  modelWeightInputs,
  packedPositions,
  positionsFrom,
  rotaryTables,
} from "./index.js";

const config: ModelConfig = {
  family: "deci",
  modelType: "test",
  vocabSize: 16,
  hiddenSize: 8,
  heads: 4,
  headDim: 2,
  normEps: 1e-5,
  rope: { theta: 10000 },
  tiedEmbeddings: true,
  attentionBias: true,
  attentionOutputBias: false,
  mlpBias: false,
  maxPositions: 32,
  eosTokenIds: [],
  blocks: [
    { attention: { kind: "gqa", kvHeads: 2 }, ffn: { kind: "swiglu", width: 12 } },
    { attention: { kind: "linear" }, ffn: { kind: "none" } },
    { attention: { kind: "none" }, ffn: { kind: "linear" } },
    { attention: { kind: "none" }, ffn: { kind: "none" } },
  ],
};

function build(block: BlockConfig) {
  const g = createGraph("block");
  const tables = rotaryTables(config, positionsFrom(0, 3));
  const inputs = { batch: 2, length: 3, cos: g.constant(tables.cos), sin: g.constant(tables.sin) };
  const x = g.input("x", [6, 8]);
  return {
    g,
    x,
    outputs: buildBlock(g, config, block, { ...inputs, x, weights: blockWeightInputs(g, config, block) }),
  };
}

describe("buildBlock", () => {
  test("has the taps that the block has places for", () => {
    const taps = config.blocks.map((block) => Object.keys(build(block).outputs.taps).sort());
    expect(taps).toEqual([
      ["attentionHeads", "attentionInput", "ffnHidden", "ffnInput"],
      ["attentionInput"],
      ["ffnInput"],
      [],
    ]);
  });

  test("taps have the shapes of what they feed", () => {
    const { taps, output, afterAttention } = build(config.blocks[0]!).outputs;
    expect(taps.attentionHeads!.shape).toEqual([6, 8]);
    expect(taps.ffnHidden!.shape).toEqual([6, 12]);
    expect([output.shape, afterAttention.shape]).toEqual([
      [6, 8],
      [6, 8],
    ]);
  });

  test("a block of nothing is the identity and asks for no weights", () => {
    const { g, x, outputs } = build(config.blocks[3]!);
    expect(outputs.output).toBe(x);
    expect(g.inputs.map(({ name }) => name)).toEqual(["x"]);
  });

  test("biases of q, k and v are inputs where the configuration has them", () => {
    const names = build(config.blocks[0]!).g.inputs.map(({ name }) => name);
    expect(names).toContain("self_attn.q_proj.bias");
    expect(names).not.toContain("self_attn.o_proj.bias");
  });
});

test("buildModel gives the stream before every block and after the last", () => {
  const g = createGraph("model");
  const tables = rotaryTables(config, positionsFrom(0, 3));
  const outputs = buildModel(g, config, {
    batch: 2,
    length: 3,
    ids: g.input("ids", [2, 3], "i64"),
    weights: modelWeightInputs(g, config),
    cos: g.constant(tables.cos),
    sin: g.constant(tables.sin),
  });
  expect(outputs.hiddenStates.map(({ shape }) => shape)).toEqual(Array.from({ length: 5 }, () => [6, 8]));
  expect(outputs.headWeight).toBe(g.inputs.find(({ name }) => name === "model.embed_tokens.weight")!.value);
});

test("packed positions restart with every segment", () => {
  const positions = packedPositions([Int32Array.of(0, 0, 0, 1, 1), Int32Array.of(5, 6, 6, 6, 7)]);
  expect([...positions]).toEqual([0, 1, 2, 0, 1, 0, 0, 1, 2, 0]);
  expect(f32Tensor([2, 5, 1], rotaryTables(config, positions, 2).cos.data).shape).toEqual([2, 5, 1]);
});

test("packed rows: a token sees the past of its own segment and of its prefix", () => {
  const g = createGraph("mask");
  const [segments, prefixes] = [g.input("segments", [1, 6], "i64"), g.input("prefixes", [1, 6], "i64")];
  g.output("alone", buildPackedMask(g, segments));
  g.output("branched", buildPackedMask(g, segments, prefixes));
  const found = interpret(g, { segments: [0, 0, 1, 2, 2, -1], prefixes: [0, 0, 0, 0, 0, -1] });
  const seen = (name: string) =>
    Array.from({ length: 6 }, (_, i) =>
      [...found[name]!.data.subarray(6 * i, 6 * i + 6)].map((score) => (score === 0 ? "x" : ".")).join(""),
    );
  expect(seen("alone")).toEqual(["x.....", "xx....", "..x...", "...x..", "...xx.", ".....x"]);
  expect(seen("branched")).toEqual(["x.....", "xx....", "xxx...", "xx.x..", "xx.xx.", ".....x"]);
});
