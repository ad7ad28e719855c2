/**
 * @module Constraints on an answer that a program can check, after IFEval (Zhou et al., arXiv:2311.07911, table 1), and
 * the mapping of its instruction ids to them.
 *
 * Departures: keywords are literal text, not patterns. Sentences and words in capitals are counted by plain rules, not
 * by NLTK's trained splitter. Case is checked without guessing the language, and `language:response_language` is not
 * here. An empty answer meets nothing, as in the original.
 */
import { EspalierError } from "../base/index.js";

/** Inclusive bounds; equal bounds ask for an exact number. */
export interface CountRange {
  min?: number;
  max?: number;
}

export type Constraint =
  /** Runs of letters, digits and underscores. */
  | ({ kind: "words" } & CountRange)
  | ({ kind: "sentences" } & CountRange)
  /** Parts between `***` dividers, none of them blank. */
  | ({ kind: "paragraphs" } & CountRange)
  /** Parts between blank lines, the first word of one of them. Counted from 1. */
  | { kind: "first-word"; paragraphs: number; paragraph: number; word: string }
  /** Every one occurs somewhere, in any case. */
  | { kind: "keywords"; keywords: readonly string[] }
  /** None occurs as a word, in any case. */
  | { kind: "forbidden"; words: readonly string[] }
  | ({ kind: "keyword-count"; keyword: string } & CountRange)
  /** In any case. */
  | ({ kind: "letter-count"; letter: string } & CountRange)
  | ({ kind: "capital-words" } & CountRange)
  | { kind: "lowercase" }
  | { kind: "uppercase" }
  | { kind: "no-commas" }
  /** Leading blanks and case aside. */
  | { kind: "starts-with"; text: string }
  /** Blanks, quotes around the whole and case aside. */
  | { kind: "ends-with"; text: string }
  /** In double quotes as a whole. */
  | { kind: "quotation" }
  /** `<<title>>` somewhere. */
  | { kind: "title" }
  /** JSON as a whole, in a fence or without. */
  | { kind: "json" }
  /** Lines that begin with `*` or `-`. */
  | ({ kind: "bullets" } & CountRange)
  /** `*highlighted*` or `**highlighted**`. */
  | ({ kind: "highlights" } & CountRange)
  /** `[placeholder]`. */
  | ({ kind: "placeholders" } & CountRange)
  /** Parts that begin with a marker and a number, such as `Section 1`. */
  | ({ kind: "sections"; marker: string } & CountRange)
  /** Ends with a postscript that begins with the marker, such as `P.S.`. */
  | { kind: "postscript"; marker: string }
  /** Two different answers, six asterisks between them. */
  | { kind: "two-responses" }
  /** Contains one of these answers. */
  | { kind: "one-of"; answers: readonly string[] };

type Kind = Constraint["kind"];
type Checks = { readonly [K in Kind]: (text: string, constraint: Extract<Constraint, { kind: K }>) => boolean };

/** Whether an answer meets a constraint. */
export function meetsConstraint(text: string, constraint: Constraint): boolean {
  if (text.trim() === "") return false;
  const check = checks[constraint.kind] as (text: string, constraint: Constraint) => boolean;
  return check(text, constraint);
}

const letters = String.raw`[\p{L}\p{N}_]`;
const boundary = `(?:(?<=${letters})(?!${letters})|(?<!${letters})(?=${letters}))`;

const checks: Checks = {
  words: (text, range) => within(count(text, new RegExp(`${letters}+`, "gu")), range),
  sentences: (text, range) => within(countSentences(text), range),
  paragraphs: (text, range) => {
    const parts = partsBetween(text, /\s?\*\*\*\s?/);
    return parts !== undefined && within(parts.length, range);
  },
  "first-word": (text, { paragraphs, paragraph, word }) => {
    const parts = text.split("\n\n");
    const filled = parts.filter((part) => part.trim() !== "").length;
    // The original counts the filled parts and then looks among all of them.
    return filled === paragraphs && paragraph <= filled && firstWord(parts[paragraph - 1]!) === word.toLowerCase();
  },
  keywords: (text, { keywords }) => keywords.every((keyword) => literal(keyword, "iu").test(text)),
  forbidden: (text, { words }) =>
    !words.some((word) => new RegExp(boundary + escaped(word) + boundary, "iu").test(text)),
  "keyword-count": (text, { keyword, ...range }) => within(count(text, literal(keyword, "giu")), range),
  "letter-count": (text, { letter, ...range }) =>
    within(count(text.toLowerCase(), literal(letter.toLowerCase(), "gu")), range),
  "capital-words": (text, range) => within(tokensOf(text).filter(isUpper).length, range),
  lowercase: (text) => /\p{Ll}/u.test(text) && !/[\p{Lu}\p{Lt}]/u.test(text),
  uppercase: isUpper,
  "no-commas": (text) => !text.includes(","),
  "starts-with": (text, { text: start }) => text.trim().toLowerCase().startsWith(start.trim().toLowerCase()),
  "ends-with": (text, { text: end }) =>
    text
      .trim()
      .replace(/^"+|"+$/g, "")
      .toLowerCase()
      .endsWith(end.trim().toLowerCase()),
  quotation: (text) => /^".*"$/s.test(text.trim()),
  title: (text) => [...text.matchAll(/<<[^\n]+>>/g)].some(([title]) => title.replace(/^<+|>+$/g, "").trim() !== ""),
  json: isJson,
  bullets: (text, range) => within(count(text, /^\s*\*[^*].*$/gm) + count(text, /^\s*-.*$/gm), range),
  highlights: (text, range) => {
    const filled = (pattern: RegExp) =>
      [...text.matchAll(pattern)].filter(([part]) => part.replaceAll("*", "").trim() !== "").length;
    return within(filled(/\*[^\n*]*\*/g) + filled(/\*\*[^\n*]*\*\*/g), range);
  },
  placeholders: (text, range) => within(count(text, /\[.*?\]/g), range),
  sections: (text, { marker, ...range }) =>
    within(text.split(new RegExp(`\\s?${escaped(marker)}\\s?\\d+\\s?`)).length - 1, range),
  postscript: (text, { marker }) => postscriptOf(marker).test(text.toLowerCase()),
  "two-responses": (text) => {
    const parts = partsBetween(text, /\*{6}/);
    return parts?.length === 2 && parts[0]!.trim() !== parts[1]!.trim();
  },
  "one-of": (text, { answers }) => answers.some((answer) => text.includes(answer)),
};

function within(found: number, { min = 0, max = Number.POSITIVE_INFINITY }: CountRange): boolean {
  return found >= min && found <= max;
}

function count(text: string, pattern: RegExp): number {
  return [...text.matchAll(pattern)].length;
}

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}

function literal(text: string, flags: string): RegExp {
  return new RegExp(escaped(text), flags);
}

function isUpper(text: string): boolean {
  return /\p{Lu}/u.test(text) && !/[\p{Ll}\p{Lt}]/u.test(text);
}

/** The parts that are not blank; `undefined` where one between two others is. */
function partsBetween(text: string, divider: RegExp): string[] | undefined {
  const parts = text.split(divider);
  const isBlank = (part: string) => part.trim() === "";
  if (parts.slice(1, -1).some(isBlank)) return undefined;
  return parts.filter((part) => !isBlank(part));
}

function firstWord(paragraph: string): string {
  const [word = ""] = paragraph.trim().split(/\s+/);
  return /^[^.,?!'"]*/.exec(word.replace(/^'+/, "").replace(/^"+/, ""))![0].toLowerCase();
}

/** Words and marks apart, with the full stops and hyphens within words. */
function tokensOf(text: string): string[] {
  return text.match(/[\p{L}\p{N}_][\p{L}\p{N}_.\-/&*]*(?<![.*])|'[\p{L}]+/gu) ?? [];
}

const abbreviations = new Set(
  "mr mrs ms dr prof sr jr st vs etc e.g i.e u.s inc ltd co no vol fig al gen rep sen gov lt col p.s p.p.s".split(" "),
);

/** Text up to a mark that ends a sentence: the mark and a blank behind it, unless it belongs to an abbreviation. */
function countSentences(text: string): number {
  let sentences = 0;
  let start = 0;
  for (const mark of text.matchAll(/[.!?]+["')\]*_”’]*(?=\s|$)/g)) {
    const end = mark.index + mark[0].length;
    if (mark[0].startsWith(".") && !endsSentence(text.slice(start, mark.index), text.slice(end))) continue;
    sentences++;
    start = end;
  }
  return /[\p{L}\p{N}]/u.test(text.slice(start)) ? sentences + 1 : sentences;
}

function endsSentence(before: string, after: string): boolean {
  const word = /[\p{L}\p{N}.]+$/u.exec(before)?.[0].toLowerCase() ?? "";
  // The number of a list's entry, an initial, a known abbreviation, or a sentence that goes on in small letters.
  if (/^\d+$/.test(word) && /(^|\n)\s*[\p{L}\p{N}.]+$/u.test(before)) return after.trim() === "";
  if (/^\p{L}$/u.test(word) && word !== "i") return after.trim() === "";
  if (abbreviations.has(word)) return after.trim() === "";
  return !/^\s+\p{Ll}/u.test(after);
}

function isJson(text: string): boolean {
  const inner = text
    .trim()
    .replace(/^```(json|Json|JSON)?/, "")
    .replace(/```$/, "")
    .trim();
  try {
    JSON.parse(inner);
    return true;
  } catch {
    return false;
  }
}

function postscriptOf(marker: string): RegExp {
  if (marker === "P.P.S") return /\s*p\.\s?p\.\s?s.*$/m;
  if (marker === "P.S.") return /\s*p\.\s?s\..*$/m;
  return new RegExp(`\\s*${escaped(marker.toLowerCase())}.*$`, "m");
}

/** Values of an IFEval entry of `kwargs`. */
type Arguments = Readonly<Record<string, unknown>>;

const fromIfeval: Readonly<Record<string, ((args: Arguments) => Constraint) | undefined>> = {
  "length_constraints:number_words": (a) => ({ kind: "words", ...related(a.relation, a.num_words) }),
  "length_constraints:number_sentences": (a) => ({ kind: "sentences", ...related(a.relation, a.num_sentences) }),
  "length_constraints:number_paragraphs": (a) => ({ kind: "paragraphs", ...exactly(a.num_paragraphs) }),
  "length_constraints:nth_paragraph_first_word": (a) => ({
    kind: "first-word",
    paragraphs: a.num_paragraphs as number,
    paragraph: a.nth_paragraph as number,
    word: a.first_word as string,
  }),
  "keywords:existence": (a) => ({ kind: "keywords", keywords: a.keywords as string[] }),
  "keywords:forbidden_words": (a) => ({ kind: "forbidden", words: a.forbidden_words as string[] }),
  "keywords:frequency": (a) => ({
    kind: "keyword-count",
    keyword: a.keyword as string,
    ...related(a.relation, a.frequency),
  }),
  "keywords:letter_frequency": (a) => ({
    kind: "letter-count",
    letter: a.letter as string,
    ...related(a.let_relation, a.let_frequency),
  }),
  "change_case:capital_word_frequency": (a) => ({
    kind: "capital-words",
    ...related(a.capital_relation, a.capital_frequency),
  }),
  "change_case:english_lowercase": () => ({ kind: "lowercase" }),
  "change_case:english_capital": () => ({ kind: "uppercase" }),
  "punctuation:no_comma": () => ({ kind: "no-commas" }),
  "combination:repeat_prompt": (a) => ({ kind: "starts-with", text: a.prompt_to_repeat as string }),
  "combination:two_responses": () => ({ kind: "two-responses" }),
  "startend:end_checker": (a) => ({ kind: "ends-with", text: a.end_phrase as string }),
  "startend:quotation": () => ({ kind: "quotation" }),
  "detectable_format:title": () => ({ kind: "title" }),
  "detectable_format:json_format": () => ({ kind: "json" }),
  "detectable_format:number_bullet_lists": (a) => ({ kind: "bullets", ...exactly(a.num_bullets) }),
  "detectable_format:number_highlighted_sections": (a) => ({ kind: "highlights", min: a.num_highlights as number }),
  "detectable_format:multiple_sections": (a) => ({
    kind: "sections",
    marker: a.section_spliter as string,
    min: a.num_sections as number,
  }),
  "detectable_format:constrained_response": () => ({
    kind: "one-of",
    answers: ["My answer is yes.", "My answer is no.", "My answer is maybe."],
  }),
  "detectable_content:number_placeholders": (a) => ({ kind: "placeholders", min: a.num_placeholders as number }),
  "detectable_content:postscript": (a) => ({ kind: "postscript", marker: a.postscript_marker as string }),
  // A guess of the language, which no rule can make.
  "language:response_language": undefined,
};

/**
 * The constraint of an IFEval instruction, with or without the prefix `en:`; `undefined` where it needs a guess of the
 * language. @throws EspalierError for an id that IFEval does not have
 */
export function constraintOfInstruction(id: string, args: Arguments): Constraint | undefined {
  const name = id.replace(/^en:/, "");
  if (Object.hasOwn(fromIfeval, name)) return fromIfeval[name]?.(args);
  throw new EspalierError({
    where: "instruction",
    expected: `one of ${Object.keys(fromIfeval).join(", ")}`,
    found: id,
    exitCode: 2,
  });
}

function related(relation: unknown, value: unknown): CountRange {
  return relation === "less than" ? { max: (value as number) - 1 } : { min: value as number };
}

function exactly(value: unknown): CountRange {
  return { min: value as number, max: value as number };
}
