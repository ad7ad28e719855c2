/** @module What a `tokenizer.json` may hold, checked; and what its other files say about special tokens. */
import { checkSchema, EspalierError, z } from "../base/index.js";
import { type AddedToken, endTexts } from "./special-tokens.js";
import { defined, MAX_TOKEN_LENGTH, MAX_TOKENS } from "./vocabulary.js";
import { splitMerge } from "./vocabulary-tokenizer.js";

const step = z.looseObject({ type: z.string() }).nullish();
const tokenId = z.number().int().min(0).max(MAX_TOKENS);

const schema = z.looseObject({
  added_tokens: z
    .array(
      z.looseObject({
        id: tokenId,
        content: z.string().max(MAX_TOKEN_LENGTH),
        special: z.boolean().optional(),
        lstrip: z.boolean().optional(),
        rstrip: z.boolean().optional(),
        single_word: z.boolean().optional(),
        normalized: z.boolean().optional(),
      }),
    )
    .nullish(),
  normalizer: step,
  pre_tokenizer: step,
  post_processor: step,
  decoder: step,
  model: z.looseObject({
    type: z.string().optional(),
    vocab: z.union([
      z.custom<Record<string, unknown>>((value) => isPlainObject(value)),
      z.custom<unknown[]>((value) => Array.isArray(value)),
    ]),
    merges: z.custom<unknown[]>((value) => Array.isArray(value), "expected a list of merges").optional(),
    unk_token: z.string().nullish(),
    continuing_subword_prefix: z.string().nullish(),
    end_of_word_suffix: z.string().nullish(),
    fuse_unk: z.boolean().nullish(),
    byte_fallback: z.boolean().nullish(),
    ignore_merges: z.boolean().nullish(),
  }),
});

export type TokenizerJson = z.output<typeof schema>;

function isPlainObject(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

/** A checked `tokenizer.json`. */
export interface ParsedTokenizerJson {
  json: TokenizerJson;
  /** Tokens of the model and added tokens. */
  ids: Map<string, number>;
  /** Empty for models that do not merge pairs. */
  merges: (readonly [string, string])[];
  isBpe: boolean;
  added: AddedToken[];
}

export function parseTokenizerJson(value: unknown, where: string): ParsedTokenizerJson {
  const json = checkSchema(schema, value, where);
  checkStep(json.normalizer, `${where}: normalizer`);
  checkStep(json.pre_tokenizer, `${where}: pre_tokenizer`);
  checkStep(json.decoder, `${where}: decoder`);
  const { model } = json;
  const type = model.type ?? (model.merges ? "BPE" : undefined);
  const isBpe = type === "BPE" && !model.continuing_subword_prefix && !model.end_of_word_suffix;
  const ids = isBpe ? parseVocab(model.vocab, where) : new Map<string, number>();
  const merges = isBpe ? (model.merges ?? []).map((merge, i) => parseMerge(merge, `${where}: merge ${i}`)) : [];
  const added = (json.added_tokens ?? []).map(({ id, content, special, lstrip, rstrip, single_word }) => ({
    id,
    content,
    special: special ?? false,
    ...defined({ lstrip, rstrip, singleWord: single_word }),
  }));
  for (const { id, content } of added) ids.set(content, id);
  return { json, ids, merges, isBpe, added };
}

function parseVocab(vocab: Record<string, unknown> | unknown[], where: string): Map<string, number> {
  const ids = new Map<string, number>();
  const owner = new Map<number, string>();
  const bad = (expected: string, found: string): never => {
    throw new EspalierError({ where: `${where}: model.vocab`, expected, found, fix: "fetch the file again" });
  };
  if (Array.isArray(vocab)) return bad("a token-to-id table", "a list");
  for (const [token, id] of Object.entries(vocab)) {
    if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id >= MAX_TOKENS) {
      return bad(`ids from 0 to ${MAX_TOKENS - 1}`, `${JSON.stringify(token)}: ${JSON.stringify(id)}`);
    }
    const other = owner.get(id);
    if (other !== undefined)
      bad("one token for an id", `${JSON.stringify(other)} and ${JSON.stringify(token)} at ${id}`);
    if (token.length > MAX_TOKEN_LENGTH) bad(`tokens of at most ${MAX_TOKEN_LENGTH} characters`, `${token.length}`);
    ids.set(token, id);
    owner.set(id, token);
  }
  return ids.size > 0 ? ids : bad("at least one token", "none");
}

function parseMerge(merge: unknown, where: string): readonly [string, string] {
  if (typeof merge === "string") return splitMerge(merge);
  if (Array.isArray(merge) && typeof merge[0] === "string" && typeof merge[1] === "string") return [merge[0], merge[1]];
  throw new EspalierError({
    where,
    expected: "`left right` or [left, right]",
    found: JSON.stringify(merge) ?? "nothing",
  });
}

interface AnyStep {
  type?: unknown;
  pattern?: unknown;
  behavior?: unknown;
  normalizers?: unknown;
  pretokenizers?: unknown;
  decoders?: unknown;
}

const behaviours = ["isolated", "removed"];

/** What the library would pass over in silence: patterns of unknown form and ways of splitting that it lacks. */
function checkStep(value: unknown, where: string): void {
  if (!isPlainObject(value)) return;
  const { type, pattern, behavior, normalizers, pretokenizers, decoders } = value as AnyStep;
  if (type === "Split" || type === "Replace") {
    const { Regex: regex, String: text } = isPlainObject(pattern) ? pattern : {};
    if (typeof regex !== "string" && typeof text !== "string") {
      throw new EspalierError({
        where,
        expected: "a pattern {Regex} or {String}",
        found: JSON.stringify(pattern) ?? "none",
      });
    }
  }
  if (type === "Split" && !behaviours.includes(String(behavior).toLowerCase())) {
    throw new EspalierError({ where, expected: "Split with Isolated or Removed", found: String(behavior) });
  }
  for (const inner of [normalizers, pretokenizers, decoders]) {
    if (!Array.isArray(inner)) continue;
    for (const [i, item] of inner.entries()) checkStep(item, `${where}[${i}]`);
  }
}

/** Start, end and unknown token, and what `encode` puts around a text. */
export interface SpecialTokens {
  bosTokenId?: number;
  eosTokenIds: number[];
  unknownTokenId?: number;
  padTokenId?: number;
  /** Ids before and after a text. */
  prefix: number[];
  suffix: number[];
}

export function resolveSpecialTokens(
  { json, ids, added }: ParsedTokenizerJson,
  config: Record<string, unknown> = {},
  specialTokens: Record<string, unknown> = {},
): SpecialTokens {
  checkSchema(z.looseObject({}), config, "tokenizer_config.json");
  checkSchema(z.looseObject({}), specialTokens, "special_tokens_map.json");
  const named = (key: string): number | undefined => {
    const text = tokenText(config[key]) ?? tokenText(specialTokens[key]);
    return text === undefined ? undefined : ids.get(text);
  };
  const template = templateAround(json.post_processor, ids);
  const bosTokenId = named("bos_token") ?? template?.prefix[0];
  const eos = named("eos_token");
  const control = new Map(added.filter(({ special }) => special).map(({ content, id }) => [content, id]));
  const ends = [eos, ...endTexts.map((text) => control.get(text))].filter((id) => id !== undefined);
  const around = applyConfig(template, config, bosTokenId, eos);
  const unknownTokenId = ids.get(json.model.unk_token ?? "") ?? named("unk_token");
  return {
    ...defined({ bosTokenId, unknownTokenId, padTokenId: named("pad_token") }),
    eosTokenIds: [...new Set(ends)],
    ...around,
  };
}

/** A token of `tokenizer_config.json`: its text, or an object with `content`. */
function tokenText(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  return isPlainObject(value) && typeof value.content === "string" ? value.content : undefined;
}

interface Around {
  prefix: number[];
  suffix: number[];
}

/** Ids that a `TemplateProcessing` (alone or in a sequence) puts around a single text. */
function templateAround(processor: unknown, ids: ReadonlyMap<string, number>): Around | undefined {
  if (!isPlainObject(processor)) return undefined;
  if (Array.isArray(processor.processors)) {
    return processor.processors.map((inner) => templateAround(inner, ids)).find((found) => found !== undefined);
  }
  if (processor.type !== "TemplateProcessing" || !Array.isArray(processor.single)) return undefined;
  const parts: unknown[] = processor.single;
  const at = parts.findIndex((part) => isPlainObject(part) && "Sequence" in part);
  const resolve = (list: unknown[]): number[] =>
    list
      .map((part) => (isPlainObject(part) && isPlainObject(part.SpecialToken) ? part.SpecialToken.id : undefined))
      .map((token) => (typeof token === "string" ? ids.get(token) : undefined))
      .filter((id) => id !== undefined);
  return at < 0 ? undefined : { prefix: resolve(parts.slice(0, at)), suffix: resolve(parts.slice(at + 1)) };
}

/**
 * `add_bos_token` and `add_eos_token` count where no template says otherwise, and always for the Llama classes, which
 * rebuild their template from them.
 */
function applyConfig(
  template: Around | undefined,
  config: Record<string, unknown>,
  bos: number | undefined,
  eos: number | undefined,
): Around {
  const rebuilds = /^(Code)?LlamaTokenizer/.test(String(config.tokenizer_class));
  const pick = (key: string, id: number | undefined, fromTemplate: number[] | undefined): number[] => {
    const flag = config[key];
    if (typeof flag !== "boolean" || (template && !rebuilds)) return fromTemplate ?? [];
    return flag && id !== undefined ? [id] : [];
  };
  return {
    prefix: pick("add_bos_token", bos, template?.prefix),
    suffix: pick("add_eos_token", eos, template?.suffix),
  };
}
