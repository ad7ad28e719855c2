/** @module A GGUF vocabulary as the tokenizer files of a Hugging Face directory. */
import { findPreTokenizer, preTokenizerJson } from "./pre-tokenizers.js";
import type { TokenizerSource } from "./types.js";
import { defined, parseVocabulary, tokenTypes, type Vocabulary } from "./vocabulary.js";
import { splitMerge, tokenSplits } from "./vocabulary-tokenizer.js";

/** Contents of `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`. */
export interface TokenizerFiles {
  tokenizer: unknown;
  config: Record<string, unknown>;
  specialTokens: Record<string, unknown>;
}

export interface TokenizerFilesOptions {
  chatTemplate?: string;
  /** `model_max_length`, in tokens. */
  maxLength?: number;
  /** The file it came from, for messages. */
  where?: string;
}

/** Files that came from a Hugging Face directory go back as they were. */
export function toTokenizerFiles(source: TokenizerSource, options: TokenizerFilesOptions = {}): TokenizerFiles {
  const { chatTemplate, maxLength, where = "GGUF vocabulary" } = options;
  const template = defined({ chat_template: chatTemplate });
  if (source.kind === "hf") {
    const { tokenizer, config = {}, specialTokens = {} } = source;
    return { tokenizer, config: { ...config, ...template }, specialTokens };
  }
  const vocabulary = parseVocabulary(source.metadata, where);
  const texts = specialTexts(vocabulary);
  return {
    tokenizer: toTokenizerJson(vocabulary, where),
    config: {
      tokenizer_class: "PreTrainedTokenizerFast",
      ...texts,
      add_bos_token: vocabulary.addBos,
      add_eos_token: vocabulary.addEos,
      clean_up_tokenization_spaces: false,
      ...defined({ model_max_length: maxLength, chat_template: chatTemplate ?? vocabulary.chatTemplate }),
    },
    specialTokens: texts,
  };
}

function specialTexts(vocabulary: Vocabulary): Record<string, string> {
  const { tokens, bosTokenId, eosTokenId, unknownTokenId, padTokenId } = vocabulary;
  const text = (id: number | undefined): string | undefined => (id === undefined ? undefined : tokens[id]);
  return defined({
    bos_token: text(bosTokenId),
    eos_token: text(eosTokenId),
    unk_token: text(unknownTokenId),
    pad_token: text(padTokenId),
  });
}

/** `tokenizer.json` of a vocabulary. */
export function toTokenizerJson(vocabulary: Vocabulary, where = "GGUF vocabulary"): unknown {
  const steps = vocabulary.model === "llama" ? scoredSteps(vocabulary) : byteLevelSteps(vocabulary, where);
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: addedTokens(vocabulary),
    normalizer: null,
    pre_tokenizer: null,
    post_processor: postProcessor(vocabulary),
    ...steps,
  };
}

function addedTokens({ tokens, types }: Vocabulary): unknown[] {
  const kinds: readonly number[] = [tokenTypes.control, tokenTypes.unknown, tokenTypes.userDefined];
  return tokens
    .map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: types[id] !== tokenTypes.userDefined,
    }))
    .filter(({ id }) => kinds.includes(types[id]!));
}

/** Puts the start and end token around a text. */
function postProcessor(vocabulary: Vocabulary): unknown {
  const { tokens, addBos, addEos, bosTokenId, eosTokenId } = vocabulary;
  const before = addBos && bosTokenId !== undefined ? [bosTokenId] : [];
  const after = addEos && eosTokenId !== undefined ? [eosTokenId] : [];
  const around = [...before, ...after];
  if (around.length === 0) return null;
  const side = (name: string, type_id: number): unknown[] => [
    ...before.map((id) => ({ SpecialToken: { id: tokens[id], type_id } })),
    { Sequence: { id: name, type_id } },
    ...after.map((id) => ({ SpecialToken: { id: tokens[id], type_id } })),
  ];
  return {
    type: "TemplateProcessing",
    single: side("A", 0),
    pair: [...side("A", 0), ...side("B", 1)],
    special_tokens: Object.fromEntries(
      around.map((id) => [tokens[id], { id: tokens[id], ids: [id], tokens: [tokens[id]] }]),
    ),
  };
}

const bpe = {
  type: "BPE",
  dropout: null,
  unk_token: null,
  continuing_subword_prefix: null,
  end_of_word_suffix: null,
  fuse_unk: false,
  byte_fallback: false,
  ignore_merges: false,
};

/** A table without a prototype: a vocabulary may well hold `__proto__`. */
function vocab(tokens: readonly string[]): Record<string, number> {
  const table = Object.create(null) as Record<string, number>;
  tokens.forEach((token, id) => {
    table[token] = id;
  });
  return table;
}

/** `left right`, which every version of the reference reads; pairs only where a space in a token makes that ambiguous. */
function mergesJson(merges: readonly (readonly [string, string])[]): unknown[] {
  const hasSpace = merges.some(([left, right]) => left.includes(" ") || right.includes(" "));
  return hasSpace ? [...merges] : merges.map(([left, right]) => `${left} ${right}`);
}

function byteLevelSteps({ pre, tokens, merges }: Vocabulary, where: string): object {
  const rule = findPreTokenizer(pre, where);
  return {
    pre_tokenizer: preTokenizerJson(rule),
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      ...bpe,
      ignore_merges: rule.ignoreMerges,
      vocab: vocab(tokens),
      merges: mergesJson(merges.map(splitMerge)),
    },
  };
}

function scoredSteps(vocabulary: Vocabulary): object {
  const { tokens, unknownTokenId, addSpacePrefix } = vocabulary;
  const space = { type: "Replace", pattern: { String: " " }, content: "\u2581" };
  const prefix = addSpacePrefix ? [{ type: "Prepend", prepend: "\u2581" }] : [];
  const strip = addSpacePrefix ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : [];
  return {
    normalizer: { type: "Sequence", normalizers: [...prefix, space] },
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "\u2581" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        ...strip,
      ],
    },
    model: {
      ...bpe,
      unk_token: unknownTokenId === undefined ? null : tokens[unknownTokenId],
      fuse_unk: true,
      byte_fallback: true,
      vocab: vocab(tokens),
      merges: mergesJson(scoredMerges(vocabulary)),
    },
  };
}

/**
 * Every way to put a token together from two others, the highest score first (as Hugging Face's converter orders them).
 *
 * Departure from scored merging: among tokens of equal score the lower id goes first, not the leftmost pair. Llama 2's
 * runs of spaces have equal scores and are cut the same way all the same, as every length up to 16 is a token.
 */
export function scoredMerges({ tokens, scores }: Vocabulary): [string, string][] {
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const merges: { id: number; left: string; right: string }[] = [];
  tokens.forEach((token, id) => {
    for (const [left, right] of tokenSplits(token)) {
      if (ids.has(left) && ids.has(right)) merges.push({ id, left, right });
    }
  });
  const byIds = (a: { left: string; right: string }, b: { left: string; right: string }): number =>
    ids.get(a.left)! - ids.get(b.left)! || ids.get(a.right)! - ids.get(b.right)!;
  merges.sort((a, b) => scores[b.id]! - scores[a.id]! || a.id - b.id || byIds(a, b));
  return merges.map(({ left, right }) => [left, right]);
}
