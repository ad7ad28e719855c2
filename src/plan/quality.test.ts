import { expect, test } from "vitest";
import { catalogueNames } from "./catalogue.js";
import { qualityOf } from "./quality.js";

test("figures of one model that differ between sources are both kept", () => {
  const mmlu = qualityOf("llama-3.1-70b").filter(({ benchmark }) => benchmark === "MMLU");
  expect(mmlu.map(({ value, source }) => [value, source])).toEqual([
    [81.66, "arXiv:2411.19146"],
    [82, "openai/simple-evals, results table"],
  ]);
});

test("every figure is of a model that is known and has a source", () => {
  const figures = catalogueNames().flatMap(qualityOf);
  expect(figures.length).toBeGreaterThan(150);
  expect(figures.every(({ source }) => source.length > 0)).toBe(true);
});
