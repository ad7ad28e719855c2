import { expect, test } from "vitest";
import { extendContext, rotaryFrequencies } from "./index.js";
import { testConfig } from "./testing.js";

const config = testConfig({ headDim: 8, maxPositions: 128 });

test("a larger base stretches the slowest wave by the factor and leaves the fastest", () => {
  const long = extendContext(config, { rope: "theta", context: 512 });
  const [before, after] = [rotaryFrequencies(config), rotaryFrequencies(long)];
  expect(long.maxPositions).toBe(512);
  expect(after[0]).toBe(before[0]);
  expect(before[3]! / after[3]!).toBeCloseTo(4, 10);
});

test("linear and llama3 scaling as files state them", () => {
  expect(extendContext(config, { rope: "linear", context: 512 }).rope).toEqual({
    theta: 10000,
    scaling: { type: "linear", factor: 4 },
  });
  const bands = { type: "llama3", factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 128 };
  expect(extendContext(config, { rope: "llama3", context: 512, factor: 8 }).rope.scaling).toEqual(bands);
});

test("a context that is no longer, and scaling upon scaling, are refused", () => {
  expect(() => extendContext(config, { rope: "linear", context: 128 })).toThrow("more than the 128 tokens");
  const scaled = extendContext(config, { rope: "linear", context: 256 });
  expect(() => extendContext(scaled, { rope: "llama3", context: 512 })).toThrow("without scaling");
  expect(extendContext(scaled, { rope: "theta", context: 512 }).rope.scaling).toEqual({ type: "linear", factor: 2 });
});
