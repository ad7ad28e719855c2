import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { type ByteSource, createRng, memorySource } from "../base/index.js";
import { repositoryPath, temporaryDirectory } from "../base/testing.js";
import type { TensorFile, TensorPlan } from "./checkpoint.js";
import { openGguf } from "./gguf/reader.js";
import { type GgufTensorPlan, writeGgufFile } from "./gguf/writer.js";
import { parseHubConfig } from "./hub-config.js";
import { openSafetensors, writeSafetensors } from "./safetensors.js";
import { mutateBytes, mutateJson, survives } from "./testing.js";

const mutations = 1000;

/**
 * Reads everything. The bound on memory: no single request beyond the file itself, and no tensor beyond eight bytes for
 * each byte of the file (four bits become a float).
 */
async function readAll(bytes: Uint8Array, open: (source: ByteSource) => Promise<TensorFile>): Promise<void> {
  const source = memorySource(bytes, "damaged");
  const file = await open({
    ...source,
    read(offset, length) {
      expect(length).toBeLessThanOrEqual(bytes.byteLength);
      return source.read(offset, length);
    },
  });
  for (const name of file.names) {
    const values = await file.read(name);
    expect(values.byteLength).toBeLessThanOrEqual(8 * bytes.byteLength);
  }
}

const plan = (name: string, shape: number[]): TensorPlan => ({
  name,
  shape,
  read: async () => new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(0.5),
});

/** How many of the mutations were read after all; the rest were refused with a clear message. */
async function countReads(original: Uint8Array, header: number, open: (source: ByteSource) => Promise<TensorFile>) {
  const rng = createRng("mutations");
  let reads = 0;
  for (let i = 0; i < mutations; i++) {
    const damaged = mutateBytes(original, rng, i % 4 === 0 ? original.byteLength : header);
    if ((await survives(() => readAll(damaged, open))) === "read") reads++;
  }
  return reads;
}

describe("a thousand damaged files are read or refused, never worse", () => {
  const directory = temporaryDirectory();

  beforeAll(async () => {
    const tensors = [plan("model.a.weight", [4, 6]), plan("model.b.weight", [7]), plan("c", [])];
    await writeSafetensors(join(directory, "x.safetensors"), tensors, { type: "f16" });
    const quantised: GgufTensorPlan[] = [
      { ...plan("a.weight", [4, 64]), type: "q8_0" },
      { ...plan("b.weight", [7]), type: "f32" },
    ];
    await writeGgufFile(
      join(directory, "x.gguf"),
      [
        ["general.architecture", { type: "string", value: "llama" }],
        ["general.alignment", { type: "u32", value: 32 }],
        ["llama.block_count", { type: "u32", value: 2 }],
        ["tokenizer.ggml.tokens", { type: "array", of: "string", value: ["a", "b", "cd"] }],
        ["tokenizer.ggml.scores", { type: "array", of: "f32", value: Float32Array.of(0, -1, -2) }],
      ],
      quantised,
    );
  });

  test("safetensors", async () => {
    const bytes = new Uint8Array(readFileSync(join(directory, "x.safetensors")));
    const reads = await countReads(bytes, bytes.byteLength - 64, openSafetensors);
    expect(reads).toBeGreaterThan(mutations / 50);
    expect(reads).toBeLessThan(mutations / 2);
  });

  test("GGUF", async () => {
    const bytes = new Uint8Array(readFileSync(join(directory, "x.gguf")));
    const reads = await countReads(bytes, bytes.byteLength - 304, openGguf);
    expect(reads).toBeGreaterThan(mutations / 50);
    expect(reads).toBeLessThan(mutations / 2);
  });

  test("config.json, as values and as text", async () => {
    const text = readFileSync(repositoryPath("models/stories260K/config.json"), "utf8");
    const rng = createRng("mutations");
    let reads = 0;
    for (let i = 0; i < mutations; i++) {
      const damaged = mutateJson(JSON.parse(text), rng);
      if ((await survives(async () => parseHubConfig(damaged, "config.json"))) === "read") reads++;
    }
    expect(reads).toBeGreaterThan(mutations / 50);
    expect(reads).toBeLessThan(mutations);
  });
});
