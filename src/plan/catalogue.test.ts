import { describe, expect, test } from "vitest";
import { catalogueNames, findInCatalogue } from "./catalogue.js";
import { type FileType, fileTypeBytes } from "./file-types.js";
import { findGpu, listGpus } from "./gpus.js";
import { kvCacheBytesPerToken } from "./kv-cache.js";
import { shapeParameters } from "./model-shape.js";
import { publishedFiles } from "./testing.js";

describe("the catalogue of models", () => {
  test.each(catalogueNames())("%s has the parameters that are published", (name) => {
    const known = findInCatalogue(name)!;
    expect(shapeParameters(known.shape)).toBe(known.parameters);
  });

  test("finds a model by its repository and other names", () => {
    expect(findInCatalogue("meta-llama/Llama-3.1-8B-Instruct")?.name).toBe("llama-3.1-8b");
    expect(findInCatalogue("Llama-3.1-70B-Instruct")?.name).toBe("llama-3.1-70b");
    expect(findInCatalogue("llama-9")).toBeUndefined();
  });

  const shapeOf = (name: string) => findInCatalogue(name)!.shape;

  test.each(Object.entries(publishedFiles))("published files of %s, to the byte", (name, files) => {
    const { shape, headerBytes } = findInCatalogue(name)!;
    for (const [type, bytes] of Object.entries(files) as [FileType, number][]) {
      expect([type, fileTypeBytes(shape, type, { imatrix: true }) + headerBytes!]).toEqual([type, bytes]);
    }
  });

  test("published files of Nemotron-51B whose head and embedding are in Q8_0", () => {
    const { shape, headerBytes } = findInCatalogue("llama-3.1-nemotron-51b")!;
    const large = (type: FileType) =>
      fileTypeBytes(shape, type, { imatrix: true, head: "Q8_0", embedding: "Q8_0" }) + headerBytes!;
    expect([large("Q2_K"), large("Q4_K_M")]).toEqual([20_444_690_688, 31_817_103_616]);
  });

  /** Tensors of the files of Super-49B, and two figures of Ultra-253B from llama.cpp's log and its model card. */
  test.each([
    ["llama-3.3-nemotron-super-49b", "Q8_0", 52_986_970_368],
    ["llama-3.3-nemotron-super-49b", "Q6_K", 40_910_029_056],
    ["llama-3.3-nemotron-super-49b", "Q5_K_M", 35_383_755_008],
    ["llama-3.3-nemotron-super-49b", "Q5_K_S", 34_426_732_800],
    ["llama-3.3-nemotron-super-49b", "Q4_1", 31_375_769_856],
    ["llama-3.3-nemotron-super-49b", "Q4_K_M", 30_207_721_728],
    ["llama-3.1-nemotron-ultra-253b", "Q4_K_M", 150_929_015_040],
  ] as const)("%s in %s", (name, type, bytes) => {
    expect(fileTypeBytes(shapeOf(name), type, { imatrix: true })).toBe(bytes);
  });

  test.each([
    ["llama-3.1-8b", 131_072, 131_072],
    ["llama-3.1-70b", 327_680, 327_680],
    ["llama-3.3-nemotron-super-49b", 200_704, 264_192],
    ["llama-3.1-nemotron-ultra-253b", 262_144, 462_848],
  ])("kv cache of %s: %i bytes a token, %i without flash attention", (name, bytes, without) => {
    expect(kvCacheBytesPerToken(shapeOf(name))).toBe(bytes);
    expect(kvCacheBytesPerToken(shapeOf(name), { flashAttention: false })).toBe(without);
  });
});

describe("the catalogue of GPUs", () => {
  test("every figure has a source, and no name is there twice", () => {
    const names = listGpus().flatMap(({ name, aliases }) => [
      ...new Set([name, ...aliases].map((x) => x.toLowerCase())),
    ]);
    expect(new Set(names).size).toBe(names.length);
    for (const gpu of listGpus()) {
      expect([gpu.name, gpu.sources.memory, gpu.sources.bandwidth]).not.toContain(undefined);
      expect(gpu.price === undefined || gpu.sources.price !== undefined).toBe(true);
    }
  });

  test("finds by other names and suggests near ones", () => {
    expect(findGpu("nvidia geforce rtx 4090").memoryBytes).toBe(24 * 2 ** 30);
    expect(() => findGpu("RTX 4091")).toThrow(/did you mean RTX 4090/);
  });
});
