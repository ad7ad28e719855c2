import { describe, expect, test } from "vitest";
import { f32Tensor, maxAbsDifference } from "../tensor/index.js";
import { rankByScore } from "./channel-order.js";
import { multiplyPlainly, randomBlock, tinyConfig } from "./testing.js";
import {
  channelContribution,
  linearAttention,
  linearFfn,
  matrix,
  mergeKvHeads,
  sliceFfn,
  transposed,
} from "./variants.js";

const config = tinyConfig();
const parent = randomBlock(config, config.blocks[0]!, "parent");

test("contribution is mean |x| times the norm of the channel's column", () => {
  // Columns of down: (3, 4) with norm 5, (0, 1) with norm 1.
  const down = f32Tensor([2, 2], [3, 0, 4, 1]);
  expect([...channelContribution(Float64Array.of(0.1, 2), down)]).toEqual([0.5, 2]);
});

describe("feed-forward slices", () => {
  const ffn = new Map([...parent].filter(([name]) => name.startsWith("mlp.") || name.startsWith("post_")));

  test("all channels in order are the parent", () => {
    const whole = sliceFfn(
      ffn,
      Int32Array.from({ length: 24 }, (_, i) => i),
    );
    for (const [name, tensor] of ffn) expect(whole.get(name)).toEqual(tensor);
  });

  test("narrow slices are prefixes of wide ones", () => {
    const order = rankByScore(Float64Array.from({ length: 24 }, (_, i) => Math.sin(i)));
    const wide = matrix(sliceFfn(ffn, order.subarray(0, 12)), "mlp.up_proj.weight");
    const narrow = matrix(sliceFfn(ffn, order.subarray(0, 5)), "mlp.up_proj.weight");
    expect(narrow.data).toEqual(wide.data.subarray(0, narrow.data.length));
  });

  test("rows of gate and up, columns of down", () => {
    const block = new Map([
      ["mlp.gate_proj.weight", f32Tensor([3, 2], [1, 2, 3, 4, 5, 6])],
      ["mlp.up_proj.bias", f32Tensor([3], [7, 8, 9])],
      ["mlp.down_proj.weight", f32Tensor([2, 3], [1, 2, 3, 4, 5, 6])],
      ["mlp.down_proj.bias", f32Tensor([2], [1, 2])],
    ]);
    expect(
      [...sliceFfn(block, [2, 0])].map(([name, { shape, data }]) => [name, shape, [...(data as Float32Array)]]),
    ).toEqual([
      ["mlp.gate_proj.weight", [2, 2], [5, 6, 1, 2]],
      ["mlp.up_proj.bias", [2], [9, 7]],
      ["mlp.down_proj.weight", [2, 2], [3, 1, 6, 4]],
      ["mlp.down_proj.bias", [2], [1, 2]],
    ]);
  });
});

describe("kv heads", () => {
  const two = { heads: 4, headDim: 1 };
  const block = new Map([
    ["self_attn.k_proj.weight", f32Tensor([4, 2], [1, 2, 3, 4, 5, 6, 7, 8])],
    ["self_attn.v_proj.weight", f32Tensor([4, 2], [1, 1, 3, 3, 0, 0, 2, 4])],
    ["self_attn.v_proj.bias", f32Tensor([4], [1, 3, 5, 9])],
    ["self_attn.o_proj.weight", f32Tensor([1, 4], [1, 2, 3, 4])],
  ]);

  test("the mean of adjacent heads", () => {
    const merged = mergeKvHeads(two, block, { from: 4, to: 2 });
    expect([...matrix(merged, "self_attn.k_proj.weight").data]).toEqual([2, 3, 6, 7]);
    expect([...matrix(merged, "self_attn.v_proj.weight").data]).toEqual([2, 2, 1, 2]);
    expect([...matrix(merged, "self_attn.v_proj.bias").data]).toEqual([2, 7]);
    expect(merged.get("self_attn.o_proj.weight")).toBe(block.get("self_attn.o_proj.weight"));
  });
});

test("linear attention is the value path of a token that sees itself alone", async () => {
  const grouped = tinyConfig({ blocks: [{ attention: { kind: "gqa", kvHeads: 2 }, ffn: { kind: "none" } }] });
  const block = randomBlock(grouped, grouped.blocks[0]!, "grouped");
  const linear = await linearAttention(grouped, block, 2, multiplyPlainly);
  const x = f32Tensor(
    [16, 1],
    Float32Array.from({ length: 16 }, (_, i) => Math.cos(i)),
  );
  // By hand: v = Wv x [8]; heads 0, 1 read v[0..4), heads 2, 3 read v[4..8); then Wo.
  const v = (await multiplyPlainly(matrix(block, "self_attn.v_proj.weight"), x)).data;
  const heads = Float32Array.of(...v.subarray(0, 4), ...v.subarray(0, 4), ...v.subarray(4, 8), ...v.subarray(4, 8));
  const expected = await multiplyPlainly(matrix(block, "self_attn.o_proj.weight"), f32Tensor([16, 1], heads));
  const found = await multiplyPlainly(matrix(linear, "self_attn.linear_attn.weight"), x);
  expect(maxAbsDifference(found.data, expected.data)).toBeLessThan(1e-5);
});

test("linear feed-forward is Wdown Wup", async () => {
  const block = new Map([
    ["post_attention_layernorm.weight", f32Tensor([2], [1, 1])],
    ["mlp.up_proj.weight", f32Tensor([3, 2], [1, 0, 0, 1, 1, 1])],
    ["mlp.down_proj.weight", f32Tensor([2, 3], [1, 2, 3, 4, 5, 6])],
  ]);
  // [[1+3, 2+3], [4+6, 5+6]]
  expect([...matrix(await linearFfn(block, multiplyPlainly), "mlp.linear_mlp.weight").data]).toEqual([4, 5, 10, 11]);
});

test("transposed", () => {
  expect([...transposed(f32Tensor([2, 3], [1, 2, 3, 4, 5, 6])).data]).toEqual([1, 4, 2, 5, 3, 6]);
});
