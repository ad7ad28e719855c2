/** @module Text as token ids in llama.cpp's own tokenizer: a part for choosing, and a part set aside for measuring. */
import { EspalierError } from "../base/index.js";
import { isConversationFile, readChatDocuments, readDocuments } from "../data/index.js";
import { type GgufMetadata, openGgufFile } from "../formats/index.js";
import { createLlamaCpp } from "../llamacpp/index.js";
import { createChatTemplate } from "../tokenizer/index.js";

export interface SequenceRequest {
  /** Text files and `.jsonl` of conversations, dealt out alike. */
  texts: readonly string[];
  /** Tokens of a sequence. */
  length: number;
  /** Sequences asked for; fewer where the text is short, at least one each. */
  choosing: number;
  measuring: number;
  signal?: AbortSignal;
}

export interface TokenSequences {
  choosing: number[][];
  measuring: number[][];
}

/** Sequences start with the start token where the vocabulary asks for one. Every other document is set aside. */
export async function readSequences(gguf: string, request: SequenceRequest): Promise<TokenSequences> {
  const file = await openGgufFile(gguf);
  const { metadata } = file;
  await file.close();
  const llama = createLlamaCpp({ threads: 1 });
  const { length, choosing, measuring, signal } = request;
  try {
    const parts: number[][][] = [[], []];
    for (const path of request.texts) {
      const special = isConversationFile(path);
      const documents = special ? await renderConversations(path, metadata, gguf) : await readDocuments(path);
      const ids = await llama.tokenizeMany(gguf, documents, { special, ...(signal && { signal }) });
      for (const [i, own] of ids.entries()) parts[i % 2]!.push(own);
    }
    const [first, second] = parts.map((documents) => cut(documents, length, startOf(metadata)));
    if (first!.length === 0 || second!.length === 0) throw tooShort(request);
    return { choosing: spread(first!, choosing), measuring: spread(second!, measuring) };
  } finally {
    await llama.dispose();
  }
}

async function renderConversations(path: string, metadata: GgufMetadata, gguf: string): Promise<string[]> {
  const template = metadata.get("tokenizer.chat_template")?.value;
  if (template === undefined) throw withoutTemplate(path, gguf);
  return readChatDocuments(path, createChatTemplate({ template }, gguf));
}

/** Ids that every sequence begins with. */
function startOf(metadata: GgufMetadata): number[] {
  const adds =
    metadata.get("tokenizer.ggml.add_bos_token")?.value ?? metadata.get("tokenizer.ggml.model")?.value === "llama";
  const bos = metadata.get("tokenizer.ggml.bos_token_id")?.value;
  return adds === true && typeof bos === "number" ? [bos] : [];
}

/** Documents one after the other, in pieces of `length` tokens with their start; what is left over is dropped. */
function cut(documents: readonly (readonly number[])[], length: number, start: readonly number[]): number[][] {
  const ids = documents.flat();
  const own = length - start.length;
  return Array.from({ length: Math.floor(ids.length / own) }, (_, i) => [
    ...start,
    ...ids.slice(i * own, (i + 1) * own),
  ]);
}

/** So many of them, evenly over all. */
function spread<T>(all: readonly T[], count: number): T[] {
  const wanted = Math.min(count, all.length);
  return Array.from({ length: wanted }, (_, i) => all[Math.floor((i * all.length) / wanted)]!);
}

function tooShort({ texts, length }: SequenceRequest): EspalierError {
  return new EspalierError({
    where: texts.join(", "),
    expected: `at least two documents or parts of ${length} tokens: one to choose by, one set aside to measure on`,
    found: "less text",
    fix: "name more text with --text, or shorter sequences with --length",
    exitCode: 2,
  });
}

function withoutTemplate(path: string, gguf: string): EspalierError {
  return new EspalierError({
    where: path,
    expected: `a chat template in ${gguf}, to write conversations as the model was trained on them`,
    found: "none",
    fix: "name plain text",
    exitCode: 2,
  });
}
