import { expect, test } from "vitest";
import { packSamples, type TokenSample } from "../data/index.js";
import { fitShape } from "./index.js";

const sample = (length: number, learnt: number): TokenSample => ({
  ids: new Int32Array(length),
  learn: Uint8Array.from({ length }, (_, i) => Number(i >= length - learnt)),
});
const rows = { batch: 2, length: 512 };

test("places for targets follow the share of learnt tokens, with a tenth to spare", () => {
  const samples = Array.from({ length: 20 }, () => sample(100, 25));
  // 1.1 x 1024 x 0.25 = 281.6
  expect(fitShape(samples, rows)).toEqual({ ...rows, targets: 288, sequences: 10 });
});

test("the sample with the most targets fits, and no more places than there are tokens", () => {
  expect(fitShape([sample(400, 390), ...Array.from({ length: 50 }, () => sample(100, 1))], rows).targets).toBe(390);
  expect(fitShape([sample(512, 511), sample(512, 511)], rows).targets).toBe(1024);
});

test("pairs get two sequences each, and everything can be packed", () => {
  const pairs = Array.from({ length: 9 }, (_, i) => ({
    prompt: new Int32Array(10 + i),
    branches: [sample(20, 20), sample(30 + 10 * i, 30)],
  }));
  const shape = fitShape(pairs, rows);
  expect(shape.sequences).toBe(34);
  const packed = packSamples(pairs, shape).batches.flatMap(({ sequences }) => sequences);
  expect(packed).toHaveLength(18);
});
