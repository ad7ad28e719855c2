/** @module Characters of a rendered conversation found again among the tokens of the whole text. */
import type { Tokenizer } from "../tokenizer/index.js";

/**
 * Tokens of a rendered conversation. Control tokens in the text count as such, and the start token is put before it only
 * where the vocabulary asks for one and the template wrote none.
 */
export function encodeChat(tokenizer: Tokenizer, text: string): number[] {
  const ids = tokenizer.encode(text, { addSpecial: false, parseSpecial: true });
  const { addBos, bosTokenId } = tokenizer;
  return addBos && bosTokenId !== undefined && ids[0] !== bosTokenId ? [bosTokenId, ...ids] : ids;
}

/** Where a place in the text falls among the tokens; the two are equal where a token begins there. */
export interface TokenBoundary {
  /** Tokens that lie wholly before the place. */
  before: number;
  /** First token that lies wholly after it. */
  after: number;
}

/**
 * Finds a place of the text among its tokens. The text before the place is tokenised by itself: as long as both agree the
 * tokens lie before it. Where they part before the end, a token may reach over the place, or the last word may merely have
 * been cut up differently; decoding tells which.
 */
export function findBoundary(tokenizer: Tokenizer, text: string, ids: readonly number[], at: number): TokenBoundary {
  if (at >= text.length) return { before: ids.length, after: ids.length };
  const head = encodeChat(tokenizer, text.slice(0, at));
  const parted = head.findIndex((id, i) => id !== ids[i]);
  if (parted < 0) return { before: head.length, after: head.length };
  const spelt = (tokens: readonly number[]) => tokenizer.decode(tokens, { skipSpecial: false });
  const length = spelt(head).length;
  let before = parted;
  for (let end = parted + 1; end < ids.length; end++) {
    const decoded = spelt(ids.slice(0, end));
    // A character of which bytes are missing yet.
    if (decoded.endsWith("\ufffd")) continue;
    if (decoded.length < length) before = end;
    else return decoded.length === length ? { before: end, after: end } : { before, after: end };
  }
  return { before, after: ids.length };
}
