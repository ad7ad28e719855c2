import { describe, expect, test } from "vitest";
import { type FileType, fileTypeBytes, fileTypes, typedTensors } from "./file-types.js";
import { type ModelShape, shapeParameters } from "./model-shape.js";

const llama = (sizes: { layers: number; hidden: number; heads: number; kv: number; ffn: number; vocab: number }) => {
  const { layers, hidden, heads, kv, ffn, vocab } = sizes;
  const shape: ModelShape = {
    architecture: "llama",
    vocabSize: vocab,
    hiddenSize: hidden,
    heads,
    headDim: hidden / heads,
    tiedEmbeddings: false,
    attentionBias: false,
    attentionOutputBias: false,
    mlpBias: false,
    maxPositions: 131072,
    blocks: Array.from({ length: layers }, () => ({
      attention: { kind: "gqa", kvHeads: kv },
      ffn: { kind: "swiglu", width: ffn },
    })),
    gated: true,
    normBias: false,
    headNorms: false,
    rotaryFactors: true,
  };
  return shape;
};
const seventy = llama({ layers: 80, hidden: 8192, heads: 64, kv: 8, ffn: 28672, vocab: 128256 });
const eight = llama({ layers: 32, hidden: 4096, heads: 32, kv: 8, ffn: 14336, vocab: 128256 });

test("parameters", () => {
  expect([shapeParameters(seventy), shapeParameters(eight)]).toEqual([70_553_706_496, 8_030_261_248]);
});

describe("Llama-3.1-Nemotron-70B-Instruct, quantised with an importance matrix", () => {
  /** Files of bartowski/Llama-3.1-Nemotron-70B-Instruct-HF-GGUF: bytes after the header. */
  const published: [FileType, number][] = [
    ["IQ3_M", 31_929_172_224],
    ["IQ2_XS", 21_134_246_144],
    ["IQ2_XXS", 19_089_522_944],
    ["IQ1_M", 16_743_334_144],
    ["Q8_0", 74_967_187_712],
    ["Q6_K", 57_880_281_344],
    ["Q5_K_M", 49_941_954_816],
    ["Q5_K_S", 48_649_584_896],
    ["Q4_K_M", 42_512_531_712],
    ["Q4_K_S", 40_339_357_952],
    ["Q4_0", 40_108_671_232],
    ["IQ4_XS", 37_894_799_616],
    ["Q3_K_L", 37_132_730_624],
    ["Q3_K_M", 34_259_632_384],
    ["Q3_K_S", 30_904_189_184],
    ["IQ3_XXS", 27_461_632_256],
    ["Q2_K", 26_367_246_592],
    ["IQ2_M", 24_111_431_936],
  ];
  test.each(published)("%s", (fileType, bytes) => {
    expect(fileTypeBytes(seventy, fileType, { imatrix: true })).toBe(bytes);
  });

  const large: [FileType, number][] = [
    ["Q5_K_M", 50_590_417_152],
    ["Q4_K_M", 43_292_328_192],
    ["Q3_K_L", 38_052_069_632],
    ["Q2_K", 27_393_294_592],
  ];
  test.each(large)("%s with head and embedding in Q8_0", (fileType, bytes) => {
    const options = { imatrix: true, head: "Q8_0", embedding: "Q8_0" } as const;
    expect(fileTypeBytes(seventy, fileType, options)).toBe(bytes);
  });
});

describe("Llama 3.1 8B in the table of llama.cpp's quantise tool", () => {
  /** Bits a parameter and GiB, tensors alone. */
  const published: [FileType, string, string][] = [
    ["IQ1_S", "2.0042", "1.87"],
    ["IQ1_M", "2.1460", "2.01"],
    ["IQ2_XXS", "2.3824", "2.23"],
    ["IQ2_XS", "2.5882", "2.42"],
    ["IQ2_S", "2.7403", "2.56"],
    ["IQ2_M", "2.9294", "2.74"],
    ["IQ3_XXS", "3.2548", "3.04"],
    ["IQ3_XS", "3.4977", "3.27"],
    ["IQ3_S", "3.6606", "3.42"],
    ["IQ3_M", "3.7628", "3.52"],
    ["Q2_K_S", "2.9697", "2.78"],
    ["Q2_K", "3.1593", "2.95"],
    ["Q3_K_S", "3.6429", "3.41"],
    ["Q3_K_M", "3.9960", "3.74"],
    ["Q3_K_L", "4.2979", "4.02"],
    ["Q4_K_S", "4.6672", "4.36"],
    ["Q4_K_M", "4.8944", "4.58"],
    ["Q5_K_S", "5.5704", "5.21"],
    ["Q5_K_M", "5.7036", "5.33"],
    ["Q6_K", "6.5633", "6.14"],
    ["Q8_0", "8.5008", "7.95"],
    ["F16", "16.0005", "14.96"],
  ];
  test.each(published)("%s: %s bits, %s GiB", (fileType, bits, gib) => {
    const bytes = fileTypeBytes(eight, fileType, { imatrix: true });
    expect((bytes / 2 ** 30).toFixed(2)).toBe(gib);
    expect(((8 * bytes) / 8_030_261_312).toFixed(4)).toBe(bits);
  });

  // These two rows come out only without an importance matrix.
  test.each([
    ["IQ4_XS", "4.4597", "4.17"],
    ["IQ4_NL", "4.6818", "4.38"],
  ] as const)("%s: %s bits, %s GiB, made without an importance matrix", (fileType, bits, gib) => {
    const bytes = fileTypeBytes(eight, fileType);
    expect((bytes / 2 ** 30).toFixed(2)).toBe(gib);
    expect(((8 * bytes) / 8_030_261_312).toFixed(4)).toBe(bits);
  });
});

test("a table's every type has a size, and they fall from first to last of each family", () => {
  const sizes = fileTypes.map((fileType) => fileTypeBytes(eight, fileType));
  expect(sizes.every((bytes) => bytes > 0 && bytes % 32 === 0)).toBe(true);
  expect(fileTypes).toHaveLength(32);
});

test("rows that blocks of 256 do not divide fall back", () => {
  const narrow = llama({ layers: 8, hidden: 576, heads: 9, kv: 3, ffn: 1536, vocab: 49152 });
  const types = Object.fromEntries(typedTensors(narrow, "Q4_K_M").map(({ name, type }) => [name, type]));
  expect(types["blk.1.ffn_down.weight"]).toBe("Q4_K");
  expect(types["blk.1.attn_q.weight"]).toBe("Q5_0");
  expect(types["output.weight"]).toBe("Q8_0");
});
