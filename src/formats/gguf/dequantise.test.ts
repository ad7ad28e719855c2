import { describe, expect, test } from "vitest";
import { createRng, sha256 } from "../../base/index.js";
import { f16ToF32 } from "../../tensor/index.js";
import { dequantise } from "./dequantise.js";
import { quantise } from "./quantise.js";

/** f16 bits: 0x3c00 = 1, 0x3800 = 0.5, 0xbc00 = -1, 0x4000 = 2. Little-endian in the file. */
const one = [0x00, 0x3c];
const half = [0x00, 0x38];
const minusOne = [0x00, 0xbc];
const two = [0x00, 0x40];

const read = (type: string, bytes: number[], elements: number) =>
  Array.from(dequantise(type, Uint8Array.from(bytes), elements, "test"));

const range = (n: number, of: (i: number) => number) => Array.from({ length: n }, (_, i) => of(i));

describe("blocks derived by hand", () => {
  // Byte j holds the j-th value of the first half in its low nibble and of the second half in its high nibble.
  const nibbles = range(16, (j) => j | ((15 - j) << 4));

  test("Q4_0: d (q - 8)", () => {
    const expected = [...range(16, (j) => 0.5 * (j - 8)), ...range(16, (j) => 0.5 * (7 - j))];
    expect(read("Q4_0", [...half, ...nibbles], 32)).toEqual(expected);
  });

  test("Q4_1: d q + m", () => {
    const expected = [...range(16, (j) => 0.5 * j - 1), ...range(16, (j) => 0.5 * (15 - j) - 1)];
    expect(read("Q4_1", [...half, ...minusOne, ...nibbles], 32)).toEqual(expected);
  });

  test("Q5_0: d (q - 16) with the fifth bits 0, 17 and 31 set", () => {
    const high = [0x01, 0x00, 0x02, 0x80];
    const fifth = (i: number) => ([0, 17, 31].includes(i) ? 16 : 0);
    const expected = range(32, (i) => (i < 16 ? i : 31 - i) + fifth(i) - 16);
    expect(read("Q5_0", [...one, ...high, ...nibbles], 32)).toEqual(expected);
  });

  test("Q5_1: d q + m with the same fifth bits", () => {
    const high = [0x01, 0x00, 0x02, 0x80];
    const fifth = (i: number) => ([0, 17, 31].includes(i) ? 16 : 0);
    const expected = range(32, (i) => 2 * ((i < 16 ? i : 31 - i) + fifth(i)) + 0.5);
    expect(read("Q5_1", [...two, ...half, ...high, ...nibbles], 32)).toEqual(expected);
  });

  test("Q8_0: d q, signed", () => {
    const bytes = range(32, (i) => (i * 8 - 128) & 255);
    expect(read("Q8_0", [...half, ...bytes], 32)).toEqual(range(32, (i) => 0.5 * (i * 8 - 128)));
  });

  // Scales 1..8 and minimums 9..16 in six bits. Bytes 0-3 and 4-7: the first four of each; bytes 8-11: low nibbles of the
  // last four (scale | minimum << 4), their upper two bits in the top of bytes 0-3 and 4-7. 16 = 0b010000: bits 4-5 are 1.
  const packedScales = [
    1,
    2,
    3,
    4,
    9 | (0 << 6),
    10,
    11,
    12 | (1 << 6),
    5 | (13 << 4),
    6 | (14 << 4),
    7 | (15 << 4),
    8,
  ];

  test("Q4_K: d scale q - dmin minimum", () => {
    const bytes = range(128, (i) => (i % 16) | (((i + 1) % 16) << 4));
    const expected = range(256, (i) => {
      const sub = Math.floor(i / 32);
      const byte = 32 * Math.floor(i / 64) + (i % 32);
      const q = sub % 2 === 0 ? byte % 16 : (byte + 1) % 16;
      return 0.5 * (sub + 1) * q - 2 * (sub + 9);
    });
    expect(read("Q4_K", [...half, ...two, ...packedScales, ...bytes], 256)).toEqual(expected);
  });

  test("Q5_K: the fifth bit of value i is bit i / 32 of byte i % 32", () => {
    const bytes = range(128, (i) => (i % 16) | (((i + 1) % 16) << 4));
    const high = range(32, (i) => (i * 37) & 255);
    const expected = range(256, (i) => {
      const sub = Math.floor(i / 32);
      const byte = 32 * Math.floor(i / 64) + (i % 32);
      const low = sub % 2 === 0 ? byte % 16 : (byte + 1) % 16;
      const fifth = (((i % 32) * 37) >> sub) & 1;
      return 0.5 * (sub + 1) * (low + 16 * fifth) - 2 * (sub + 9);
    });
    expect(read("Q5_K", [...half, ...two, ...packedScales, ...high, ...bytes], 256)).toEqual(expected);
  });

  test("Q6_K: d scale (q - 32), signed scales for 16 values each", () => {
    // Value i = 128 n + 32 k + l: low bits in nibble k >> 1 of byte 64 n + 32 (k & 1) + l, high pair k of byte 32 n + l.
    const value = (i: number) => (i * 7 + 3) % 64;
    const low = new Array<number>(128).fill(0);
    const high = new Array<number>(64).fill(0);
    for (let i = 0; i < 256; i++) {
      const [n, k, l] = [Math.floor(i / 128), Math.floor((i % 128) / 32), i % 32];
      low[64 * n + 32 * (k & 1) + l]! |= (value(i) & 15) << (4 * (k >> 1));
      high[32 * n + l]! |= (value(i) >> 4) << (2 * k);
    }
    const scales = range(16, (s) => s - 8);
    const expected = range(256, (i) => 0.5 * (Math.floor(i / 16) - 8) * (value(i) - 32));
    const bytes = [...low, ...high, ...scales.map((s) => s & 255), ...half];
    expect(read("Q6_K", bytes, 256).map((x) => x + 0)).toEqual(expected.map((x) => x + 0));
  });

  test("plain types", () => {
    expect(read("F16", [...one, ...minusOne], 2)).toEqual([1, -1]);
    expect(read("BF16", [0x80, 0x3f, 0x00, 0xc0], 2)).toEqual([1, -2]);
    expect(read("F32", [0, 0, 0x80, 0x3f], 1)).toEqual([1]);
  });

  test("a type that cannot be read names those that can", () => {
    expect(() => read("IQ2_XXS", [], 0)).toThrow(/Q8_0, Q4_0.*found IQ2_XXS; re-export the model as Q8_0 or F16/);
  });
});

describe("bit for bit as ggml", () => {
  // Digests of what ggml's own dequantize_row_* makes of these bytes (llama.cpp v0.5.0, ggml-quants.c).
  const digests: [type: string, block: number, bytes: number, digest: string][] = [
    ["Q4_0", 32, 18, "2b0eb510c6ff7fda"],
    ["Q4_1", 32, 20, "875f20bfb0570dce"],
    ["Q5_0", 32, 22, "1d51db52adff4f42"],
    ["Q5_1", 32, 24, "a73bf9b37540546e"],
    ["Q8_0", 32, 34, "3886b504721c525e"],
    ["Q4_K", 256, 144, "ea61a91bbfad7fe4"],
    ["Q5_K", 256, 176, "d7ad88bf11932515"],
    ["Q6_K", 256, 210, "0a1e345f0d8a0e8e"],
  ];

  test.each(digests)("%s", (type, block, size, digest) => {
    const rng = createRng(type);
    const bytes = Uint8Array.from({ length: 64 * size }, () => rng.int(256));
    const halves = type === "Q6_K" ? [208] : ["Q4_0", "Q5_0", "Q8_0"].includes(type) ? [0] : [0, 2];
    // Scales with one exponent bit cleared are finite.
    for (let k = 0; k < 64; k++) for (const at of halves) bytes[k * size + at + 1]! &= 0xbb;
    const values = dequantise(type, bytes, 64 * block, "test");
    // Adding zero turns -0 to 0, which ggml's order of operations may or may not give.
    expect(sha256(new Uint8Array(values.map((x) => x + 0).buffer)).slice(0, 16)).toBe(digest);
  });
});

describe("Q8_0 quantisation", () => {
  test("scale is the largest magnitude over 127, halves round away from zero", () => {
    // d = 127 / 127 = 1, so the values themselves are rounded.
    const values = Float32Array.from([127, -0.5, 0.5, 1.5, -1.5, 2.49, -126.5, ...new Array(25).fill(0)]);
    const bytes = quantise("q8_0", values, "test");
    expect(bytes.byteLength).toBe(34);
    expect(Array.from(new Int8Array(bytes.buffer, 2, 8))).toEqual([127, -1, 1, 2, -2, 2, -127, 0]);
    expect([bytes[0], bytes[1]]).toEqual(one);
  });

  test("a block of zeros stays zeros", () => {
    expect(quantise("q8_0", new Float32Array(32), "test")).toEqual(new Uint8Array(34));
  });

  test("comes back within half a step, and a second round changes nothing", () => {
    const rng = createRng(7);
    const values = Float32Array.from({ length: 320 }, () => rng.normal());
    const bytes = quantise("q8_0", values, "test");
    const back = dequantise("Q8_0", bytes, 320, "test");
    for (let block = 0; block < 10; block++) {
      const d = f16ToF32(Uint16Array.of(bytes[34 * block]! | (bytes[34 * block + 1]! << 8)))[0]!;
      for (let i = 32 * block; i < 32 * block + 32; i++) {
        // Half a step, and what rounding the scale to f16 (2^-11) moves the 127th multiple.
        expect(Math.abs(back[i]! - values[i]!)).toBeLessThanOrEqual(d * (0.5 + 127 * 2 ** -11));
      }
    }
    expect(quantise("q8_0", back, "test").filter((_, i) => i % 34 > 1)).toEqual(bytes.filter((_, i) => i % 34 > 1));
  });
});

test("f16 refuses what would become infinite", () => {
  expect(() => quantise("f16", Float32Array.of(1, 65519), "w")).not.toThrow();
  expect(() => quantise("f16", Float32Array.of(1, -65520), "w")).toThrow(
    "expected values below 65520 (f16), found 65520",
  );
});
