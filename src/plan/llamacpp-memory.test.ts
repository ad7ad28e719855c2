import { describe, expect, test } from "vitest";
import { fileTypeBytes } from "./file-types.js";
import { llamaCppMemory } from "./llamacpp-memory.js";
import { shapeFromHub } from "./read-shape.js";

/** SmolLM2-135M. */
const shape = shapeFromHub(
  {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_size: 576,
    intermediate_size: 1536,
    num_hidden_layers: 30,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    vocab_size: 49152,
    rms_norm_eps: 1e-5,
    max_position_embeddings: 8192,
    tie_word_embeddings: true,
  },
  "config.json",
);
const MiB = 2 ** 20;

describe("memory of llama.cpp", () => {
  test("kv cache as llama.cpp logs it", () => {
    expect(llamaCppMemory(shape, { type: "Q4_1", context: 2048 }).gpu.kvCache).toBe(45 * MiB);
    expect(llamaCppMemory(shape, { type: "Q4_1", context: 8100 }).gpu.kvCache).toBe(180 * MiB);
    expect(llamaCppMemory(shape, { type: "Q4_1", context: 2048, batch: 4 }).gpu.kvCache).toBe(180 * MiB);
  });

  // "CPU compute buffer size" of llama.cpp 0.5.0 for this model.
  test.each([
    [2048, true, 102.51],
    [2048, false, 99.38],
    [8192, false, 166.38],
  ])("compute buffer at %i tokens, flash attention %s: %f MiB within 6 %%", (context, flashAttention, logged) => {
    const { compute } = llamaCppMemory(shape, { type: "Q4_1", context, flashAttention }).gpu;
    expect(Math.abs(compute / MiB / logged - 1)).toBeLessThan(0.06);
  });

  test("the embedding stays on the CPU, and is on the GPU too where it is the head", () => {
    const bytes = fileTypeBytes(shape, "Q8_0");
    const table = (49152 * 576 * 34) / 32;
    const { gpu, ram } = llamaCppMemory(shape, { type: "Q8_0" });
    expect([gpu.weights, ram.weights]).toEqual([bytes, table]);
    const untied = { ...shape, tiedEmbeddings: false };
    const split = llamaCppMemory(untied, { type: "Q8_0" });
    expect([split.gpu.weights, split.ram.weights]).toEqual([bytes, table]);
  });

  test("layers that stay on the CPU keep their cache there; the last ones and the head go first", () => {
    const whole = llamaCppMemory(shape, { type: "Q8_0", context: 2048 });
    const half = llamaCppMemory(shape, { type: "Q8_0", context: 2048, gpuLayers: 10 });
    expect(half.gpu.kvCache).toBe(15 * MiB);
    expect(half.ram.kvCache).toBe(30 * MiB);
    expect(half.gpu.weights + half.ram.weights).toBe(whole.gpu.weights + whole.ram.weights);
    const none = llamaCppMemory(shape, { type: "Q8_0", context: 2048, gpuLayers: 0 });
    expect(none.gpu.total).toBe(0);
    expect(none.ram.weights).toBe(fileTypeBytes(shape, "Q8_0"));
  });
});
