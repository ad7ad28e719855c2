/** Vectors and mutations that several tests of this area share. Tests only. */
import { readFileSync } from "node:fs";
import { createRng, type Rng } from "../base/index.js";
import { repositoryPath } from "../base/testing.js";
import type { ChatMessage } from "./chat-template.js";
import type { TokenizerSource } from "./types.js";

export interface Vectors {
  metadata: Record<string, unknown>;
  vocabSize: number;
  /** id, token, type and, in scored vocabularies, score. */
  entries: [number, string, number, number?][];
  merges?: string[];
  cases: { text: string; ids: number[] }[];
  chats?: { messages: ChatMessage[]; rendered: string; ids: number[] }[];
}

export function readGolden(name: string): unknown {
  return JSON.parse(readFileSync(repositoryPath(`test/golden/tokenizer/${name}.json`), "utf8"));
}

export function readVectors(name: string): Vectors {
  return readGolden(name) as Vectors;
}

/** The vocabulary of some vectors in full size: rows that no text needs hold a name that no text contains. */
export function vectorSource({ metadata, vocabSize, entries, merges }: Vectors): TokenizerSource {
  const tokens = Array.from({ length: vocabSize }, (_, id) => `[ROW${id}]`);
  const types = new Int32Array(vocabSize).fill(5);
  const scores = new Float32Array(vocabSize).fill(-1e6);
  for (const [id, token, type, score] of entries) {
    tokens[id] = token;
    types[id] = type;
    scores[id] = score ?? 0;
  }
  const body = { "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types };
  const rest = merges ? { "tokenizer.ggml.merges": merges } : { "tokenizer.ggml.scores": scores };
  return { kind: "gguf", metadata: { ...metadata, ...body, ...rest } };
}

export function readModelSource(folder: string): TokenizerSource {
  const read = (name: string): Record<string, unknown> =>
    JSON.parse(readFileSync(repositoryPath(`models/${folder}/${name}`), "utf8"));
  return { kind: "hf", tokenizer: read("tokenizer.json"), config: read("tokenizer_config.json") };
}

const alphabet = [
  ..." \n\t\r.,!?'()<>/▁0123456789abcdefghijklmnopqrstuvwxyzABCDEéßñ你好😀‍ﬁ\u0000\u00a0\u0085\ufeff\u3000",
];

/** Random text in which anything may stand beside anything. */
export function randomText(rng: Rng, length: number): string {
  return Array.from({ length }, () => alphabet[rng.int(alphabet.length)]).join("");
}

export function randomTexts(count: number, seed: string): string[] {
  const rng = createRng(seed);
  return Array.from({ length: count }, () => randomText(rng, 1 + rng.int(40)));
}
