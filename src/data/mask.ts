/** @module A picture of what is learnt, for people to look at before they train. */
import type { Tokenizer } from "../tokenizer/index.js";
import type { TokenSample } from "./types.js";

export interface MaskOptions {
  /** `plain`: learnt text between ⟦ and ⟧. `ansi`: in green. Defaults to `plain`. */
  style?: "plain" | "ansi";
}

const marks = { plain: ["⟦", "⟧"], ansi: ["\u001b[32m", "\u001b[39m"] } as const;

/** The sample's text, control tokens spelt out, with what is learnt marked. */
export function showMask(
  tokenizer: Tokenizer,
  { ids, learn }: TokenSample,
  { style = "plain" }: MaskOptions = {},
): string {
  const [open, close] = marks[style];
  let [text, shown] = ["", 0];
  for (let start = 0; start < ids.length; ) {
    let end = start + 1;
    while (end < ids.length && learn[end] === learn[start]) end++;
    // From the beginning each time: some tokenizers drop the space that a text begins with.
    const all = tokenizer.decode(ids.subarray(0, end), { skipSpecial: false });
    const part = all.slice(shown);
    text += learn[start] ? open + part + close : part;
    [shown, start] = [all.length, end];
  }
  return text;
}
