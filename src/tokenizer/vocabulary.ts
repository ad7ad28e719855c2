/** @module The vocabulary of a GGUF header (`tokenizer.*` keys), checked, with llama.cpp's defaults filled in. */
import { checkSchema, EspalierError, z } from "../base/index.js";
import { findPreTokenizer } from "./pre-tokenizers.js";
import { endTexts } from "./special-tokens.js";

/** `tokenizer.ggml.token_type`. */
export const tokenTypes = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

export interface Vocabulary {
  /** `llama`: scored tokens (SentencePiece); `gpt2`: byte-level merges. */
  model: "llama" | "gpt2";
  /** Rule that cuts byte-level text into words; `default` for `llama`. */
  pre: string;
  tokens: readonly string[];
  /** Higher merges first. Zero where the file has none. */
  scores: ArrayLike<number>;
  types: ArrayLike<number>;
  /** `left right`, best first. */
  merges: readonly string[];
  bosTokenId?: number;
  eosTokenId?: number;
  eotTokenId?: number;
  unknownTokenId?: number;
  padTokenId?: number;
  addBos: boolean;
  addEos: boolean;
  /** A space goes before the text and after every control token (`llama` only). */
  addSpacePrefix: boolean;
  chatTemplate?: string;
}

/** Beyond every vocabulary in use by a factor of four; a table of more is a damaged file. */
export const MAX_TOKENS = 1 << 20;
export const MAX_TOKEN_LENGTH = 1 << 10;

const numbers = z.custom<ArrayLike<number>>(
  (value) => ArrayBuffer.isView(value) || (Array.isArray(value) && value.every((item) => typeof item === "number")),
  "expected an array of numbers",
);
const strings = z.custom<readonly string[]>(
  (value) => Array.isArray(value) && value.every((item) => typeof item === "string"),
  "expected an array of strings",
);
const id = z
  .union([z.number(), z.bigint()])
  .transform(Number)
  .pipe(
    z
      .number()
      .int()
      .min(0)
      .max(2 ** 32 - 1),
  );

const header = z.object({
  "tokenizer.ggml.model": z.enum(["llama", "gpt2"], {
    error: ({ input }) => `expected llama (SentencePiece-style) or gpt2 (byte-level), found ${JSON.stringify(input)}`,
  }),
  "tokenizer.ggml.pre": z.string().optional(),
  "tokenizer.ggml.tokens": strings,
  "tokenizer.ggml.scores": numbers.optional(),
  "tokenizer.ggml.token_type": numbers.optional(),
  "tokenizer.ggml.merges": strings.optional(),
  "tokenizer.ggml.bos_token_id": id.optional(),
  "tokenizer.ggml.eos_token_id": id.optional(),
  "tokenizer.ggml.eot_token_id": id.optional(),
  "tokenizer.ggml.unknown_token_id": id.optional(),
  "tokenizer.ggml.padding_token_id": id.optional(),
  "tokenizer.ggml.add_bos_token": z.boolean().optional(),
  "tokenizer.ggml.add_eos_token": z.boolean().optional(),
  "tokenizer.ggml.add_space_prefix": z.boolean().optional(),
  "tokenizer.chat_template": z.string().optional(),
});

/**
 * Reads the `tokenizer.*` keys of a GGUF header.
 *
 * @param where The file, for messages.
 */
export function parseVocabulary(metadata: Readonly<Record<string, unknown>>, where = "GGUF vocabulary"): Vocabulary {
  const keys = checkSchema(header, metadata, where);
  const model = keys["tokenizer.ggml.model"];
  const tokens = keys["tokenizer.ggml.tokens"].map((token, i) => (token === "" ? `[EMPTY_${i}]` : token));
  checkTokens(tokens, where);
  const scores = perToken(keys["tokenizer.ggml.scores"], tokens.length, "scores", where);
  const types = perToken(keys["tokenizer.ggml.token_type"], tokens.length, "token_type", where);
  const pre = keys["tokenizer.ggml.pre"] ?? "default";
  const isScored = model === "llama";
  const rule = isScored ? undefined : findPreTokenizer(pre, where);
  const tokenId = (value: number | undefined, fallback?: number): number | undefined =>
    [value, fallback].find((candidate) => candidate !== undefined && candidate < tokens.length);
  return {
    model,
    pre: isScored ? "default" : pre,
    tokens,
    scores: scores ?? new Float32Array(tokens.length),
    types: correctTypes(types ?? new Int32Array(tokens.length).fill(tokenTypes.normal), tokens),
    merges: checkMerges(keys["tokenizer.ggml.merges"], isScored, where),
    ...defined({
      bosTokenId: tokenId(keys["tokenizer.ggml.bos_token_id"], isScored ? 1 : undefined),
      eosTokenId: tokenId(keys["tokenizer.ggml.eos_token_id"], isScored ? 2 : undefined),
      eotTokenId: tokenId(keys["tokenizer.ggml.eot_token_id"]),
      unknownTokenId: tokenId(keys["tokenizer.ggml.unknown_token_id"], isScored ? 0 : undefined),
      padTokenId: tokenId(keys["tokenizer.ggml.padding_token_id"]),
      chatTemplate: keys["tokenizer.chat_template"],
    }),
    addBos: keys["tokenizer.ggml.add_bos_token"] ?? rule?.addBos ?? true,
    addEos: keys["tokenizer.ggml.add_eos_token"] ?? false,
    addSpacePrefix: isScored && (keys["tokenizer.ggml.add_space_prefix"] ?? true),
  };
}

/** The fields that have a value: `exactOptionalPropertyTypes` tells a missing one from `undefined`. */
export function defined<T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}

function checkTokens(tokens: readonly string[], where: string): void {
  if (tokens.length === 0 || tokens.length > MAX_TOKENS) {
    throw new EspalierError({
      where: `${where}: tokenizer.ggml.tokens`,
      expected: `1 to ${MAX_TOKENS} tokens`,
      found: `${tokens.length}`,
    });
  }
  const seen = new Map<string, number>();
  tokens.forEach((token, i) => {
    const before = seen.get(token);
    if (before !== undefined || token.length > MAX_TOKEN_LENGTH) {
      throw new EspalierError({
        where: `${where}: tokenizer.ggml.tokens`,
        expected: `different tokens of at most ${MAX_TOKEN_LENGTH} characters`,
        found: before !== undefined ? `tokens ${before} and ${i} alike` : `token ${i} of ${token.length} characters`,
        fix: "the file is damaged; fetch or write it again",
      });
    }
    seen.set(token, i);
  });
}

function perToken(
  values: ArrayLike<number> | undefined,
  count: number,
  name: string,
  where: string,
): ArrayLike<number> | undefined {
  if (!values || (values.length >= count && !Array.prototype.some.call(values, Number.isNaN))) return values;
  throw new EspalierError({
    where: `${where}: tokenizer.ggml.${name}`,
    expected: `${count} numbers, one for each token`,
    found: values.length < count ? `${values.length}` : "NaN",
    fix: "the file is damaged; fetch or write it again",
  });
}

function checkMerges(merges: readonly string[] | undefined, isScored: boolean, where: string): readonly string[] {
  if (isScored) return [];
  if (merges && merges.length <= 2 * MAX_TOKENS) return merges;
  throw new EspalierError({
    where: `${where}: tokenizer.ggml.merges`,
    expected: "a list of merges, which a gpt2 vocabulary needs",
    found: merges ? `${merges.length} entries` : "no such key",
    fix: "convert the model again with a current converter",
  });
}

/** A token that looks like an end of turn is one, whatever its type says (llama.cpp does the same). */
function correctTypes(types: ArrayLike<number>, tokens: readonly string[]): Int32Array {
  const ends = new Set(endTexts);
  return Int32Array.from(tokens, (token, i) =>
    ends.has(token) && types[i] !== tokenTypes.unknown ? tokenTypes.control : types[i]!,
  );
}
