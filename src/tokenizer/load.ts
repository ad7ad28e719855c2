import { EspalierError } from "../base/index.js";
import { createHuggingFaceTokenizer } from "./hugging-face.js";
import type { Tokenizer, TokenizerSource } from "./types.js";
import { parseVocabulary } from "./vocabulary.js";
import { createVocabularyTokenizer } from "./vocabulary-tokenizer.js";

/**
 * A tokenizer ready to use.
 *
 * @param source `sidecars.tokenizer` of a model, which is undefined where the model came without one
 * @param where The file it came from, for messages.
 * @throws EspalierError when there is none, or it is damaged or of an unknown kind
 */
export function loadTokenizer(source: TokenizerSource | undefined, where?: string): Tokenizer {
  if (!source) throw noTokenizer(where);
  if (source.kind === "hf") return createHuggingFaceTokenizer(source, where);
  return createVocabularyTokenizer(parseVocabulary(source.metadata, where), where);
}

function noTokenizer(where = "model"): EspalierError {
  return new EspalierError({
    where,
    expected: "a tokenizer (tokenizer.json, or the vocabulary of a .gguf file)",
    found: "none",
    fix: "put the tokenizer.json of the model beside its weights",
  });
}
