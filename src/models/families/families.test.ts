import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { repositoryPath } from "../../base/testing.js";
import { type ModelConfig, modelParameters, type RopeScaling } from "../config.js";
import { gqa, linear, none, swiglu, testConfig } from "../testing.js";
import { halvesToPairs, pairsToHalves, rotaryHeads } from "./gguf-names.js";
import { configFromHub, configToHub } from "./hub.js";
import { ropeDivisors, scalingFromDivisors, shortest } from "./rope.js";

const plain = JSON.parse(readFileSync(repositoryPath("models/stories260K/config.json"), "utf8"));
const read = (changes: Record<string, unknown>) => configFromHub({ ...plain, ...changes }, "config.json");

describe("config.json", () => {
  test("plain Llama", () => {
    const { config, notices } = read({});
    const block = { attention: gqa(4), ffn: swiglu(172) };
    expect(config).toEqual({
      family: "llama",
      modelType: "llama",
      vocabSize: 512,
      hiddenSize: 64,
      heads: 8,
      headDim: 8,
      normEps: 1e-5,
      rope: { theta: 10000 },
      tiedEmbeddings: true,
      attentionBias: false,
      attentionOutputBias: false,
      mlpBias: false,
      maxPositions: 512,
      bosTokenId: 1,
      eosTokenIds: [2],
      blocks: [block, block, block, block, block],
    } satisfies ModelConfig);
    expect(notices).toEqual([]);
  });

  test("defaults of old files: one kv head a head, theta 10000, untied, head size from the hidden size", () => {
    const { config } = configFromHub(
      {
        architectures: ["LlamaForCausalLM"],
        model_type: "llama",
        hidden_size: 96,
        intermediate_size: 256,
        num_hidden_layers: 1,
        num_attention_heads: 6,
        vocab_size: 100,
        rms_norm_eps: 1e-6,
        max_position_embeddings: 64,
      },
      "config.json",
    );
    expect(config).toMatchObject({ headDim: 16, rope: { theta: 10000 }, tiedEmbeddings: false, eosTokenIds: [] });
    expect(config.blocks).toEqual([{ attention: gqa(6), ffn: swiglu(256) }]);
  });

  test.each([
    ["LlamaForCausalLM", { attention_bias: true, mlp_bias: true }, [true, true, true]],
    ["Qwen2ForCausalLM", {}, [true, false, false]],
    ["MistralForCausalLM", { attention_bias: true }, [false, false, false]],
  ] as const)("biases of %s", (architecture, changes, [qkv, output, mlp]) => {
    const { config } = read({ architectures: [architecture], ...changes });
    expect(config).toMatchObject({ attentionBias: qkv, attentionOutputBias: output, mlpBias: mlp });
  });

  test("a sliding window limits the context, and says so", () => {
    const mistral = read({ architectures: ["MistralForCausalLM"], model_type: "mistral", sliding_window: 256 });
    expect(mistral.config.maxPositions).toBe(256);
    expect(mistral.notices[0]).toContain("sliding window of 256 tokens");
    const qwen = read({ architectures: ["Qwen2ForCausalLM"], sliding_window: 256, use_sliding_window: false });
    expect([qwen.config.maxPositions, qwen.notices]).toEqual([512, []]);
  });

  test("rotary scaling in both forms", () => {
    const llama3 = {
      rope_type: "llama3",
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8192,
    };
    const scaling: RopeScaling = {
      type: "llama3",
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPositions: 8192,
    };
    expect(read({ rope_scaling: llama3, rope_theta: 500000 }).config.rope).toEqual({ theta: 500000, scaling });
    expect(read({ rope_parameters: { ...llama3, rope_theta: 500000 } }).config.rope).toEqual({
      theta: 500000,
      scaling,
    });
    expect(read({ rope_scaling: { type: "linear", factor: 2 } }).config.rope.scaling).toEqual({
      type: "linear",
      factor: 2,
    });
    expect(read({ rope_scaling: { rope_type: "default" } }).config.rope).toEqual({ theta: 10000 });
    expect(() => read({ rope_scaling: { rope_type: "yarn", factor: 4 } })).toThrow(
      "expected default, linear or llama3, found yarn",
    );
    expect(() => read({ rope_scaling: { rope_type: "llama3", factor: 4 } })).toThrow("low_freq_factor");
  });

  test("another architecture is named, with those that can be read", () => {
    expect(() => read({ architectures: ["GPT2LMHeadModel"] })).toThrow(
      "expected one of LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, DeciLMForCausalLM, found GPT2LMHeadModel",
    );
  });

  test.each(["llama", "qwen2"])("what is written is read back: %s", (kind) => {
    const blocks = [
      { attention: gqa(2), ffn: swiglu(64) },
      { attention: gqa(2), ffn: swiglu(64) },
    ];
    const config = testConfig({
      family: "llama",
      modelType: kind,
      blocks,
      attentionBias: kind === "qwen2",
      padTokenId: 0,
    });
    expect(configFromHub(configToHub(config, "bf16"), "x").config).toEqual(config);
    expect(configToHub(config, "bf16")).toMatchObject({ model_type: kind, torch_dtype: "bfloat16" });
  });
});

describe("configurations as published", () => {
  const common = {
    hidden_act: "silu",
    initializer_range: 0.02,
    use_cache: true,
    torch_dtype: "bfloat16",
    attention_dropout: 0,
  };
  const qwen = {
    ...common,
    architectures: ["Qwen2ForCausalLM"],
    bos_token_id: 151643,
    eos_token_id: 151645,
    hidden_size: 896,
    intermediate_size: 4864,
    max_position_embeddings: 32768,
    max_window_layers: 21,
    model_type: "qwen2",
    num_attention_heads: 14,
    num_hidden_layers: 24,
    num_key_value_heads: 2,
    rms_norm_eps: 1e-6,
    rope_theta: 1000000,
    sliding_window: 32768,
    tie_word_embeddings: true,
    transformers_version: "4.43.1",
    use_sliding_window: false,
    vocab_size: 151936,
  };
  const llama = {
    ...common,
    architectures: ["LlamaForCausalLM"],
    attention_bias: false,
    bos_token_id: 128000,
    eos_token_id: [128001, 128008, 128009],
    head_dim: 64,
    hidden_size: 2048,
    intermediate_size: 8192,
    max_position_embeddings: 131072,
    mlp_bias: false,
    model_type: "llama",
    num_attention_heads: 32,
    num_hidden_layers: 16,
    num_key_value_heads: 8,
    pretraining_tp: 1,
    rms_norm_eps: 1e-5,
    rope_scaling: {
      factor: 32,
      high_freq_factor: 4,
      low_freq_factor: 1,
      original_max_position_embeddings: 8192,
      rope_type: "llama3",
    },
    rope_theta: 500000,
    tie_word_embeddings: true,
    transformers_version: "4.45.0.dev0",
    vocab_size: 128256,
  };
  const mistral = {
    ...common,
    architectures: ["MistralForCausalLM"],
    bos_token_id: 1,
    eos_token_id: 2,
    hidden_size: 4096,
    intermediate_size: 14336,
    max_position_embeddings: 32768,
    model_type: "mistral",
    num_attention_heads: 32,
    num_hidden_layers: 32,
    num_key_value_heads: 8,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    sliding_window: 4096,
    tie_word_embeddings: false,
    transformers_version: "4.34.0.dev0",
    vocab_size: 32000,
  };

  // Parameter counts as their model cards give them.
  test.each([
    ["Qwen2.5 0.5B", qwen, 494_032_768, 0],
    ["Llama 3.2 1B", llama, 1_235_814_400, 0],
    ["Mistral 7B v0.1", mistral, 7_241_732_096, 1],
  ])("%s", (_, json, parameters, notices) => {
    const { config, notices: found } = configFromHub(json, "config.json");
    expect(modelParameters(config)).toBe(parameters);
    expect(found).toHaveLength(notices);
  });
});

describe("DeciLM", () => {
  const blocks = [
    { attention: gqa(4), ffn: swiglu(256) },
    { attention: gqa(1), ffn: swiglu(40) },
    { attention: linear, ffn: swiglu(512) },
    { attention: none, ffn: linear },
    { attention: gqa(2), ffn: none },
  ];
  const config = testConfig({ modelType: "nemotron-nas", blocks, eosTokenIds: [2, 5] });
  const written = configToHub(config, "f32") as {
    block_configs: { ffn: Record<string, unknown>; attention: unknown }[];
  };

  test("what is written is read back", () => {
    expect(configFromHub(written, "x").config).toEqual(config);
  });

  test("widths are multiples where the format can state them, plain where it cannot", () => {
    // ffn_mult = 3 width / (2 hidden) = 3 x 256 / 64 = 12; 40 is no multiple of 256.
    expect(written.block_configs[0]!.ffn).toEqual({
      ffn_mult: 12,
      no_op: false,
      replace_with_linear: false,
      sparsify: null,
    });
    expect(written.block_configs[1]!.ffn).toMatchObject({ intermediate_size: 40 });
    expect(written.block_configs[1]!.ffn).not.toHaveProperty("ffn_mult");
    expect(written.block_configs[3]!.ffn).toMatchObject({ ffn_mult: null, replace_with_linear: true });
    expect(written.block_configs[1]!.attention).toMatchObject({ n_heads_in_group: 4 });
  });

  test("widths of published models: 5.25 of 8192 is 28672, 39 of 16384 is 425984", () => {
    const width = (hidden: number, mult: number) => {
      const ffn = { ffn_mult: mult, no_op: false, replace_with_linear: false };
      const stated = {
        ...written,
        hidden_size: hidden,
        head_dim: 8,
        block_configs: [{ ...written.block_configs[0]!, ffn }],
      };
      return configFromHub({ ...stated, num_hidden_layers: 1 }, "x").config.blocks[0]!.ffn;
    };
    expect(width(8192, 5.25)).toEqual(swiglu(28672));
    expect(width(16384, 39)).toEqual(swiglu(425984));
  });

  test("a block that states no width, or a group that does not divide, is named", () => {
    const broken = structuredClone(written) as typeof written & {
      block_configs: { attention: { n_heads_in_group: number } }[];
    };
    broken.block_configs[1]!.ffn = { no_op: false };
    expect(() => configFromHub(broken, "x")).toThrow("x block_configs.1.ffn: expected ffn_mult or intermediate_size");
    broken.block_configs[0]!.attention.n_heads_in_group = 3;
    expect(() => configFromHub(broken, "x")).toThrow("block_configs.0.attention.n_heads_in_group: expected a divisor");
  });
});

describe("rotary rows", () => {
  test("halves to pairs: of a head of six rows, 0 3 1 4 2 5", () => {
    const rows = Float32Array.from({ length: 12 }, (_, i) => i);
    expect(Array.from(halvesToPairs(rows, 1, 6))).toEqual([0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]);
    expect(pairsToHalves(halvesToPairs(rows, 1, 6), 1, 6)).toEqual(rows);
    expect(pairsToHalves(halvesToPairs(rows, 3, 4), 3, 4)).toEqual(rows);
  });

  test("only queries and keys turn, keys by their own number of heads", () => {
    const config = testConfig({
      blocks: [
        { attention: gqa(2), ffn: none },
        { attention: linear, ffn: none },
      ],
    });
    const heads = (part: string) => rotaryHeads(config, `model.layers.0.self_attn.${part}`);
    expect([heads("q_proj.weight"), heads("k_proj.bias"), heads("v_proj.weight")]).toEqual([4, 2, 0]);
    expect(rotaryHeads(config, "model.embed_tokens.weight")).toBe(0);
  });
});

describe("rotary divisors", () => {
  const scalings: RopeScaling[] = [
    { type: "llama3", factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 8192 },
    { type: "llama3", factor: 32, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 8192 },
    { type: "llama3", factor: 4, lowFreqFactor: 1, highFreqFactor: 3, originalMaxPositions: 2048 },
  ];

  test.each(scalings)("are turned back into the scaling: $factor, $originalMaxPositions", (scaling) => {
    const divisors = ropeDivisors({ theta: 500000, scaling }, 128);
    expect(divisors[0]).toBe(1);
    expect(divisors.at(-1)).toBe(scaling.type === "llama3" ? scaling.factor : 0);
    expect(scalingFromDivisors(divisors, { theta: 500000 }, "rope_freqs")).toEqual(scaling);
  });

  test("a band that only two numbers describe comes back as an equal one with low factor 1", () => {
    const scaling: RopeScaling = {
      type: "llama3",
      factor: 8,
      lowFreqFactor: 2,
      highFreqFactor: 8,
      originalMaxPositions: 8192,
    };
    const divisors = ropeDivisors({ theta: 500000, scaling }, 128);
    const found = scalingFromDivisors(divisors, { theta: 500000 }, "rope_freqs");
    expect(found).toEqual({
      type: "llama3",
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPositions: 4096,
    });
    expect(ropeDivisors({ theta: 500000, scaling: found! }, 128)).toEqual(divisors);
  });

  test("ones are no scaling, and another shape is refused", () => {
    expect(scalingFromDivisors(new Float32Array(64).fill(1), { theta: 10000 }, "x")).toBeUndefined();
    const longrope = Float32Array.from({ length: 64 }, (_, i) => 1 + i);
    expect(() => scalingFromDivisors(longrope, { theta: 10000 }, "rope_freqs")).toThrow("another scaling");
  });
});

test("the shortest decimal of an f32", () => {
  expect(shortest(Math.fround(1e-5))).toBe(1e-5);
  expect(shortest(Math.fround(500000))).toBe(500000);
  expect(shortest(Math.fround(1 / 3))).toBe(0.33333334);
});
