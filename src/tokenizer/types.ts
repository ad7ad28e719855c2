/** Where a tokenizer comes from: parsed `tokenizer.json`, or the `tokenizer.*` keys of a GGUF header. */
export type TokenizerSource =
  | {
      kind: "hf";
      /** Parsed `tokenizer.json`. */
      tokenizer: unknown;
      /** Parsed `tokenizer_config.json`. */
      config?: Record<string, unknown>;
      /** Parsed `special_tokens_map.json`. */
      specialTokens?: Record<string, unknown>;
    }
  | {
      kind: "gguf";
      /** Every `tokenizer.*` key of the header, arrays as plain or typed arrays. */
      metadata: Readonly<Record<string, unknown>>;
    };

export interface EncodeOptions {
  /** Put the vocabulary's start (and end) token around the text where it asks for them. Defaults to true. */
  addSpecial?: boolean;
  /** Read `<|im_start|>` and the like in the text as tokens; false takes them as plain text. Defaults to true. */
  parseSpecial?: boolean;
}

export interface DecodeOptions {
  /** Leave control tokens (start, end, chat marks) out of the text. Defaults to true. */
  skipSpecial?: boolean;
}

/** Text to ids and back. */
export interface Tokenizer {
  /** One more than the largest id. A model's table may have more rows than that. */
  readonly vocabSize: number;
  readonly bosTokenId?: number;
  /** Ids that end a text or a turn, the vocabulary's own end token first. */
  readonly eosTokenIds: readonly number[];
  readonly unknownTokenId?: number;
  /** `encode` puts the start token first unless `addSpecial` is false. */
  readonly addBos: boolean;
  encode(text: string, options?: EncodeOptions): number[];
  /** Incomplete UTF-8, and an id that has no token, become U+FFFD. */
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string;
  /** The token as the vocabulary spells it (`Ġthe`, `▁the`, `<0x0A>`). */
  idToToken(id: number): string | undefined;
  tokenToId(token: string): number | undefined;
  /** Control tokens, which `decode` leaves out. */
  isSpecial(id: number): boolean;
}
