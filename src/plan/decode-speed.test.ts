import { expect, test } from "vitest";
import { bytesReadPerStep, decodeSpeed, typeEfficiency } from "./decode-speed.js";
import { shapeFromHub } from "./read-shape.js";

const hub = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_size: 4096,
  intermediate_size: 11008,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  vocab_size: 32000,
  rms_norm_eps: 1e-5,
  max_position_embeddings: 4096,
};
const llama7b = shapeFromHub(hub, "config.json");

test("F16 is the measure, types of few bits fall behind, and no type is unknown", () => {
  expect(typeEfficiency("F16")).toBe(1);
  expect(typeEfficiency("BF16")).toBe(1);
  // 71.93 tokens/s at 4.8944 bits a parameter against 29.17 at 16.0005, both without the embedding (4.5 and 16 bits).
  const read = (bits: number, embedding: number) => bits * 8_030_261_312 - embedding * 128256 * 4096;
  const kept = (71.93 * read(4.8944, 4.5)) / (29.17 * read(16.0005, 16));
  expect(typeEfficiency("Q4_K_M")).toBeCloseTo(kept, 4);
  expect(typeEfficiency("IQ1_S")).toBeLessThan(0.35);
});

test("a step reads the weights it uses and the cache", () => {
  const { weights, kvCache } = bytesReadPerStep(llama7b, { type: "F16", context: 512 });
  const layer = 4 * 4096 ** 2 + 3 * 4096 * 11008;
  expect(weights).toBe(2 * (32 * layer + 32000 * 4096) + 4 * 65 * 4096);
  expect(kvCache).toBe(512 * 32 * 2 * 4096 * 2);
  const experts = shapeFromHub({ ...hub, model_type: "mixtral", num_local_experts: 8, num_experts_per_tok: 2 }, "c");
  const mixed = bytesReadPerStep(experts, { type: "F16", context: 512 });
  expect(mixed.weights - weights).toBe(32 * (2 * 3 * 4096 * 11008 + 4 * 8 * 4096));
});

test("the band holds what was seen", () => {
  // RTX 3090 Ti, Llama 7B in Q4_0, 127.4 tokens/s with a short context (llama.cpp #4812).
  const { low, expected, bound } = decodeSpeed(llama7b, { type: "Q4_0", context: 256 })(1008e9);
  expect([low < 127.4, expected > 127.4, bound > expected]).toEqual([true, true, true]);
});
