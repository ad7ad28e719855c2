/** @module Tokens become text while they come: whole characters only, and nothing that may begin a stop text. */
import type { TokenLogprob } from "../inference.js";

/** Text of token ids that follow each other. */
export type Detokenize = (ids: readonly number[]) => string;

export interface TextDecoder {
  /** The text that this token completes; undefined while a character is still incomplete. */
  push(id: number): string | undefined;
  /** What is left of an incomplete character. */
  end(): string;
}

const incomplete = "\uFFFD";

/**
 * A token's text depends on the token before it (white space at the beginning), so texts are differences of two short
 * lists, not of single tokens.
 *
 * @param before The token that the first one follows, if any.
 */
export function createTextDecoder(detokenize: Detokenize, before?: number): TextDecoder {
  let ids = before === undefined ? [] : [before];
  let known = ids.length;
  let knownText = known > 0 ? detokenize(ids) : "";
  return {
    push(id) {
      ids.push(id);
      const text = detokenize(ids);
      if (text.endsWith(incomplete)) return undefined;
      const added = text.slice(knownText.length);
      ids = ids.slice(known);
      known = ids.length;
      knownText = detokenize(ids);
      return added;
    },
    end() {
      const rest = ids.length > known ? detokenize(ids).slice(knownText.length) : "";
      known = ids.length;
      return rest;
    },
  };
}

export interface StopFilter {
  /** Tokens that are certain, `text` undefined for one that ends inside a character. */
  push(token: Omit<TokenLogprob, "text">, text: string | undefined): TokenLogprob[];
  /** All that was held back; `rest` belongs to the last of it. */
  end(rest: string): TokenLogprob[];
  /** The stop text that was found: nothing comes after it. */
  readonly stopped: string | undefined;
}

/** Lets tokens through as soon as their text cannot be part of a stop text; the texts of tokens join to the text. */
export function createStopFilter(stops: readonly string[]): StopFilter {
  let held: TokenLogprob[] = [];
  let stopped: string | undefined;
  let open = false;

  const release = (length: number): TokenLogprob[] => {
    let [count, end] = [0, 0];
    while (count < held.length && end + held[count]!.text.length <= length) end += held[count++]!.text.length;
    const out = held.slice(0, count);
    held = held.slice(count);
    return out;
  };

  return {
    push(token, text) {
      held.push({ ...token, text: text ?? "" });
      open = text === undefined;
      if (open) return [];
      const whole = held.length === 1 ? held[0]!.text : held.map((one) => one.text).join("");
      const found = firstStop(whole, stops);
      if (!found) return release(whole.length - heldBack(whole, stops));
      stopped = found.stop;
      return cut(held, found.index);
    },
    end(rest) {
      if (rest !== "" && held.length > 0) held[held.length - 1]!.text += rest;
      return release(Number.POSITIVE_INFINITY);
    },
    get stopped() {
      return stopped;
    },
  };
}

/** Tokens up to so many characters; one that reaches beyond keeps its beginning. */
function cut(tokens: readonly TokenLogprob[], length: number): TokenLogprob[] {
  const out: TokenLogprob[] = [];
  let start = 0;
  for (const token of tokens) {
    if (start >= length) break;
    out.push({ ...token, text: token.text.slice(0, length - start) });
    start += token.text.length;
  }
  return out;
}

function firstStop(text: string, stops: readonly string[]): { index: number; stop: string } | undefined {
  let first: { index: number; stop: string } | undefined;
  for (const stop of stops) {
    const index = text.indexOf(stop);
    if (index >= 0 && (!first || index < first.index)) first = { index, stop };
  }
  return first;
}

/** Length of the longest end of the text that begins a stop text. */
function heldBack(text: string, stops: readonly string[]): number {
  let longest = 0;
  for (const stop of stops) {
    for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
      if (text.endsWith(stop.slice(0, length))) longest = length;
    }
  }
  return longest;
}
