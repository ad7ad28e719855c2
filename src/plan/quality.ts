/** @module Published figures of quality: `data/catalogue/quality.json`. Nothing is averaged: what differs between sources stays apart. */
import { readFileSync } from "node:fs";
import { z } from "../base/index.js";

const figureSchema = z.object({
  /** Name in the catalogue of models. */
  model: z.string(),
  benchmark: z.string(),
  value: z.number(),
  source: z.string(),
});

export type QualityFigure = z.output<typeof figureSchema>;

let known: readonly QualityFigure[] | undefined;

function listFigures(): readonly QualityFigure[] {
  const path = new URL("../../data/catalogue/quality.json", import.meta.url);
  known ??= z.array(figureSchema).parse(JSON.parse(readFileSync(path, "utf8")));
  return known;
}

/** All published figures of a model, by its name in the catalogue; none for another. */
export function qualityOf(model: string): QualityFigure[] {
  return listFigures().filter((figure) => figure.model === model);
}
