/**
 * @module How byte-level vocabularies cut text into words before merging. GGUF names the rule (`tokenizer.ggml.pre`),
 * `tokenizer.json` spells it out; this table joins the two. Names and rules: llama.cpp `llama-vocab.cpp`; the regular
 * expressions are those of the `tokenizer.json` files that llama.cpp's were made from.
 */
import { EspalierError } from "../base/index.js";

const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
/** What a `ByteLevel` step cuts by when `use_regex` is set. */
export const gpt2Regex = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const llama3 = `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;
const qwen2 = `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;
const upper = "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}";
const lower = "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}";
const cased = (ending: string): string =>
  `[^\\r\\n\\p{L}\\p{N}]?[${upper}]*[${lower}]+${ending}|[^\\r\\n\\p{L}\\p{N}]?[${upper}]+[${lower}]*${ending}`;
const casedTail = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

export interface PreTokenizerRule {
  /** Names that GGUF files give it; the first is the one that we write. */
  names: readonly [string, ...string[]];
  /** Applied one after the other: each match, and each text between two matches, is a word of its own. */
  regexes: readonly string[];
  /** A word that is a token is taken whole. */
  ignoreMerges: boolean;
  /** What llama.cpp takes `add_bos_token` to be when the file does not say. */
  addBos: boolean;
}

const rules: readonly PreTokenizerRule[] = [
  {
    names: ["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"],
    regexes: [llama3],
    ignoreMerges: true,
    addBos: true,
  },
  {
    names: ["smaug-bpe", "dbrx", "glm4", "chatglm-bpe"],
    regexes: [llama3],
    ignoreMerges: false,
    addBos: false,
  },
  {
    names: ["qwen2", "stablelm2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "hunyuan", "solar-open", "grok-2"],
    regexes: [qwen2],
    ignoreMerges: false,
    addBos: false,
  },
  {
    names: ["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
    regexes: ["\\p{N}", gpt2Regex],
    ignoreMerges: false,
    addBos: false,
  },
  {
    names: [
      "gpt-2",
      "phi-2",
      "mpt",
      "olmo",
      "jais",
      "trillion",
      "exaone4",
      "granite-docling",
      "gigachat",
      "a.x-4.0",
      "mellum",
      "modern-bert",
      "roberta-bpe",
      "jina-es",
      "jina-de",
      "jina-v1-en",
      "jina-v2-es",
      "jina-v2-de",
      "jina-v2-code",
    ],
    regexes: [gpt2Regex],
    ignoreMerges: false,
    addBos: false,
  },
  {
    names: ["tekken"],
    regexes: [`${cased("")}|\\p{N}|${casedTail}`],
    ignoreMerges: true,
    addBos: true,
  },
  {
    names: ["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
    regexes: [`${cased(`${contractions}?`)}|\\p{N}{1,3}|${casedTail}`],
    ignoreMerges: false,
    addBos: false,
  },
  {
    names: ["deepseek-coder"],
    regexes: ["[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", "\\p{N}"],
    ignoreMerges: false,
    addBos: false,
  },
  {
    names: ["default"],
    regexes: ["[\\p{P}\\$\\+<=>\\^~\\|]+", gpt2Regex, "\\p{N}+", "[0-9][0-9][0-9]"],
    ignoreMerges: false,
    addBos: false,
  },
];

export function findPreTokenizer(name: string, where: string): PreTokenizerRule {
  const rule = rules.find(({ names }) => names.includes(name));
  if (rule) return rule;
  throw new EspalierError({
    where: `${where}: tokenizer.ggml.pre`,
    expected: `one of ${rules.map(({ names }) => names[0]).join(", ")}`,
    found: JSON.stringify(name),
    fix: "use the Hugging Face form of the model, whose tokenizer.json spells the rule out",
  });
}

/** The rule that a `pre_tokenizer` of `tokenizer.json` follows, by its regular expressions. */
export function matchPreTokenizer(preTokenizer: unknown, ignoreMerges: boolean): PreTokenizerRule | undefined {
  const regexes = regexesOf(preTokenizer);
  if (!regexes) return undefined;
  const same = rules.filter((rule) => rule.regexes.length === regexes.length && rule.regexes.every(equalTo(regexes)));
  return same.find((rule) => rule.ignoreMerges === ignoreMerges) ?? same[0];
}

const equalTo =
  (regexes: readonly string[]) =>
  (regex: string, i: number): boolean =>
    regex === regexes[i];

interface Step {
  type?: unknown;
  pretokenizers?: unknown;
  use_regex?: unknown;
  add_prefix_space?: unknown;
  individual_digits?: unknown;
  pattern?: { Regex?: unknown };
  behavior?: unknown;
}

function regexesOf(preTokenizer: unknown): string[] | undefined {
  const step = (preTokenizer ?? {}) as Step;
  switch (step.type) {
    case "Sequence": {
      const inner = Array.isArray(step.pretokenizers) ? step.pretokenizers.map(regexesOf) : [undefined];
      return inner.every((regexes) => regexes !== undefined) ? inner.flat() : undefined;
    }
    case "ByteLevel":
      if (step.add_prefix_space === true) return undefined;
      return step.use_regex === false ? [] : [gpt2Regex];
    case "Digits":
      return step.individual_digits === true ? ["\\p{N}"] : ["\\p{N}+"];
    case "Split":
      return step.behavior === "Isolated" && typeof step.pattern?.Regex === "string" ? [step.pattern.Regex] : undefined;
    default:
      return undefined;
  }
}

/** `pre_tokenizer` of `tokenizer.json` for a rule. */
export function preTokenizerJson({ regexes }: PreTokenizerRule): unknown {
  const splits = regexes.map((regex) => ({
    type: "Split",
    pattern: { Regex: regex },
    behavior: "Isolated",
    invert: false,
  }));
  const bytes = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  return { type: "Sequence", pretokenizers: [...splits, bytes] };
}

/** Cuts text into words by a rule. */
export function createWordSplitter({ regexes }: PreTokenizerRule): (text: string) => string[] {
  const patterns = regexes.map(compileRegex);
  return (text) => patterns.reduce((words, pattern) => words.flatMap((word) => isolate(word, pattern)), [text]);
}

/**
 * Two departures from the text of the expression: Node 20 has no `(?i:…)`, and JavaScript's `\s` holds U+FEFF and lacks
 * U+0085, unlike the reference tokenizers'.
 */
function compileRegex(source: string): RegExp {
  const plain = source
    .replaceAll(contractions, "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])")
    .replaceAll("\\s", "\\p{White_Space}")
    .replaceAll("\\S", "\\P{White_Space}");
  return new RegExp(plain, "gu");
}

function isolate(text: string, pattern: RegExp): string[] {
  const words: string[] = [];
  let from = 0;
  for (const match of text.matchAll(pattern)) {
    if (match.index > from) words.push(text.slice(from, match.index));
    if (match[0].length > 0) words.push(match[0]);
    from = match.index + match[0].length;
  }
  if (from < text.length) words.push(text.slice(from));
  return words;
}
