import { readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { expect, test } from "vitest";
import { gqa, swiglu, testConfig } from "../models/testing.js";
import { openPlanned } from "../plan/index.js";
import { fitMachine, type MeasuredMachine, measureThisMachine } from "./this-machine.js";

const machine: MeasuredMachine = {
  processor: "a processor",
  memoryBytes: 16 * 2 ** 30,
  freeBytes: 2 * 2 ** 30,
  platform: "linux x64",
  cacheBytes: 2 ** 25,
  threads: 2,
  type: "Q8_0",
  bandwidth: { low: 9e9, mean: 10e9, high: 11e9 },
  promptFlops: 1e11,
  seconds: 20,
};

test("tokens a second are bandwidth over the bytes that a step reads", async () => {
  const { shape } = await openPlanned("llama-3.1-8b");
  const fit = fitMachine(shape, { type: "Q8_0", context: 1024 }, machine);
  // 32 layers of 218,103,808 weights and a head of 128,256 x 4,096 at 34 bytes for 32, the norms in f32, and a cache of
  // 1,024 tokens, 32 layers, keys and values, 8 heads of 128 in f16.
  const weights = ((32 * 218_103_808 + 128_256 * 4096) * 34) / 32 + 4 * (65 * 4096) + 4 * 64;
  const cache = 1024 * 32 * 2 * 8 * 128 * 2;
  expect(fit.tokensPerSecond.expected).toBeCloseTo(10e9 / (weights + cache), 6);
  expect(fit.tokensPerSecond.low / fit.tokensPerSecond.expected).toBeCloseTo(0.9, 9);
  expect([fit.fits, fit.fitsNow]).toEqual([true, false]);
  expect(fit.promptTokensPerSecond).toBeCloseTo(1e11 / (2 * 7_504_924_672), 3);
});

test("a model larger than the memory does not fit", async () => {
  const { shape } = await openPlanned("llama-3.1-70b");
  expect(fitMachine(shape, { type: "Q4_K_M" }, machine).fits).toBe(false);
});

test("a machine is measured, and nothing is left behind", async () => {
  const blocks = [{ attention: gqa(4), ffn: swiglu(256) }];
  const config = testConfig({
    family: "llama",
    vocabSize: 288,
    hiddenSize: 256,
    headDim: 64,
    maxPositions: 2048,
    blocks,
  });
  const folders = () => readdirSync(tmpdir()).filter((name) => name.startsWith("espalier-machine-"));
  const before = folders();
  // Types that take long to make, or need an importance matrix, are stood for by another.
  for (const type of ["IQ2_XS", "Q2_K_S"] as const) {
    const found = await measureThisMachine(type, { threads: 1, config });
    expect(found).toMatchObject({ type: "Q4_K_M", threads: 1 });
    expect(found.bandwidth.low).toBeLessThanOrEqual(found.bandwidth.mean);
  }
  expect(folders()).toEqual(before);
});
