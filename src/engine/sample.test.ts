import { expect, test } from "vitest";
import { argmax, createSampler } from "./sample.js";

const logits = (...probabilities: number[]) => Float32Array.from(probabilities, Math.log);

test("greedy takes the largest, the first of equals", () => {
  expect(argmax(Float32Array.of(1, 3, 3, 2))).toBe(1);
  expect(createSampler()(Float32Array.of(0, -1, 5))).toBe(2);
});

test("draws follow the distribution", () => {
  const sample = createSampler({ temperature: 1, seed: 1 });
  const counts = [0, 0, 0];
  for (let i = 0; i < 20_000; i++) counts[sample(logits(0.5, 0.3, 0.2))]!++;
  // Three standard deviations of a binomial: 3 * sqrt(20000 * 0.25) = 212.
  expect(Math.abs(counts[0]! - 10_000)).toBeLessThan(212);
  expect(Math.abs(counts[1]! - 6_000)).toBeLessThan(212);
});

test("the nucleus is the shortest prefix that reaches topP", () => {
  const sample = createSampler({ temperature: 1, topP: 0.6, seed: 2 });
  const seen = new Set(Array.from({ length: 500 }, () => sample(logits(0.1, 0.5, 0.4))));
  expect([...seen].sort()).toEqual([1, 2]);
  const narrow = createSampler({ temperature: 1, topP: 0.5, seed: 2 });
  expect(new Set(Array.from({ length: 100 }, () => narrow(logits(0.1, 0.5, 0.4))))).toEqual(new Set([1]));
});

test("a low temperature sharpens: p^(1/T)", () => {
  const sample = createSampler({ temperature: 0.5, seed: 3 });
  let first = 0;
  for (let i = 0; i < 10_000; i++) if (sample(logits(0.6, 0.4)) === 0) first++;
  // 0.36 / (0.36 + 0.16) = 0.6923; three standard deviations = 0.0138
  expect(Math.abs(first / 10_000 - 0.6923)).toBeLessThan(0.0139);
});

test("the same seed draws the same tokens", () => {
  const draw = () => {
    const sample = createSampler({ temperature: 1, seed: 7 });
    return Array.from({ length: 20 }, () => sample(logits(0.25, 0.25, 0.25, 0.25)));
  };
  expect(draw()).toEqual(draw());
});
