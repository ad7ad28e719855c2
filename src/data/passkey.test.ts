import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { repositoryPath } from "../base/testing.js";
import { loadTokenizer } from "../tokenizer/index.js";
import { passkeySamples } from "./index.js";

const read = (name: string) => JSON.parse(readFileSync(repositoryPath(`models/stories260K/${name}`), "utf8"));
const tokenizer = loadTokenizer({ kind: "hf", tokenizer: read("tokenizer.json") }, "stories260K");
const options = { length: 320, count: 4, candidates: 3, seed: 1 };

test("the first answer stands in the text twice, the others nowhere; prompt and answers fill the length", () => {
  for (const { prompt, branches } of passkeySamples(tokenizer, options)) {
    const text = tokenizer.decode(prompt);
    const [right, ...others] = branches.map(({ ids }) => tokenizer.decode(ids).trim());
    expect(right).toMatch(/^\d{5}$/);
    expect(text.split(right!)).toHaveLength(3);
    for (const other of others) expect(text).not.toContain(other);
    expect(text).toMatch(/The pass key is$/);
    expect(prompt.length + branches.reduce((sum, { ids }) => sum + ids.length, 0)).toBe(320);
    expect(branches.every(({ learn }) => learn.every((x) => x === 1))).toBe(true);
  }
});

test("the number's place goes from the beginning to the end", () => {
  const places = passkeySamples(tokenizer, options).map(({ prompt }) =>
    tokenizer.decode(prompt).indexOf("The pass key is"),
  );
  expect(places).toEqual(places.toSorted((a, b) => a - b));
  expect(new Set(places).size).toBe(4);
});

test("the same seed gives the same questions, and too short a length is refused", () => {
  expect(passkeySamples(tokenizer, options)).toEqual(passkeySamples(tokenizer, options));
  expect(() => passkeySamples(tokenizer, { ...options, length: 40 })).toThrow("at least");
});
