import { type ChatTemplate, createChatTemplate, type Tokenizer } from "../tokenizer/index.js";
import type { Model } from "./config.js";

/**
 * The model's own chat template with its start and end tokens.
 * @throws EspalierError where it has none: a base model
 */
export function chatTemplateOf(
  { sidecars, path }: Pick<Model, "sidecars" | "path">,
  tokenizer: Tokenizer,
): ChatTemplate {
  const token = (id: number | undefined) => (id === undefined ? "" : (tokenizer.idToToken(id) ?? ""));
  const source = {
    template: sidecars.chatTemplate,
    bosToken: token(tokenizer.bosTokenId),
    eosToken: token(tokenizer.eosTokenIds[0]),
  };
  return createChatTemplate(source, path);
}
