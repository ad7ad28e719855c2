import { describe, expect, test } from "vitest";
import { fileTypeBytes } from "./file-types.js";
import { kvCacheBytesPerToken } from "./kv-cache.js";
import { type ModelShape, shapeParameters } from "./model-shape.js";
import { shapeFromHub } from "./read-shape.js";

const llama8b = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_size: 4096,
  intermediate_size: 14336,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  vocab_size: 128256,
  rms_norm_eps: 1e-5,
  max_position_embeddings: 131072,
  rope_theta: 500000,
};

describe("a config.json", () => {
  test("of the Llama family", () => {
    const shape = shapeFromHub(llama8b, "config.json");
    expect([shape.architecture, shapeParameters(shape)]).toEqual(["llama", 8_030_261_248]);
  });

  test("of Nemotron-4 340B", () => {
    const hub = {
      model_type: "nemotron",
      hidden_size: 18432,
      intermediate_size: 73728,
      num_hidden_layers: 96,
      num_attention_heads: 96,
      num_key_value_heads: 8,
      vocab_size: 256000,
      max_position_embeddings: 4096,
    };
    const shape = shapeFromHub(hub, "config.json");
    // A layer: q and o 18432^2 each, k and v 1536 x 18432 each, up and down 73728 x 18432 each, two norms with bias.
    const layer = 2 * 18432 ** 2 + 2 * 1536 * 18432 + 2 * 73728 * 18432 + 4 * 18432;
    expect(shapeParameters(shape)).toBe(96 * layer + 2 * 256000 * 18432 + 2 * 18432);
    expect(kvCacheBytesPerToken(shape) * 4096).toBe(96 * 2 * 1536 * 2 * 4096);
  });

  test("of Mixtral 8x7B, whose quantisation favours attention", () => {
    const hub = { ...llama8b, model_type: "mixtral", vocab_size: 32000, num_local_experts: 8, num_experts_per_tok: 2 };
    const shape = shapeFromHub(hub, "config.json");
    expect(shapeParameters(shape)).toBe(46_702_792_704);
    const none = (type: "Q2_K" | "Q8_0") => fileTypeBytes({ ...shape, blocks: shape.blocks.slice(0, 1) }, type);
    // One layer in Q2_K: k and v in Q8_0, o in Q5_K, q in Q2_K, gate and up in Q2_K, down in Q3_K; norms and router F32.
    const attention = (2 * 1024 * 4096 * 34) / 32 + (4096 * 4096 * (176 + 84)) / 256;
    const experts = (8 * 14336 * 4096 * (84 + 84 + 110)) / 256;
    const outside = 32000 * 4096 * (84 / 256 + 210 / 256) + 4 * 4096;
    expect(none("Q2_K")).toBe(attention + experts + outside + 4 * (2 * 4096 + 8 * 4096));
  });

  test("with experts of another kind is refused by name", () => {
    const hub = { ...llama8b, model_type: "qwen3_moe", num_experts: 128 };
    expect(() => shapeFromHub(hub, "config.json")).toThrow(/num_experts: expected a model without experts, or Mixtral/);
  });

  test("lists all that is missing", () => {
    expect(() => shapeFromHub({ model_type: "nemotron", hidden_size: 1 }, "c.json")).toThrow(/5 problems/);
  });
});

describe("the kv cache", () => {
  const eight = shapeFromHub(llama8b, "config.json");
  const mixed: ModelShape = {
    ...eight,
    blocks: [
      { attention: { kind: "gqa", kvHeads: 8 }, ffn: { kind: "none" } },
      { attention: { kind: "gqa", kvHeads: 2 }, ffn: { kind: "none" } },
      { attention: { kind: "none" }, ffn: { kind: "swiglu", width: 256 } },
    ],
  };

  test("is keys and values of every layer", () => {
    expect(kvCacheBytesPerToken(eight)).toBe(131_072);
    expect(kvCacheBytesPerToken(eight, { flashAttention: false })).toBe(131_072);
    expect(kvCacheBytesPerToken(eight, { keys: "q8_0" })).toBe((131_072 / 2) * (34 / 32));
    expect(kvCacheBytesPerToken(eight, { keys: "q8_0", values: "q4_0" })).toBe(32 * 1024 * (34 / 32 + 18 / 32));
  });

  test("without flash attention holds values as wide as the widest layer's, in every layer", () => {
    expect(kvCacheBytesPerToken(mixed)).toBe(2 * 128 * 2 * (8 + 2));
    expect(kvCacheBytesPerToken(mixed, { flashAttention: false })).toBe(2 * 128 * (8 + 2) + 2 * 128 * 8 * 3);
  });
});
