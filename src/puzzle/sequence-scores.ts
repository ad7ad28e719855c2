/**
 * @module From the scores that were taken to the scores of all blocks, by sequence: halves joined to pairs, fewer
 * sequences brought to the level of more.
 */
import { type Interval, internal, mean, meanInterval, median } from "../base/index.js";
import { type BlockConfig, type ModelConfig, sameBlock } from "../models/index.js";
import type { LayerScores } from "./score.js";
import { blockId, parseBlockId } from "./space.js";

export interface PairOptions {
  parent: BlockConfig;
  /** What the sum of two halves is multiplied with. */
  pairFactor: number;
}

/**
 * A block's score by sequence: its own where it was scored, else of its halves, over the sequences that both have. What a
 * pair was not scored on is filled in from its halves, times what it cost beside them where it was.
 */
export function sequenceScores({ kl }: LayerScores, block: BlockConfig, { parent, pairFactor }: PairOptions): number[] {
  const scored = kl[blockId(block, parent)];
  if (scored && (sameHalf(block, parent, "attention") || sameHalf(block, parent, "ffn"))) return scored;
  const joined = joinedHalves(kl, block, { parent, pairFactor });
  if (!scored) return joined ?? internal(`no score of ${blockId(block, parent)}`);
  if (!joined || scored.length >= joined.length) return scored;
  const own = mean(joined.slice(0, scored.length));
  const share = own > 0 ? mean(scored) / own : 1;
  return [...scored, ...joined.slice(scored.length).map((value) => share * value)];
}

function joinedHalves(
  kl: LayerScores["kl"],
  block: BlockConfig,
  { parent, pairFactor }: PairOptions,
): number[] | undefined {
  const halves = halfScores(kl, block, parent);
  return halves && shared(halves.attention, halves.ffn).map(([a, f]) => Math.max(a, f, pairFactor * (a + f)));
}

/** What scores of halves say of a block: its attention and its feed-forward, each beside the parent's other half. */
function halfScores(kl: LayerScores["kl"], block: BlockConfig, parent: BlockConfig) {
  const attention = kl[blockId({ attention: block.attention, ffn: parent.ffn }, parent)];
  const ffn = kl[blockId({ attention: parent.attention, ffn: block.ffn }, parent)];
  return attention && ffn && { attention, ffn };
}

function shared(a: readonly number[], b: readonly number[]): [number, number][] {
  return Array.from({ length: Math.min(a.length, b.length) }, (_, i) => [a[i]!, b[i]!]);
}

/**
 * What replacing both halves of a block costs as a share of the sum of the two, the median over the blocks that were
 * scored both ways; undefined where none was.
 */
export function measurePairFactor(config: ModelConfig, scores: readonly LayerScores[]): PairFactor | undefined {
  const shares = scores.flatMap(({ layer, kl }) => {
    const parent = config.blocks[layer]!;
    return Object.entries(kl).flatMap(([id, values]) => {
      const block = parseBlockId(id);
      if (sameHalf(block, parent, "attention") || sameHalf(block, parent, "ffn")) return [];
      const { attention, ffn } = halfScores(kl, block, parent) ?? internal(`no scores of the halves of ${id}`);
      const n = Math.min(values.length, attention.length, ffn.length);
      const sum = mean(attention.slice(0, n)) + mean(ffn.slice(0, n));
      return sum > 0 ? [mean(values.slice(0, n)) / sum] : [];
    });
  });
  if (shares.length === 0) return undefined;
  shares.sort((a, b) => a - b);
  const at = (share: number) => shares[Math.round(share * (shares.length - 1))]!;
  return { factor: median(shares), lower: at(0.25), upper: at(0.75), pairs: shares.length };
}

const [usualFactor, fewestPairs] = [0.76, 5];

/** The measured factor, or the usual one where too few pairs were scored to say. */
export function pairFactorOf(config: ModelConfig, scores: readonly LayerScores[]): number {
  const measured = measurePairFactor(config, scores);
  return measured && measured.pairs >= fewestPairs ? measured.factor : usualFactor;
}

/** Measured share of the sum of halves that a pair costs. */
export interface PairFactor {
  /** The median. */
  factor: number;
  /** Quartiles. */
  lower: number;
  upper: number;
  /** How many pairs it rests on. */
  pairs: number;
}

function sameHalf(block: BlockConfig, parent: BlockConfig, part: "attention" | "ffn"): boolean {
  const other = { ...parent, [part]: block[part] };
  return sameBlock(other, parent);
}

/**
 * Brings scores of fewer sequences to the level of the whole text (ratio estimator): the first sequences may be harder
 * or easier than the rest, and for all blocks alike. How much, the blocks with scores of all sequences say.
 */
export function createLevel(scores: readonly (readonly number[])[]): (values: readonly number[]) => number[] {
  // The parent's own blocks score 0 on all of the text and say nothing of it.
  const all = scores.filter((values) => values.some((value) => value !== 0));
  const most = Math.max(0, ...all.map(({ length }) => length));
  const whole = all.filter(({ length }) => length === most);
  const difficulty = Array.from({ length: most }, (_, i) => whole.reduce((sum, values) => sum + values[i]!, 0));
  const level = mean(difficulty);
  return (values) => {
    const own = mean(difficulty.slice(0, values.length));
    return values.length >= most || !(own > 0) ? [...values] : values.map((value) => (value * level) / own);
  };
}

/** Mean and 95 % interval by kind of text. `kinds` names the kind of each sequence, in the order of the text. */
export function meanByKind(values: readonly number[], kinds: readonly string[]): Record<string, Interval> {
  const groups = new Map<string, number[]>();
  for (const [i, value] of values.entries()) {
    const kind = kinds[i] ?? internal(`no kind of sequence ${i}`);
    groups.set(kind, [...(groups.get(kind) ?? []), value]);
  }
  return Object.fromEntries([...groups].map(([kind, own]) => [kind, meanInterval(own)]));
}
