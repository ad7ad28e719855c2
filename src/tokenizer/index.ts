export {
  type ChatMessage,
  type ChatTemplate,
  type ChatTemplateSource,
  createChatTemplate,
  type RenderOptions,
  templateDate,
} from "./chat-template.js";
export { createHuggingFaceTokenizer, type HuggingFaceFiles } from "./hugging-face.js";
export { loadTokenizer } from "./load.js";
export { createStreamDecoder, type StreamDecoder } from "./stream.js";
export { type GgufVocabulary, type GgufVocabularyOptions, toGgufVocabulary } from "./to-gguf.js";
export { type TokenizerFiles, type TokenizerFilesOptions, toTokenizerFiles, toTokenizerJson } from "./to-json.js";
export type { DecodeOptions, EncodeOptions, Tokenizer, TokenizerSource } from "./types.js";
export { parseVocabulary, tokenTypes, type Vocabulary } from "./vocabulary.js";
export { createVocabularyTokenizer } from "./vocabulary-tokenizer.js";
