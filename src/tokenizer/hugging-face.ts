/**
 * @module Tokenizers from `tokenizer.json`. Normalising, cutting into words and decoding is the work of
 * `@huggingface/tokenizers`, met here only. Merging is our own: the library's takes 13 s for 1 MB of text without a
 * pre-tokenizer, ours one second.
 */
import { Tokenizer as Library } from "@huggingface/tokenizers";
import { EspalierError, messageOf } from "../base/index.js";
import { createBpe } from "./bpe.js";
import { byteOfToken } from "./byte-alphabet.js";
import { gpt2Regex } from "./pre-tokenizers.js";
import { createSectionSplitter } from "./special-tokens.js";
import { type ParsedTokenizerJson, parseTokenizerJson, resolveSpecialTokens } from "./tokenizer-json.js";
import type { Tokenizer } from "./types.js";
import { defined } from "./vocabulary.js";
import { rankedPairs } from "./vocabulary-tokenizer.js";

export interface HuggingFaceFiles {
  /** Parsed `tokenizer.json`. */
  tokenizer: unknown;
  /** Parsed `tokenizer_config.json`. */
  config?: Record<string, unknown>;
  /** Parsed `special_tokens_map.json`. */
  specialTokens?: Record<string, unknown>;
}

export function createHuggingFaceTokenizer(files: HuggingFaceFiles, where = "tokenizer.json"): Tokenizer {
  const parsed = parseTokenizerJson(files.tokenizer, where);
  const special = resolveSpecialTokens(parsed, files.config, files.specialTokens);
  const library = guarded(where, () => createLibrary(parsed));
  const encodePiece = parsed.isBpe ? ownModel(parsed, special.unknownTokenId, where) : libraryModel(library, parsed);
  const splitter = createSectionSplitter(parsed.added);
  const tokens = tokenList(parsed.ids);
  const control = new Set(parsed.added.filter((token) => token.special).map(({ id }) => id));
  const splitsWords = metaspaceSplits(parsed.json.pre_tokenizer);

  const encodeText = (text: string, sectionIndex: number, out: number[]): void => {
    const normalized = library.normalizer ? library.normalizer(text) : text;
    const pieces: string[] = library.pre_tokenizer
      ? library.pre_tokenizer(normalized, { section_index: sectionIndex })
      : [normalized];
    for (const piece of pieces) {
      if (splitsWords) for (const word of piece.split(/(?=\u2581)/)) encodePiece(word, out);
      else encodePiece(piece, out);
    }
  };

  return {
    vocabSize: tokens.length,
    ...defined({ bosTokenId: special.bosTokenId, unknownTokenId: special.unknownTokenId }),
    eosTokenIds: special.eosTokenIds,
    addBos: special.bosTokenId !== undefined && special.prefix[0] === special.bosTokenId,
    encode: (text, { addSpecial = true, parseSpecial = true } = {}) =>
      guarded(where, () => {
        const out: number[] = addSpecial ? [...special.prefix] : [];
        splitter.split(text, parseSpecial).forEach((section, i) => {
          if ("token" in section) out.push(section.token.id);
          else encodeText(section.text, i, out);
        });
        if (addSpecial) out.push(...special.suffix);
        return out;
      }),
    decode: (ids, { skipSpecial = true } = {}) =>
      guarded(where, () => {
        const kept = Array.from(ids).filter((id) => !(skipSpecial && control.has(id)));
        const named = kept.map((id) => tokens[id] ?? "\ufffd");
        const spelt = parsed.json.model.byte_fallback ? fuseByteTokens(named) : named;
        return library.decoder ? library.decoder(spelt) : spelt.join("");
      }),
    idToToken: (id) => tokens[id],
    tokenToId: (token) => parsed.ids.get(token),
    isSpecial: (id) => control.has(id),
  };
}

/** The library's parts as functions; its own types leave the callable side out. */
interface LibraryParts {
  normalizer: ((text: string) => string) | null;
  pre_tokenizer: ((text: string, options: { section_index: number }) => string[]) | null;
  model: (pieces: string[]) => string[];
  decoder: ((tokens: string[]) => string) | null;
}

function createLibrary({ json, isBpe, added }: ParsedTokenizerJson): LibraryParts {
  // Its own model would index every merge a second time.
  const model = isBpe ? { type: "BPE", vocab: {}, merges: [] } : json.model;
  const steps = {
    normalizer: json.normalizer ?? null,
    pre_tokenizer: preciseStep(json.pre_tokenizer) ?? null,
    post_processor: null,
    decoder: json.decoder ?? null,
  };
  const library = new Library({ ...steps, model, added_tokens: json.added_tokens ?? [] }, {});
  tellAddedTokens(library.decoder, added);
  return library as unknown as LibraryParts;
}

interface DecoderStep {
  added_tokens?: unknown;
  decoders?: DecoderStep[];
}

/** The byte-level decoder spells added tokens as they are; inside a sequence the library forgets to tell it which. */
function tellAddedTokens(decoder: unknown, added: readonly { content: string }[]): void {
  const step = decoder as DecoderStep | null;
  if (!step) return;
  step.added_tokens = added;
  for (const inner of step.decoders ?? []) tellAddedTokens(inner, added);
}

/**
 * The step as the library reads it right: its own byte-level rule takes U+FEFF for white space and U+0085 for none, its
 * digits are ASCII only, and older files say `add_prefix_space: false` where it looks for `prepend_scheme`.
 */
function preciseStep(step: unknown): unknown {
  const { type, pretokenizers, use_regex, individual_digits } = (step ?? {}) as Record<string, unknown>;
  const split = (regex: string): unknown => ({
    type: "Split",
    pattern: { Regex: regex },
    behavior: "Isolated",
    invert: false,
  });
  if (type === "Sequence" && Array.isArray(pretokenizers)) {
    return { type, pretokenizers: pretokenizers.map(preciseStep) };
  }
  if (type === "Digits") return split(individual_digits ? "\\p{N}" : "\\p{N}+");
  if (type === "ByteLevel" && use_regex !== false) {
    // The prefix space goes before the text is cut.
    const prefix = { ...(step as object), use_regex: false };
    const isPrefixed = (step as { add_prefix_space?: unknown }).add_prefix_space === true;
    return isPrefixed ? step : { type: "Sequence", pretokenizers: [split(gpt2Regex), prefix] };
  }
  if (!isMetaspace(step)) return step;
  return step.add_prefix_space === false && step.prepend_scheme === undefined
    ? { ...step, prepend_scheme: "never" }
    : step;
}

interface Metaspace {
  add_prefix_space?: unknown;
  prepend_scheme?: unknown;
  split?: unknown;
}

function isMetaspace(step: unknown): step is Metaspace {
  return (step as { type?: unknown } | null | undefined)?.type === "Metaspace";
}

/** A `Metaspace` step cuts before every `▁` unless told not to; the library never does. */
function metaspaceSplits(step: unknown): boolean {
  const inner = (step as { pretokenizers?: unknown } | null | undefined)?.pretokenizers;
  return Array.isArray(inner) ? inner.some(metaspaceSplits) : isMetaspace(step) && step.split !== false;
}

type EncodePiece = (piece: string, out: number[]) => void;

function ownModel(
  { json, ids, merges }: ParsedTokenizerJson,
  unknownId: number | undefined,
  where: string,
): EncodePiece {
  const { ignore_merges, byte_fallback, fuse_unk } = json.model;
  const bpe = createBpe({
    ids,
    pairs: rankedPairs(merges, ids, where),
    ignoreMerges: ignore_merges ?? false,
    byteFallback: byte_fallback ?? false,
    fuseUnknown: fuse_unk ?? false,
    ...defined({ unknownId }),
  });
  return bpe.encode;
}

/** Unigram, WordPiece and the rest, by the library; their ids are read back from its vocabulary. */
function libraryModel(library: LibraryParts, { ids }: ParsedTokenizerJson): EncodePiece {
  const model = library.model as unknown as { vocab: string[]; unk_token_id?: number };
  model.vocab.forEach((token, id) => {
    if (!ids.has(token)) ids.set(token, id);
  });
  return (piece, out) => {
    for (const token of library.model([piece])) {
      const id = ids.get(token) ?? model.unk_token_id;
      if (id !== undefined) out.push(id);
    }
  };
}

function tokenList(ids: ReadonlyMap<string, number>): (string | undefined)[] {
  let size = 0;
  for (const id of ids.values()) size = Math.max(size, id + 1);
  const tokens = new Array<string | undefined>(size).fill(undefined);
  for (const [token, id] of ids) tokens[id] = token;
  return tokens;
}

/** Runs of byte tokens as text. The library's own step drops U+FEFF. */
function fuseByteTokens(tokens: readonly string[]): string[] {
  const out: string[] = [];
  let run: number[] = [];
  const flush = (): void => {
    if (run.length > 0) out.push(new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(run)));
    run = [];
  };
  for (const token of tokens) {
    const byte = byteOfToken(token);
    if (byte !== undefined) run.push(byte);
    else {
      flush();
      out.push(token);
    }
  }
  flush();
  return out;
}

/** What the library throws names no file and no field. */
function guarded<T>(where: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (cause instanceof EspalierError) throw cause;
    throw new EspalierError({
      where,
      expected: "a tokenizer that can be run",
      found: messageOf(cause),
      fix: "the file is damaged or uses a step that is not supported; fetch it again, or use the GGUF form of the model",
      cause,
    });
  }
}
