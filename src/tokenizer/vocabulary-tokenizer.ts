/** @module Tokenizers from GGUF vocabularies, equal to llama.cpp's own. */
import { EspalierError } from "../base/index.js";
import { type Bpe, createBpe } from "./bpe.js";
import { byteOfToken, decodeBytes, encodeBytes } from "./byte-alphabet.js";
import { createPairTable, type PairTable } from "./merges.js";
import { createWordSplitter, findPreTokenizer } from "./pre-tokenizers.js";
import { type AddedToken, createSectionSplitter, endTexts, type Section } from "./special-tokens.js";
import type { Tokenizer } from "./types.js";
import { defined, tokenTypes, type Vocabulary } from "./vocabulary.js";

/** `▁` stands for the space in scored vocabularies. */
const SPACE = "\u2581";

/** A tokenizer from a vocabulary as GGUF files hold it. */
export function createVocabularyTokenizer(vocabulary: Vocabulary, where = "GGUF vocabulary"): Tokenizer {
  const { tokens, bosTokenId, eosTokenId, unknownTokenId, addBos, addEos } = vocabulary;
  const ids = new Map(tokens.map((token, i) => [token, i]));
  const encodeSection = vocabulary.model === "llama" ? scored(vocabulary, ids) : byteLevel(vocabulary, ids, where);
  const splitter = createSectionSplitter(addedTokens(vocabulary));
  const bytes = tokenBytes(vocabulary);
  const special = (id: number): boolean => isControl(vocabulary.types[id]!);

  return {
    vocabSize: tokens.length,
    ...defined({ bosTokenId, unknownTokenId }),
    eosTokenIds: endTokens(vocabulary, ids),
    addBos: addBos && bosTokenId !== undefined,
    encode(text, { addSpecial = true, parseSpecial = true } = {}) {
      const out: number[] = [];
      if (addSpecial && addBos && bosTokenId !== undefined) out.push(bosTokenId);
      encodeSections(splitter.split(text, parseSpecial), encodeSection, out);
      if (addSpecial && addEos && eosTokenId !== undefined) out.push(eosTokenId);
      return out;
    },
    decode(idList, { skipSpecial = true } = {}) {
      const parts: Uint8Array[] = [];
      for (let i = 0; i < idList.length; i++) {
        const id = idList[i]!;
        if (skipSpecial && special(id)) continue;
        parts.push(bytes[id] ?? REPLACEMENT);
      }
      const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(Buffer.concat(parts));
      return vocabulary.addSpacePrefix && text.startsWith(" ") ? text.slice(1) : text;
    },
    idToToken: (id) => tokens[id],
    tokenToId: (token) => ids.get(token),
    isSpecial: special,
  };
}

const REPLACEMENT = Buffer.from("\ufffd");

function isControl(type: number): boolean {
  return type === tokenTypes.control || type === tokenTypes.unknown;
}

function addedTokens({ tokens, types }: Vocabulary): AddedToken[] {
  const added: AddedToken[] = [];
  tokens.forEach((content, id) => {
    const type = types[id]!;
    if (isControl(type) || type === tokenTypes.userDefined) added.push({ id, content, special: isControl(type) });
  });
  return added;
}

function endTokens({ types, eosTokenId, eotTokenId }: Vocabulary, ids: ReadonlyMap<string, number>): number[] {
  const named = [eosTokenId, eotTokenId, ...endTexts.map((text) => ids.get(text))];
  const found = named.filter((id) => id !== undefined);
  return [...new Set(found)].filter((id) => id === eosTokenId || isControl(types[id]!));
}

type EncodeSection = (text: string, afterToken: boolean, out: number[]) => void;

function encodeSections(sections: readonly Section[], encodeSection: EncodeSection, out: number[]): void {
  let afterToken = true;
  for (const section of sections) {
    if ("token" in section) out.push(section.token.id);
    else encodeSection(section.text, afterToken, out);
    afterToken = "token" in section;
  }
}

function scored(vocabulary: Vocabulary, ids: ReadonlyMap<string, number>): EncodeSection {
  const { pairs, virtual } = scoredPairs(vocabulary.tokens, vocabulary.scores, ids);
  const bpe: Bpe = createBpe({
    ids,
    pairs,
    virtual,
    byteFallback: true,
    ...defined({ unknownId: vocabulary.unknownTokenId }),
  });
  return (text, afterToken, out) => {
    const prefixed = vocabulary.addSpacePrefix && afterToken ? ` ${text}` : text;
    bpe.encode(prefixed.replaceAll(" ", SPACE), out);
  };
}

function byteLevel(vocabulary: Vocabulary, ids: ReadonlyMap<string, number>, where: string): EncodeSection {
  const rule = findPreTokenizer(vocabulary.pre, where);
  const split = createWordSplitter(rule);
  const pairs = rankedPairs(vocabulary.merges.map(splitMerge), ids, where);
  const bpe = createBpe({
    ids,
    pairs,
    ignoreMerges: rule.ignoreMerges,
    ...defined({ unknownId: vocabulary.unknownTokenId }),
  });
  return (text, _afterToken, out) => {
    for (const word of split(text)) bpe.encode(encodeBytes(word), out);
  };
}

/** `left right`; a token may be or begin with a space itself, so the first character is never the separator. */
export function splitMerge(merge: string): readonly [string, string] {
  const at = merge.indexOf(" ", 1);
  return at < 0 ? [merge, ""] : [merge.slice(0, at), merge.slice(at + 1)];
}

/** Pairs of ranked merges, best first. */
export function rankedPairs(
  merges: readonly (readonly [string, string])[],
  ids: ReadonlyMap<string, number>,
  where: string,
): PairTable {
  const pairs = createPairTable(merges.length);
  merges.forEach(([left, right], rank) => {
    const parts = [ids.get(left), ids.get(right), ids.get(left + right)] as const;
    if (parts[0] !== undefined && parts[1] !== undefined && parts[2] !== undefined) {
      pairs.add(parts[0], parts[1], rank, parts[2]);
      return;
    }
    throw new EspalierError({
      where: `${where}: merge ${rank}`,
      expected: "two tokens of the vocabulary that make a third",
      found: `${JSON.stringify(left)} and ${JSON.stringify(right)}`,
      fix: "the vocabulary is damaged; fetch or write it again",
    });
  });
  return pairs;
}

/**
 * Pairs of a scored vocabulary: any two neighbours that together are a token may merge, the highest score first.
 * Equal scores share a rank, so that the leftmost goes first.
 */
export function scoredPairs(
  tokens: readonly string[],
  scores: ArrayLike<number>,
  ids: ReadonlyMap<string, number>,
): { pairs: PairTable; virtual: Map<string, number> } {
  const pairs = createPairTable(tokens.length * 4);
  const virtual = new Map<string, number>();
  const symbolOf = (text: string): number | undefined => {
    const known = ids.get(text) ?? virtual.get(text);
    if (known !== undefined || text.length > 2 || [...text].length !== 1) return known;
    virtual.set(text, tokens.length + virtual.size);
    return virtual.get(text);
  };
  const ranks = scoreRanks(scores, tokens.length);
  tokens.forEach((token, id) => {
    for (const [left, right] of tokenSplits(token)) {
      const [a, b] = [symbolOf(left), symbolOf(right)];
      if (a !== undefined && b !== undefined) pairs.add(a, b, ranks[id]!, id);
    }
  });
  return { pairs, virtual };
}

/** Every way to cut a token in two, whole characters on both sides. */
export function* tokenSplits(token: string): Generator<readonly [string, string]> {
  for (let at = 1; at < token.length; at++) {
    const unit = token.charCodeAt(at);
    const isLowSurrogate = unit >= 0xdc00 && unit <= 0xdfff;
    if (!isLowSurrogate) yield [token.slice(0, at), token.slice(at)];
  }
}

/** 0 for the highest score. */
function scoreRanks(scores: ArrayLike<number>, count: number): Int32Array {
  const distinct = [...new Set(Array.from({ length: count }, (_, i) => scores[i]!))].sort((a, b) => b - a);
  const rankOf = new Map(distinct.map((score, rank) => [score, rank]));
  return Int32Array.from({ length: count }, (_, i) => rankOf.get(scores[i]!)!);
}

/** What each token stands for in bytes. */
function tokenBytes({ model, tokens, types }: Vocabulary): Uint8Array[] {
  const plain = (token: string): Uint8Array =>
    model === "llama" ? Buffer.from(token.replaceAll(SPACE, " ")) : (decodeBytes(token) ?? Buffer.from(token));
  return tokens.map((token, id) => {
    const type = types[id]!;
    if (isControl(type) || type === tokenTypes.userDefined) return Buffer.from(token);
    const byte = type === tokenTypes.byte ? byteOfToken(token) : undefined;
    return byte === undefined ? plain(token) : Uint8Array.of(byte);
  });
}
