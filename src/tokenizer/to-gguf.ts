/** @module Any tokenizer as the `tokenizer.*` keys of a GGUF header. */
import { EspalierError } from "../base/index.js";
import { byteOfToken } from "./byte-alphabet.js";
import { matchPreTokenizer } from "./pre-tokenizers.js";
import {
  type ParsedTokenizerJson,
  parseTokenizerJson,
  resolveSpecialTokens,
  type SpecialTokens,
} from "./tokenizer-json.js";
import type { TokenizerSource } from "./types.js";
import { defined, tokenTypes } from "./vocabulary.js";
import { tokenSplits } from "./vocabulary-tokenizer.js";

export interface GgufVocabulary {
  /**
   * Keys and values for the header: texts, booleans, ids (`uint32`), `string[]` (tokens, merges), `Float32Array`
   * (scores) and `Int32Array` (token types).
   */
  metadata: Record<string, string | number | boolean | string[] | Float32Array | Int32Array>;
  /** What a reader of the file should know. Empty when llama.cpp will cut every text as the original does. */
  notices: string[];
}

export interface GgufVocabularyOptions {
  /** Rows of the model's embedding table: missing tokens are filled in as unused. Defaults to the tokenizer's own size. */
  vocabSize?: number;
  chatTemplate?: string;
  /** The file it came from, for messages. */
  where?: string;
}

/** A vocabulary that came from a GGUF file goes back as it was. */
export function toGgufVocabulary(source: TokenizerSource, options: GgufVocabularyOptions = {}): GgufVocabulary {
  const { chatTemplate, where = "tokenizer.json" } = options;
  const template = chatTemplate === undefined ? {} : { "tokenizer.chat_template": chatTemplate };
  if (source.kind === "gguf") {
    return { metadata: { ...(source.metadata as GgufVocabulary["metadata"]), ...template }, notices: [] };
  }
  const parsed = parseTokenizerJson(source.tokenizer, where);
  const special = resolveSpecialTokens(parsed, source.config, source.specialTokens);
  const table = tokenTable(parsed, special, options.vocabSize, where);
  const body = isByteLevel(parsed) ? byteLevelKeys(parsed, where) : scoredKeys(parsed, table, where);
  return {
    metadata: {
      ...body.metadata,
      "tokenizer.ggml.tokens": table.tokens,
      "tokenizer.ggml.token_type": table.types,
      ...specialKeys(special),
      ...template,
    },
    notices: body.notices,
  };
}

interface TokenTable {
  tokens: string[];
  types: Int32Array;
}

/** Every row has a token: holes and rows beyond the tokenizer get a name that no text contains. */
function tokenTable(
  { ids, added, json }: ParsedTokenizerJson,
  { unknownTokenId }: SpecialTokens,
  vocabSize: number | undefined,
  where: string,
): TokenTable {
  let size = vocabSize ?? 0;
  for (const [token, id] of ids) {
    if (vocabSize === undefined) size = Math.max(size, id + 1);
    else if (id >= vocabSize) throw tooManyTokens(token, id, vocabSize, where);
  }
  const tokens = Array.from({ length: size }, (_, id) => `[PAD${id}]`);
  const types = new Int32Array(size).fill(tokenTypes.unused);
  for (const [token, id] of ids) {
    tokens[id] = token;
    const isByte = json.model.byte_fallback === true && byteOfToken(token) !== undefined;
    types[id] = isByte ? tokenTypes.byte : tokenTypes.normal;
  }
  for (const { id, special } of added) types[id] = special ? tokenTypes.control : tokenTypes.userDefined;
  if (unknownTokenId !== undefined && json.model.byte_fallback === true) types[unknownTokenId] = tokenTypes.unknown;
  return { tokens, types };
}

function tooManyTokens(token: string, id: number, vocabSize: number, where: string): EspalierError {
  return new EspalierError({
    where,
    expected: `ids below the ${vocabSize} rows of the embedding table`,
    found: `${JSON.stringify(token)} at ${id}`,
    fix: "the tokenizer belongs to another model",
  });
}

/** Merges over the byte alphabet, as in GPT-2. */
export function isByteLevel({ json }: ParsedTokenizerJson): boolean {
  return JSON.stringify([json.pre_tokenizer, json.decoder]).includes('"ByteLevel"');
}

type Body = Pick<GgufVocabulary, "metadata" | "notices">;

function byteLevelKeys(parsed: ParsedTokenizerJson, where: string): Body {
  const { model, normalizer, pre_tokenizer: preTokenizer } = parsed.json;
  const ignoreMerges = model.ignore_merges ?? false;
  const rule = matchPreTokenizer(preTokenizer, ignoreMerges);
  if (!parsed.isBpe) throw notInGguf(`${where}: model`, model.type);
  if (!rule) throw notInGguf(`${where}: pre_tokenizer`, preTokenizer);
  if (normalizer && normalizer.type !== "NFC") throw notInGguf(`${where}: normalizer`, normalizer);
  const notices = [];
  if (normalizer) notices.push("llama.cpp does not bring text to Unicode form NFC first, as the original does.");
  if (rule.ignoreMerges !== ignoreMerges) {
    notices.push(
      `llama.cpp's rule ${rule.names[0]} ${rule.ignoreMerges ? "takes" : "does not take"} whole words as tokens before merging; the original differs, so rare words may be cut otherwise.`,
    );
  }
  return {
    metadata: {
      "tokenizer.ggml.model": "gpt2",
      "tokenizer.ggml.pre": rule.names[0],
      "tokenizer.ggml.merges": parsed.merges.map(([left, right]) => `${left} ${right}`),
    },
    notices,
  };
}

function notInGguf(where: string, found: unknown): EspalierError {
  return new EspalierError({
    where,
    expected:
      "a vocabulary of a kind that GGUF holds: byte-level merges cut by a rule it has a name for, or merges with `▁` for the space",
    found: (JSON.stringify(found) ?? "none").slice(0, 200),
    fix: "export this model in the Hugging Face layout (`--format hf`)",
  });
}

function scoredKeys(parsed: ParsedTokenizerJson, table: TokenTable, where: string): Body {
  const { normalizer, pre_tokenizer: preTokenizer } = parsed.json;
  const steps = JSON.stringify([normalizer, preTokenizer]);
  if (!parsed.isBpe || !steps.includes("\u2581")) throw notInGguf(`${where}: model`, parsed.json.model.type);
  return {
    metadata: {
      "tokenizer.ggml.model": "llama",
      "tokenizer.ggml.pre": "default",
      "tokenizer.ggml.scores": mergeScores(parsed, table),
      "tokenizer.ggml.add_space_prefix": addsSpacePrefix(normalizer, preTokenizer),
    },
    notices: scoredNotices(parsed, table),
  };
}

/** A token is as good as the first merge that makes it; what no merge makes comes after all that some merge makes. */
function mergeScores({ ids, merges }: ParsedTokenizerJson, { tokens }: TokenTable): Float32Array {
  const scores = new Float32Array(tokens.length).fill(-merges.length);
  const seen = new Set<number>();
  merges.forEach(([left, right], rank) => {
    const id = ids.get(left + right);
    if (id === undefined || seen.has(id)) return;
    seen.add(id);
    scores[id] = -rank;
  });
  return scores;
}

function addsSpacePrefix(...steps: unknown[]): boolean {
  const flat = steps.flatMap(flatten);
  return flat.some(
    (step) =>
      (step.type === "Prepend" && step.prepend === "\u2581") ||
      (step.type === "Metaspace" && step.prepend_scheme !== "never" && step.add_prefix_space !== false),
  );
}

interface Step {
  type?: unknown;
  prepend?: unknown;
  prepend_scheme?: unknown;
  add_prefix_space?: unknown;
  normalizers?: unknown;
  pretokenizers?: unknown;
}

function flatten(step: unknown): Step[] {
  if (step === null || typeof step !== "object") return [];
  const { normalizers, pretokenizers } = step as Step;
  const inner = [normalizers, pretokenizers].filter((list) => Array.isArray(list)).flat();
  return [step as Step, ...inner.flatMap(flatten)];
}

/**
 * llama.cpp merges any two neighbours that together are a token; `tokenizer.json` only those that it lists. The two cut
 * alike when every way to put a token together is listed, as in vocabularies that came from SentencePiece.
 */
function scoredNotices({ ids, merges }: ParsedTokenizerJson, { tokens, types }: TokenTable): string[] {
  const listed = new Set(merges.map(([left, right]) => `${left} ${right}`));
  const missing = tokens.filter(
    (token, id) =>
      types[id] === tokenTypes.normal &&
      [...tokenSplits(token)].some(
        ([left, right]) => ids.has(left) && ids.has(right) && !listed.has(`${left} ${right}`),
      ),
  ).length;
  const notices = [];
  if (missing > 0) {
    notices.push(
      `The merges do not list every way to put ${missing} of ${tokens.length} tokens together, as llama.cpp assumes: it may cut some text otherwise. Ids, and so logits, are not affected.`,
    );
  }
  if (!types.includes(tokenTypes.byte)) {
    notices.push("The vocabulary has no byte tokens: llama.cpp cannot read text with characters outside it.");
  }
  return notices;
}

function specialKeys({
  bosTokenId,
  eosTokenIds,
  unknownTokenId,
  padTokenId,
  prefix,
  suffix,
}: SpecialTokens): Record<string, number | boolean> {
  return {
    ...defined({
      "tokenizer.ggml.bos_token_id": bosTokenId,
      "tokenizer.ggml.eos_token_id": eosTokenIds[0],
      "tokenizer.ggml.unknown_token_id": unknownTokenId,
      "tokenizer.ggml.padding_token_id": padTokenId,
    }),
    "tokenizer.ggml.add_bos_token": bosTokenId !== undefined && prefix[0] === bosTokenId,
    "tokenizer.ggml.add_eos_token": eosTokenIds[0] !== undefined && suffix[0] === eosTokenIds[0],
  };
}
