/**
 * Damaged files: 1,000 seeded mutations each of a `tokenizer.json`, of its bytes, and of a GGUF vocabulary. Every one
 * either gives a tokenizer that encodes and decodes, or an EspalierError that names the file; none takes long or much.
 */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { createRng, EspalierError, type Rng } from "../base/index.js";
import { repositoryPath } from "../base/testing.js";
import { loadTokenizer } from "./load.js";
import { readModelSource, readVectors, vectorSource } from "./testing.js";
import { toGgufVocabulary } from "./to-gguf.js";
import { toTokenizerFiles } from "./to-json.js";
import type { TokenizerSource } from "./types.js";

const text = "Once upon a time, there was 1 girl named Lily.\n\n  She'll say: héllo 你好 😀 <|im_end|></s>!";

/** Runs a tokenizer through all that it can do; returns whether it could be loaded. */
function exercise(source: TokenizerSource): boolean {
  try {
    const tokenizer = loadTokenizer(source, "damaged.json");
    const ids = tokenizer.encode(text);
    for (const id of ids) expect(Number.isInteger(id) && id >= 0 && id < tokenizer.vocabSize).toBe(true);
    expect(typeof tokenizer.decode(ids)).toBe("string");
    toGgufVocabulary(source, { where: "damaged.json" });
    toTokenizerFiles(source, { where: "damaged.json" });
    return true;
  } catch (error) {
    if (!(error instanceof EspalierError)) throw error;
    expect(error.message).toMatch(/^(damaged|tokenizer_config|special_tokens_map)\.json/);
    expect(error.message.length).toBeLessThan(20_000);
    return false;
  }
}

const absurd = [
  null,
  true,
  -1,
  0.5,
  1e300,
  2 ** 31,
  4294967296,
  "",
  "x",
  "\ud800",
  [],
  {},
  [[]],
  { type: "BPE" },
  "a".repeat(5000),
];

/** Somewhere in the value: a field missing, doubled, or of another kind. */
function mutateValue(value: unknown, rng: Rng): void {
  let at = value as Record<string, unknown>;
  for (;;) {
    const keys = Object.keys(at);
    if (keys.length === 0) return;
    const key = keys[rng.int(keys.length)]!;
    const inner = at[key];
    if (inner !== null && typeof inner === "object" && !ArrayBuffer.isView(inner) && rng.next() < 0.75) {
      at = inner as Record<string, unknown>;
      continue;
    }
    const kind = rng.int(4);
    if (kind === 0 && Array.isArray(at)) at.splice(Number(key), 1);
    else if (kind === 0) delete at[key];
    else if (kind === 1) at[key] = at[keys[rng.int(keys.length)]!];
    else if (kind === 2 && typeof inner === "string") at[key] = mutateText(inner, rng);
    else at[key] = structuredClone(absurd[rng.int(absurd.length)]);
    return;
  }
}

function mutateText(bytes: string, rng: Rng): string {
  const at = rng.int(bytes.length + 1);
  const piece = '{}[],:"\\0-9+*(?)|.^$'[rng.int(20)]!;
  switch (rng.int(4)) {
    case 0:
      return bytes.slice(0, at);
    case 1:
      return bytes.slice(0, at) + piece + bytes.slice(at);
    case 2:
      return bytes.slice(0, at) + bytes.slice(at + 1 + rng.int(5));
    default:
      return bytes.slice(0, at) + bytes.slice(Math.max(0, at - 20), at) + bytes.slice(at);
  }
}

/** Bounds: 2 s for any one, 256 MiB of growth over all (the tokenizers hold some MB each until collected). */
function bounded(rounds: number, seed: string, run: (rng: Rng) => boolean): { loaded: number; refused: number } {
  const rng = createRng(seed);
  const counts = { loaded: 0, refused: 0 };
  const before = process.memoryUsage().arrayBuffers;
  let slowest = 0;
  for (let i = 0; i < rounds; i++) {
    const start = performance.now();
    counts[run(rng) ? "loaded" : "refused"]++;
    slowest = Math.max(slowest, performance.now() - start);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(256 * 2 ** 20);
  }
  expect(slowest).toBeLessThan(2000);
  return counts;
}

describe("a damaged tokenizer", () => {
  test("tokenizer.json with a wrong field", () => {
    const sources = [readModelSource("stories260K"), { kind: "hf", ...smallByteLevel() } as const];
    const counts = bounded(1000, "fields", (rng) => {
      const source = structuredClone(sources[rng.int(2)]!);
      for (let n = 1 + rng.int(3); n > 0; n--) mutateValue(source, rng);
      return exercise({ ...source, kind: "hf" } as TokenizerSource);
    });
    // Most hits are on one of many tokens or merges; both outcomes must be common for the test to mean anything.
    expect(counts.loaded).toBeGreaterThan(100);
    expect(counts.refused).toBeGreaterThan(100);
  }, 120_000);

  test("tokenizer.json with wrong bytes", () => {
    const whole = readFileSync(repositoryPath("models/stories260K/tokenizer.json"), "utf8");
    bounded(1000, "bytes", (rng) => {
      const damaged = mutateText(whole, rng);
      let tokenizer: unknown;
      try {
        tokenizer = JSON.parse(damaged);
      } catch {
        return false;
      }
      return exercise({ kind: "hf", tokenizer });
    });
  }, 120_000);

  test("GGUF vocabulary with a wrong field", () => {
    const metadata = toGgufVocabulary({ kind: "hf", ...smallByteLevel() }).metadata;
    const scored = toGgufVocabulary(readModelSource("stories260K")).metadata;
    const counts = bounded(1000, "gguf", (rng) => {
      const keys = structuredClone(rng.int(2) === 0 ? metadata : scored);
      for (let n = 1 + rng.int(2); n > 0; n--) mutateValue(keys, rng);
      return exercise({ kind: "gguf", metadata: keys });
    });
    expect(counts.loaded).toBeGreaterThan(100);
    expect(counts.refused).toBeGreaterThan(100);
  }, 120_000);
});

/** The byte-level vocabulary of some vectors without the rows that no text needs. */
function smallByteLevel(): ReturnType<typeof toTokenizerFiles> {
  const vectors = readVectors("smollm2");
  const entries = vectors.entries.map(([, token, type], id) => [id, token, type] as [number, string, number]);
  return JSON.parse(JSON.stringify(toTokenizerFiles(vectorSource({ ...vectors, entries, vocabSize: entries.length }))));
}
