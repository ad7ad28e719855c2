import { createHuggingFaceTokenizer } from "./hugging-face.js";
import type { Tokenizer, TokenizerSource } from "./types.js";
import { parseVocabulary } from "./vocabulary.js";
import { createVocabularyTokenizer } from "./vocabulary-tokenizer.js";

/**
 * A tokenizer ready to use.
 *
 * @param where The file it came from, for messages.
 */
export function loadTokenizer(source: TokenizerSource, where?: string): Tokenizer {
  if (source.kind === "hf") return createHuggingFaceTokenizer(source, where);
  return createVocabularyTokenizer(parseVocabulary(source.metadata, where), where);
}
