import { expect, test } from "vitest";
import { openPlanned } from "./planned-model.js";
import { parallelShare, safetensorsBytes } from "./server-memory.js";

const llama8b = async () => (await openPlanned("llama-3.1-8b")).shape;
// Of a layer: q and o 4096 x 4096, k and v 1024 x 4096, gate and up 14336 x 4096, down 4096 x 14336.
const linear = 32 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14336 * 4096);
const outside = 2 * 2 * 128_256 * 4096;
const norms = 2 * 65 * 4096;

test("BF16 is two bytes for each of 8,030,261,248 parameters", async () => {
  expect(safetensorsBytes(await llama8b(), "BF16")).toBe(2 * 8_030_261_248);
  expect(2 * linear + outside + norms).toBe(2 * 8_030_261_248);
});

test("FP8 leaves embedding, head and norms in 16 bits, and each matrix has two scales", async () => {
  expect(safetensorsBytes(await llama8b(), "FP8")).toBe(linear + 32 * 7 * 8 + outside + norms);
});

test("INT4 has a scale and a zero for 128 inputs, GPTQ a group number for each input", async () => {
  const awq = linear / 2 + (linear / 128) * 2.5 + outside + norms;
  expect(safetensorsBytes(await llama8b(), "AWQ")).toBe(awq);
  const inputs = 32 * (6 * 4096 + 14336);
  expect(safetensorsBytes(await llama8b(), "GPTQ")).toBe(awq + 4 * inputs);
});

test("GPUs share matrices and key/value heads, and all hold the norms", async () => {
  const shape = await llama8b();
  const perToken = 32 * 2 * 8 * 128 * 2;
  expect(parallelShare(shape, "BF16", 1)).toEqual({
    gpus: 1,
    weightBytes: 2 * 8_030_261_248,
    kvBytesPerToken: perToken,
  });
  const four = parallelShare(shape, "BF16", 4);
  expect(four.weightBytes).toBe((2 * 8_030_261_248 - norms) / 4 + norms);
  expect(four.kvBytesPerToken).toBe(perToken / 4);
});

test("more GPUs than key/value heads copy them; heads that do not divide are named", async () => {
  const { shape } = await openPlanned("smollm2-135m");
  expect(parallelShare(shape, "BF16", 3).kvBytesPerToken).toBe(30 * 2 * 64 * 2);
  expect(parallelShare(shape, "BF16", 2).reason).toBe("9 query heads do not divide by 2");
});
