/** @module The texts of a run: plain files as they are, conversations in the words of the parent's chat template. */
import { basename } from "node:path";
import { EspalierError, type OnEvent } from "../base/index.js";
import { isConversationFile, readChatDocuments, readDocuments } from "../data/index.js";
import { chatTemplateOf, type Model } from "../models/index.js";
import type { Tokenizer } from "../tokenizer/index.js";

export interface SourceText {
  path: string;
  /** What the report calls text of this file. */
  kind: string;
  documents: string[];
  /** Documents are conversations with the template's special tokens. */
  chat: boolean;
}

/** @throws EspalierError for conversations given to a parent without a chat template */
export async function readSource(path: string, parent: Model, tokenizer: Tokenizer): Promise<SourceText> {
  const kind = basename(path).replace(/(\.[a-z]{1,5})+$/i, "");
  if (!isConversationFile(path)) return { path, kind, documents: await readDocuments(path), chat: false };
  if (parent.sidecars.chatTemplate === undefined) throw withoutTemplate(path, parent);
  const documents = await readChatDocuments(path, chatTemplateOf(parent, tokenizer));
  return { path, kind: `chat (${kind})`, documents, chat: true };
}

function withoutTemplate(path: string, { path: parent }: Model): EspalierError {
  return new EspalierError({
    where: path,
    expected: `a chat template in ${parent}, to write conversations as the model was trained on them`,
    found: "a model without one",
    fix: "name plain text for a base model, or add chat_template.jinja to the model's directory",
    exitCode: 2,
  });
}

/** Says so when a chat model is about to be judged on text that has no conversations in it. */
export function noticeMissingChat({ sidecars }: Model, paths: readonly string[], onEvent: OnEvent): void {
  if (sidecars.chatTemplate === undefined || paths.some(isConversationFile)) return;
  onEvent({
    event: "notice",
    level: "warning",
    message:
      "the parent is a chat model and no conversations were named: name some with --text FILE.jsonl, or its answers count for nothing",
  });
}
