/** @module Rates of two ways to do the same work, taken in turns: what the benchmarks of the engine and of the server print. */
import { median } from "../src/base/index.js";
import { openGgufFile } from "../src/formats/index.js";

export interface RateRow {
  what: string;
  /** Tokens a second; medians over the rounds. */
  base: number;
  own: number;
  /** Median of the rounds' ratios. */
  ratio: number;
  wanted: number;
  /** What the ratio could be at most if all products ran at one rate. */
  bound?: number;
}

/** @param pairs seconds of the same work, as `[base, own]` */
export function rateRow(
  what: string,
  pairs: readonly (readonly [base: number, own: number])[],
  tokens: number,
  { wanted, bound }: Pick<RateRow, "wanted" | "bound">,
): RateRow {
  return {
    what,
    base: median(pairs.map(([base]) => tokens / base)),
    own: median(pairs.map(([, own]) => tokens / own)),
    ratio: median(pairs.map(([base, own]) => base / own)),
    wanted,
    ...(bound !== undefined && { bound }),
  };
}

export function renderRates(rows: readonly RateRow[], base: string, own: string): string[] {
  const head = [base.padStart(10), own.padStart(10), "ratio".padStart(8), "wanted".padStart(8), "bound".padStart(8)];
  const lines = rows.map(({ what, base, own, ratio, wanted, bound }) =>
    [
      what.padEnd(50),
      base.toFixed(1).padStart(10),
      own.toFixed(1).padStart(10),
      ratio.toFixed(3).padStart(8),
      wanted.toFixed(2).padStart(8),
      (bound?.toFixed(2) ?? "").padStart(8),
    ].join(" "),
  );
  return [["tokens/s".padEnd(50), ...head].join(" "), ...lines];
}

/**
 * Scores of a prompt over its plain evaluation, at equal rates of all products: every token goes through the blocks, but
 * only the scored ones through the head. Attention within the blocks counts half of its square.
 */
export async function scoringBound(gguf: string, tokens: number): Promise<number> {
  const file = await openGgufFile(gguf);
  const numbers = (name: string) => file.info(name)?.shape.reduce((a, b) => a * b, 1) ?? 0;
  const embedding = numbers("token_embd.weight");
  const blocks = file.names.filter((name) => name.startsWith("blk.")).reduce((sum, name) => sum + numbers(name), 0);
  const queries = file.names.filter((name) => name.endsWith("attn_q.weight"));
  const attention = queries.reduce((sum, name) => sum + tokens * file.info(name)!.shape[0]!, 0);
  await file.close();
  return (blocks + attention) / (blocks + attention + embedding);
}
