import { expect, test } from "vitest";
import { createRetaking } from "./retake.js";

function samplesOf(...values: number[]) {
  const left = [...values];
  return { left, sample: async () => left.shift()! };
}

test("a first sample is taken as it is", async () => {
  const { left, sample } = samplesOf(9, 1);
  expect(await createRetaking(100)("a", sample)).toBe(9);
  expect(left).toEqual([1]);
});

test("a disturbed one is taken again until it is near the shortest, at most three times", async () => {
  const take = createRetaking(100);
  await take("a", samplesOf(1).sample);
  expect(await take("a", samplesOf(1.25).sample)).toBe(1.25);
  expect(await take("a", samplesOf(3, 2, 1.1, 1).sample)).toBe(1.1);
  const busy = samplesOf(5, 4, 3, 4, 1);
  expect(await take("a", busy.sample)).toBe(3);
  expect(busy.left).toEqual([1]);
});

test("kinds are apart", async () => {
  const take = createRetaking(100);
  await take("a", samplesOf(1).sample);
  expect(await take("b", samplesOf(5).sample)).toBe(5);
});

test("the budget of all kinds together is kept", async () => {
  const take = createRetaking(4);
  await take("a", samplesOf(1).sample);
  expect(await take("a", samplesOf(5, 4, 3, 2).sample)).toBe(2);
  expect(await take("a", samplesOf(5, 4, 1).sample)).toBe(4);
  expect(await take("a", samplesOf(5, 1).sample)).toBe(5);
});
