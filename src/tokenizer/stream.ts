import type { DecodeOptions, Tokenizer } from "./types.js";

export interface StreamDecoder {
  /** Takes one id; returns the text that is now certain, often empty while a character is incomplete. */
  push(id: number): string;
  /** What is still held back, incomplete characters as U+FFFD. */
  end(): string;
}

/** Ids before the first one that decides how it is spelt: a word may lose or keep its leading space. */
const CONTEXT = 6;
/** A model that emits broken UTF-8 without end must not make the decoder wait without end. */
const LONGEST_WAIT = 8;

/**
 * Decodes id by id. The pieces put together are `decode(after + ids)` without the text of `after`.
 *
 * @param after Ids that come before, such as the prompt's.
 */
export function createStreamDecoder(
  tokenizer: Tokenizer,
  { after = [], ...options }: DecodeOptions & { after?: ArrayLike<number> } = {},
): StreamDecoder {
  let context = Array.from(after).slice(-CONTEXT);
  let held: number[] = [];

  const release = (complete: boolean): string => {
    const before = tokenizer.decode(context, options);
    const text = tokenizer.decode([...context, ...held], options).slice(before.length);
    if (!complete && text.endsWith("\ufffd") && held.length < LONGEST_WAIT) return "";
    context = [...context, ...held].slice(-CONTEXT);
    held = [];
    return text;
  };

  return {
    push(id) {
      held.push(id);
      return release(false);
    },
    end: () => (held.length > 0 ? release(true) : ""),
  };
}
