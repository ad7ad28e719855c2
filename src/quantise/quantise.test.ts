import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { checkFree } from "../base/index.js";
import { repositoryPath, temporaryDirectory } from "../base/testing.js";
import { openGgufFile } from "../formats/index.js";
import { createLlamaCppTools } from "../llamacpp/index.js";
import {
  chooseTypes,
  openSource,
  type QuantiseSource,
  quantiseFile,
  readImatrix,
  readSequences,
  writeImatrix,
} from "./index.js";

const folder = temporaryDirectory();
const text = repositoryPath("data/tinystories/valid.txt.gz");
const tools = createLlamaCppTools({ threads: 1 });
let source: QuantiseSource;
let sequences: { choosing: number[][]; measuring: number[][] };

beforeAll(async () => {
  source = await openSource(repositoryPath("models/stories260K"), join(folder, "source"));
  sequences = await readSequences(source.gguf, { texts: [text], length: 64, choosing: 2, measuring: 4 });
});

afterAll(() => tools.dispose());

test("a directory is written as f32", () => {
  expect(source.types).toEqual(["F32"]);
});

test("sequences begin with the start token; choosing and measuring share none", () => {
  const { choosing, measuring } = sequences;
  expect([choosing.length, measuring.length]).toEqual([2, 4]);
  for (const ids of [...choosing, ...measuring]) expect([ids[0], ids.length]).toEqual([1, 64]);
  const seen = new Set(choosing.map(String));
  expect(measuring.some((ids) => seen.has(String(ids)))).toBe(false);
});

test("text too short for one sequence each is refused", async () => {
  const request = { texts: [text], length: 1e6, choosing: 1, measuring: 1 };
  await expect(readSequences(source.gguf, request)).rejects.toThrow(
    /at least two documents or parts of 1000000 tokens/,
  );
});

describe.each(["Q8_0", "Q4_K_M", "Q3_K_S", "IQ4_XS", "Q5_1", "BF16"] as const)("%s", (type) => {
  test("is as large as predicted", async () => {
    const { bytes, predictedBytes, path } = await quantiseFile(source, {
      type,
      out: join(folder, `${type}.gguf`),
      tools,
    });
    expect(bytes).toBe(predictedBytes);
    expect(bytes).toBe(statSync(path).size);
  });
});

test("a tensor named by a pattern has its type, and the size is still foretold", async () => {
  const overrides = [
    { pattern: "blk\\.[01]\\.attn_v", type: "Q8_0" as const },
    { pattern: "blk\\.1\\.attn_q", type: "MXFP4" as const },
  ];
  const out = join(folder, "override.gguf");
  const { bytes, predictedBytes } = await quantiseFile(source, { type: "Q4_0", overrides, out, tools });
  expect(bytes).toBe(predictedBytes);
  const file = await openGgufFile(out);
  const types = [0, 1, 2].map((layer) => file.info(`blk.${layer}.attn_v.weight`)!.type);
  types.push(file.info("blk.1.attn_q.weight")!.type);
  await file.close();
  expect(types).toEqual(["Q8_0", "Q8_0", "Q4_0", "MXFP4"]);
});

test("a pattern that matches nothing is refused", async () => {
  const overrides = [{ pattern: "no_such", type: "Q8_0" as const }];
  const refused = quantiseFile(source, { type: "Q4_0", overrides, out: join(folder, "idle.gguf"), tools });
  await expect(refused).rejects.toThrow(/--tensor no_such=Q8_0: expected a pattern that matches/);
});

test("fewer bits lose more, and intervals hold their means", async () => {
  const lost: number[] = [];
  for (const type of ["Q8_0", "Q4_0"] as const) {
    const out = join(folder, `lost.${type}.gguf`);
    const { compared } = await quantiseFile(source, { type, out, tools, sequences: sequences.measuring });
    const { kl, tokens, perplexity } = compared!;
    expect(tokens).toBe(4 * 63);
    expect(kl.low).toBeLessThan(kl.mean);
    expect(perplexity.ratio.mean).toBeCloseTo(perplexity.file / perplexity.source, 6);
    lost.push(kl.mean);
  }
  expect(lost[0]).toBeGreaterThan(0);
  expect(lost[1]).toBeGreaterThan(10 * lost[0]!);
});

test("nothing is written over, and nothing is left of a file that failed", async () => {
  const out = join(folder, "failed.gguf");
  const importance = { "blk.0.attn_q.weight": new Float32Array(3) };
  await expect(quantiseFile(source, { type: "Q4_0", importance, out, tools })).rejects.toThrow("imatrix size 3");
  expect(existsSync(out)).toBe(false);
  expect(readdirSync(folder).filter((name) => name.startsWith("failed"))).toEqual([]);
  await expect(checkFree(join(folder, "Q8_0.gguf"))).rejects.toThrow("a path that does not exist yet");
});

test("an importance matrix survives its file", async () => {
  const path = join(folder, "imatrix.gguf");
  const meanSquares = {
    "blk.0.attn_q.weight": Float32Array.of(0.5, 2),
    "blk.0.ffn_down.weight": Float32Array.of(3, 4, 5),
  };
  await writeImatrix(path, { tokens: 64, meanSquares }, { dataset: "stories", sequence: 32 });
  expect(await readImatrix(path)).toEqual(meanSquares);
  const file = await openGgufFile(path);
  expect(file.metadata.get("imatrix.chunk_count")!.value).toBe(2);
  expect([...(await file.read("blk.0.attn_q.weight.in_sum2"))]).toEqual([32, 128]);
  await file.close();
  await expect(readImatrix(source.gguf)).rejects.toThrow("expected an importance matrix");
});

describe("a budget of bytes", () => {
  const choose = (bytes: number) => chooseTypes(source, { bytes, sequences: sequences.choosing, tools });

  test("is kept, and more of it never predicts more loss", async () => {
    const small = await choose(250_000);
    const large = await choose(300_000);
    expect(large.predictedKl).toBeLessThan(small.predictedKl);
    expect(new Set(small.overrides.map(({ type }) => type)).size).toBeGreaterThan(1);
    const out = join(folder, "budget.gguf");
    const { bytes, predictedBytes } = await quantiseFile(source, {
      type: "Q4_0",
      overrides: small.overrides,
      out,
      tools,
    });
    expect(bytes).toBe(predictedBytes);
    expect(bytes).toBeLessThanOrEqual(250_000);
    expect(large.mixture).toBeDefined();
  });

  test("below the smallest types is refused with the least that would do", async () => {
    await expect(choose(50_000)).rejects.toThrow(/--memory: expected at least .* bytes\), which the smallest types/);
  });

  test("needs weights that are not quantised yet", async () => {
    const quantised = { gguf: join(folder, "Q8_0.gguf"), types: ["Q8_0"] };
    const chosen = chooseTypes(quantised, { bytes: 1e6, sequences: sequences.choosing, tools });
    await expect(chosen).rejects.toThrow("expected weights in F32, F16 or BF16, to try types on, found Q8_0");
  });
});
