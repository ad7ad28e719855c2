import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { checkSchema } from "../base/index.js";
import { repositoryPath } from "../base/testing.js";
import { resultJsonSchema, resultSchema } from "./result.js";

const kl = { mean: 0.2, low: 0.1, high: 0.3 };
const result = {
  parent: { parameters: 10, perplexity: 4 },
  child: {
    path: "out/child",
    parameters: 6,
    perplexity: 5,
    kl,
    klBeforeDistillation: kl,
    blocks: [{ attention: { kind: "gqa", kvHeads: 2 }, ffn: { kind: "none" } }],
  },
  baselines: [{ name: "uniform", parameters: 6, kl, perplexity: 6 }],
  search: { objective: 0.3, bound: 0.3, gap: 0, seconds: 1 },
  exports: [{ path: "out/child.gguf", format: "gguf", type: "f32", maxAbsLogitDifference: 1e-5 }],
  speed: { parent: { prefill: 100, decode: 10 }, child: { prefill: 120, decode: 12, intervals: 5 } },
  stages: [{ name: "score", seconds: 1, peakRssBytes: 1024, cached: false }],
  peakRssBytes: 1024,
  seconds: 3,
};

test("the JSON Schema in the repository is the one the code checks (npx tsx scripts/write-schemas.ts)", () => {
  const written = JSON.parse(readFileSync(repositoryPath("schemas/result.schema.json"), "utf8"));
  expect(written).toEqual(JSON.parse(JSON.stringify(resultJsonSchema())));
});

test("a result passes whole, with fields that later versions add", () => {
  expect(checkSchema(resultSchema, result, "result")).toEqual(result);
});

test("all problems of a result at once", () => {
  const bad = { ...result, search: { ...result.search, gap: -1 }, child: { ...result.child, blocks: [{}] } };
  expect(() => checkSchema(resultSchema, bad, "result.json")).toThrow(/child\.blocks\.0\.attention[\s\S]*search\.gap/);
});
