/**
 * Derives the vectors of this folder: texts with their ids, and only those entries of the vocabulary that can come up in
 * them (a merge or token matters only if its result is a part of some text), so that files stay small and exact.
 *
 *     npx tsx test/golden/tokenizer/derive.ts LLAMA_CPP_MODELS SMOLLM2_FOLDER
 *
 * LLAMA_CPP_MODELS: folder `models` of a llama.cpp checkout, such as the one that node-llama-cpp carries
 * (`git clone node_modules/node-llama-cpp/llama/gitRelease.bundle`). SMOLLM2_FOLDER: the folder with
 * `SmolLM2-135M-Instruct.Q4_1.gguf` and its `golden.json`.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openFile } from "../../../src/base/index.js";
import { readGgufHeader } from "../../../src/formats/index.js";
import { tokenTypes } from "../../../src/tokenizer/index.js";
import { encodeBytes } from "../../../src/tokenizer/byte-alphabet.js";

interface Case {
  text: string;
  ids: number[];
}

const here = new URL("./", import.meta.url);

async function tokenizerKeys(path: string): Promise<Record<string, unknown>> {
  const source = await openFile(path);
  const { metadata } = await readGgufHeader(source);
  await source.close();
  return Object.fromEntries([...metadata].filter(([key]) => key.startsWith("tokenizer.")).map(([key, { value }]) => [key, value]));
}

const marks = /^<\|?(s|\/s|unk|begin_of_text|end_of_text|eot_id|im_start|im_end|endoftext)\|?>$/;

function reduce(keys: Record<string, unknown>, cases: Case[]): unknown {
  const tokens = keys["tokenizer.ggml.tokens"] as string[];
  const scores = keys["tokenizer.ggml.scores"] as ArrayLike<number> | undefined;
  const types = keys["tokenizer.ggml.token_type"] as ArrayLike<number>;
  const merges = keys["tokenizer.ggml.merges"] as string[] | undefined;
  const isScored = keys["tokenizer.ggml.model"] === "llama";
  const texts = cases.map(({ text }) => (isScored ? ` ${text}`.replaceAll(" ", "\u2581") : encodeBytes(text))).join("\n");
  const entries = tokens
    .map((token, id) => [id, token, types[id]!, ...(isScored ? [scores![id]!] : [])] as const)
    .filter(([, token, type]) => type === tokenTypes.byte || texts.includes(token) || marks.test(token));
  const rest = Object.fromEntries(
    Object.entries(keys).filter(([key]) => !/\.(tokens|scores|token_type|merges)$/.test(key)),
  );
  return {
    metadata: rest,
    vocabSize: tokens.length,
    entries,
    ...(isScored ? {} : { merges: merges?.filter((merge) => texts.includes(merge.replace(" ", ""))) }),
    cases,
  };
}

function llamaCppCases(path: string): Case[] {
  const texts = readFileSync(`${path}.inp`, "utf8").split("\n__ggml_vocab_test__\n");
  const ids = readFileSync(`${path}.out`, "utf8").split("\n");
  return texts.map((text, i) => ({ text, ids: ids[i]!.trim().split(" ").filter(Boolean).map(Number) }));
}

function write(name: string, value: unknown): void {
  const entries = Object.entries(value as Record<string, unknown>);
  const line = (item: unknown): string => (Array.isArray(item) ? `[\n${item.map((x) => JSON.stringify(x)).join(",\n")}\n]` : JSON.stringify(item));
  writeFileSync(new URL(name, here), `{\n${entries.map(([key, item]) => `${JSON.stringify(key)}: ${line(item)}`).join(",\n")}\n}\n`);
}

const [llamaCpp, smollm] = process.argv.slice(2);
if (!llamaCpp || !smollm) throw new Error("usage: derive.ts LLAMA_CPP_MODELS SMOLLM2_FOLDER");
for (const name of ["llama-spm", "llama-bpe"]) {
  const path = join(llamaCpp, `ggml-vocab-${name}.gguf`);
  write(`${name}.json`, {
    source: `ggml-vocab-${name}.gguf with its .inp and .out, of llama.cpp (MIT)`,
    ...(reduce(await tokenizerKeys(path), llamaCppCases(path)) as object),
  });
}
const golden = JSON.parse(readFileSync(join(smollm, "golden.json"), "utf8"));
const chats = golden.chats.map(({ messages, rendered, ids }: Record<string, unknown>) => ({ messages, rendered, ids }));
const cases = [...golden.prompts, ...chats.map(({ rendered, ids }: { rendered: string; ids: number[] }) => ({ text: rendered, ids }))];
write("smollm2.json", {
  source: "SmolLM2-135M-Instruct (Apache-2.0): vocabulary of its GGUF; ids and rendered chats computed by transformers 5.23",
  ...(reduce(
    await tokenizerKeys(join(smollm, "SmolLM2-135M-Instruct.Q4_1.gguf")),
    cases.map(({ text, ids }: Case) => ({ text, ids })),
  ) as object),
  chats,
});
