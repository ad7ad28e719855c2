export { createHuggingFaceTokenizer, type HuggingFaceFiles } from "./hugging-face.js";
export { loadTokenizer } from "./load.js";
export { createStreamDecoder, type StreamDecoder } from "./stream.js";
export type { DecodeOptions, EncodeOptions, Tokenizer, TokenizerSource } from "./types.js";
export { parseVocabulary, tokenTypes, type Vocabulary } from "./vocabulary.js";
export { createVocabularyTokenizer } from "./vocabulary-tokenizer.js";
