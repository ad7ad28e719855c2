/** A token that is found in the text before anything else happens to it. */
export interface AddedToken {
  id: number;
  content: string;
  /** A control token: left out when decoding, and plain text when `parseSpecial` is false. */
  special: boolean;
  /** Takes the white space before it. Defaults to false. */
  lstrip?: boolean;
  /** Takes the white space after it. Defaults to false. */
  rstrip?: boolean;
  /** Counts only when it stands apart from word characters. Defaults to false. */
  singleWord?: boolean;
}

export type Section = { token: AddedToken } | { text: string };

export interface SectionSplitter {
  /** Plain text and added tokens in the order of the text; no empty text. */
  split(text: string, parseSpecial: boolean): Section[];
}

export function createSectionSplitter(tokens: readonly AddedToken[]): SectionSplitter {
  const usable = tokens.filter(({ content }) => content.length > 0);
  const all = matcher(usable);
  const plain = matcher(usable.filter(({ special }) => !special));
  return { split: (text, parseSpecial) => splitSections(text, parseSpecial ? all : plain) };
}

interface Matcher {
  pattern: RegExp;
  byContent: ReadonlyMap<string, AddedToken>;
}

/** The longest token wins where two begin at the same place. */
function matcher(tokens: readonly AddedToken[]): Matcher | undefined {
  if (tokens.length === 0) return undefined;
  const contents = tokens.map(({ content }) => content).sort((a, b) => b.length - a.length || (a < b ? -1 : 1));
  return {
    pattern: new RegExp(contents.map((content) => content.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")).join("|"), "g"),
    byContent: new Map(tokens.map((token) => [token.content, token])),
  };
}

function splitSections(text: string, matcher: Matcher | undefined): Section[] {
  const sections: Section[] = [];
  const push = (part: string): void => {
    if (part.length > 0) sections.push({ text: part });
  };
  let from = 0;
  for (const match of matcher ? text.matchAll(matcher.pattern) : []) {
    const token = matcher!.byContent.get(match[0])!;
    const end = match.index + match[0].length;
    if (match.index < from || (token.singleWord && touchesWord(text, match.index, end))) continue;
    const before = text.slice(from, match.index);
    push(token.lstrip ? before.trimEnd() : before);
    sections.push({ token });
    from = token.rstrip ? skipSpace(text, end) : end;
  }
  push(text.slice(from));
  return sections;
}

function skipSpace(text: string, from: number): number {
  const space = /\s*/y;
  space.lastIndex = from;
  space.exec(text);
  return space.lastIndex;
}

function touchesWord(text: string, start: number, end: number): boolean {
  return /\w/.test(text[start - 1] ?? " ") || /\w/.test(text[end] ?? " ");
}

/**
 * Texts of control tokens that end a turn or a document, besides the end token that the vocabulary names. Chat models
 * stop at these whatever their configuration says; the list is that of llama.cpp (`llama-vocab.cpp`, end of generation).
 */
export const endTexts: readonly string[] = [
  "<|eot_id|>",
  "<|im_end|>",
  "<|end|>",
  "<|return|>",
  "<|call|>",
  "<end_of_turn>",
  "<|endoftext|>",
  "</s>",
  "<|eom_id|>",
  "<EOT>",
  "<|end_of_text|>",
  "<end_of_utterance>",
  "<eos>",
  "<｜end▁of▁sentence｜>",
];
