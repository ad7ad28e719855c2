import { expect, test } from "vitest";
import { topOf } from "./top.js";

test("the best tokens, best first, with log-probabilities among all; of equal ones the first", () => {
  const probabilities = [0.1, 0.4, 0.05, 0.05, 0.4];
  const logits = Float32Array.from(probabilities, (p) => Math.log(p) + 3);
  const { ids, logProbs } = topOf(logits, 3);
  expect([...ids]).toEqual([1, 4, 0]);
  [0.4, 0.4, 0.1].forEach((p, i) => {
    expect(logProbs[i]).toBeCloseTo(Math.log(p), 5);
  });
});

test("a temperature of 2 takes square roots of probabilities", () => {
  const { ids, logProbs } = topOf(Float32Array.from([0.64, 0.36], Math.log), 2, 2);
  expect([...ids]).toEqual([0, 1]);
  expect(logProbs[0]).toBeCloseTo(Math.log(0.8 / 1.4), 5);
});
