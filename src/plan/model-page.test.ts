import { expect, test } from "vitest";
import { findInCatalogue } from "./catalogue.js";
import { modelPage } from "./model-page.js";

test("the page of Nemotron-4-340B, and what its shapes say", () => {
  const page = modelPage(findInCatalogue("nemotron-4-340b")!.shape);
  expect(page.map(({ pageBytes }) => (pageBytes / 1e9).toFixed(1))).toEqual(["194.2", "279.2", "342.9", "682.9"]);
  expect(page.map(({ weightBytes }) => weightBytes)).toEqual(
    [4.5, 6.5, 8, 16].map((bits) => (341_029_195_776 * bits) / 8),
  );
  // 96 layers of 8 heads of 192, keys and values in 16 bits, 4,096 tokens: 2.42 GB.
  expect(page[0]!.kvCacheBytes).toBe(4096 * 96 * 2 * 8 * 192 * 2);
});

test("its parameters are those of the report: 9.4 billion of embeddings and 331.6 others (arXiv:2406.11704, table 1)", () => {
  const { shape, parameters } = findInCatalogue("nemotron-4-340b")!;
  const embeddings = 2 * shape.vocabSize * shape.hiddenSize;
  expect([(embeddings / 1e9).toFixed(1), ((parameters - embeddings) / 1e9).toFixed(1)]).toEqual(["9.4", "331.6"]);
});
