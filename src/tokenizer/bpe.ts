import { byteToken } from "./byte-alphabet.js";
import { mergeSymbols, type PairTable } from "./merges.js";

export interface BpeOptions {
  /** Every token of the vocabulary. */
  ids: ReadonlyMap<string, number>;
  pairs: PairTable;
  /** Characters that are no token of their own but part of one: ids from `ids.size` on. */
  virtual?: ReadonlyMap<string, number>;
  /** A piece that is a token is taken whole, whatever the merges say. Defaults to false. */
  ignoreMerges?: boolean;
  /** Unknown characters become the tokens of their UTF-8 bytes (`<0xE2>`). Defaults to false. */
  byteFallback?: boolean;
  /** What else an unknown character becomes; without it the character is left out, as in the reference tokenizers. */
  unknownId?: number;
  /** One unknown token for a run of unknown characters. Defaults to false. */
  fuseUnknown?: boolean;
}

export interface Bpe {
  /** Appends the ids of one piece of pre-tokenised text. */
  encode(piece: string, out: number[]): void;
}

/** Pieces up to this length are remembered: words come again, documents do not. */
const CACHED_LENGTH = 48;
const CACHED_PIECES = 20_000;

export function createBpe(options: BpeOptions): Bpe {
  const { ids, pairs, virtual, ignoreMerges = false, byteFallback = false, unknownId, fuseUnknown = false } = options;
  const bytes = byteFallback ? byteTokens(ids) : undefined;
  const virtualStart = virtual ? ids.size : Number.POSITIVE_INFINITY;
  const cache = new Map<string, readonly number[]>();

  const pushUnknown = (text: string, afterUnknown: boolean, out: number[]): boolean => {
    if (bytes) {
      for (const byte of Buffer.from(text, "utf8")) out.push(bytes[byte]!);
      return false;
    }
    if (unknownId !== undefined && !(fuseUnknown && afterUnknown)) out.push(unknownId);
    return true;
  };

  const merge = (piece: string): number[] => {
    const symbols = new Int32Array(piece.length);
    const starts = new Int32Array(piece.length + 1);
    let n = 0;
    let at = 0;
    for (const character of piece) {
      symbols[n] = ids.get(character) ?? virtual?.get(character) ?? -1;
      starts[n++] = at;
      at += character.length;
    }
    starts[n] = at;
    const next = new Int32Array(n);
    mergeSymbols(symbols, next, n, pairs);
    const out: number[] = [];
    let unknown = false;
    for (let i = 0; i < n; i = next[i]!) {
      const id = symbols[i]!;
      // Virtual symbols stand in no pair that was merged away, so they are single characters still.
      if (id >= 0 && id < virtualStart) {
        out.push(id);
        unknown = false;
      } else unknown = pushUnknown(piece.slice(starts[i]!, starts[next[i]!]!), unknown, out);
    }
    return out;
  };

  return {
    encode(piece, out) {
      if (piece.length === 0) return;
      const whole = ignoreMerges || piece.length === 1 ? ids.get(piece) : undefined;
      if (whole !== undefined) {
        out.push(whole);
        return;
      }
      const found = cache.get(piece);
      const merged = found ?? merge(piece);
      if (!found && piece.length <= CACHED_LENGTH) {
        if (cache.size >= CACHED_PIECES) cache.clear();
        cache.set(piece, merged);
      }
      for (const id of merged) out.push(id);
    },
  };
}

/** Ids of the 256 byte tokens, or undefined when one is missing: then there is no fallback at all. */
export function byteTokens(ids: ReadonlyMap<string, number>): Int32Array | undefined {
  const result = new Int32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    const id = ids.get(byteToken(byte));
    if (id === undefined) return undefined;
    result[byte] = id;
  }
  return result;
}
