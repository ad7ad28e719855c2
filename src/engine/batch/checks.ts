/** @module What a batch generator refuses: settings, prompts, and logits that are no numbers. */
import { EspalierError } from "../../base/index.js";
import type { ModelConfig } from "../../models/index.js";

export function check(where: string, holds: boolean, expected: string, found: number): void {
  if (!holds) throw new EspalierError({ where, expected, found: `${found}`, exitCode: 2 });
}

export function checkPrompt(
  { maxPositions, vocabSize }: ModelConfig,
  place: number,
  ids: ArrayLike<number>,
  samples: number,
) {
  const where = `prompt ${place}`;
  if (!(Number.isInteger(samples) && samples >= 1)) {
    throw new EspalierError({ where, expected: "at least 1 sample", found: `${samples}`, exitCode: 2 });
  }
  if (ids.length === 0 || ids.length > maxPositions) {
    const expected = `1 to ${maxPositions} tokens, the longest context of the model`;
    throw new EspalierError({ where, expected, found: `${ids.length}`, exitCode: 2 });
  }
  const wrong = Array.from(ids).findIndex((id) => !(Number.isInteger(id) && id >= 0 && id < vocabSize));
  if (wrong < 0) return;
  throw new EspalierError({
    where: `${where}, token ${wrong}`,
    expected: `an id below ${vocabSize}`,
    found: `${ids[wrong]}`,
    fix: "use the tokenizer that belongs to this model",
  });
}

export function checkFinite(total: number, place: number, position: number): void {
  if (Number.isFinite(total)) return;
  throw new EspalierError({
    where: `prompt ${place}: logits after ${position} tokens`,
    expected: "finite numbers",
    found: `${total}`,
    fix: "the weights overflow float32 on this text; check the last update of the weights",
  });
}
