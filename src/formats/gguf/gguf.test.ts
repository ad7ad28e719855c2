import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { createRng, memorySource, sha256 } from "../../base/index.js";
import { sharedPath, temporaryDirectory } from "../../base/testing.js";
import { openGguf, openGgufFile } from "./reader.js";
import type { GgufEntry } from "./types.js";
import { type GgufTensorPlan, ggufFileBytes, resolveTensorType, writeGgufFile } from "./writer.js";

const entries: [string, GgufEntry][] = [
  ["general.architecture", { type: "string", value: "llama" }],
  ["a.u8", { type: "u8", value: 255 }],
  ["a.i8", { type: "i8", value: -128 }],
  ["a.u16", { type: "u16", value: 65535 }],
  ["a.i16", { type: "i16", value: -2 }],
  ["a.u32", { type: "u32", value: 4294967295 }],
  ["a.i32", { type: "i32", value: -3 }],
  ["a.f32", { type: "f32", value: 0.5 }],
  ["a.f64", { type: "f64", value: 0.1 }],
  ["a.bool", { type: "bool", value: true }],
  ["a.u64", { type: "u64", value: 2n ** 63n }],
  ["a.i64", { type: "i64", value: -4 }],
  ["a.text", { type: "string", value: "▁ü😀" }],
  ["a.texts", { type: "array", of: "string", value: ["", "a", "▁b"] }],
  ["a.ints", { type: "array", of: "i32", value: Int32Array.of(1, -1) }],
  ["a.floats", { type: "array", of: "f32", value: Float32Array.of(1.5, -0.25) }],
  ["a.bools", { type: "array", of: "bool", value: [true, false] }],
  ["a.longs", { type: "array", of: "u64", value: [1, 2n ** 60n] }],
];

function plan(name: string, shape: number[], type: GgufTensorPlan["type"], seed = 1): GgufTensorPlan {
  const rng = createRng(seed);
  const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => Math.fround(rng.normal()));
  return { name, shape, type, read: async () => values };
}

const tensors = [
  plan("a.weight", [3, 32], "q8_0"),
  plan("b.weight", [5], "f32"),
  plan("c.weight", [3, 7], "f16"),
  plan("d.weight", [2, 3], "bf16"),
];

async function write(): Promise<string> {
  const path = join(temporaryDirectory(), "x.gguf");
  await writeGgufFile(path, entries, tensors);
  return path;
}

describe("writing and reading", () => {
  test("metadata of every type comes back with its type", async () => {
    const file = await openGgufFile(await write());
    expect(file.version).toBe(3);
    expect([...file.metadata]).toEqual(entries);
    await file.close();
  });

  test("tensors come back, rounded to their types", async () => {
    const file = await openGgufFile(await write());
    expect(file.names).toEqual(["a.weight", "b.weight", "c.weight", "d.weight"]);
    expect(file.info("a.weight")).toEqual({ type: "Q8_0", shape: [3, 32], byteLength: 102 });
    expect(await file.read("b.weight")).toEqual(await tensors[1]!.read());
    // Relative rounding error: half a unit of 11 bits, of 8 bits, and half a step of the block's scale.
    for (const [name, index, bound] of [
      ["c.weight", 2, 2 ** -11],
      ["d.weight", 3, 2 ** -8],
    ] as const) {
      const [read, exact] = [await file.read(name), await tensors[index]!.read()];
      for (const [i, x] of exact.entries()) expect(Math.abs(read[i]! - x)).toBeLessThanOrEqual(bound * Math.abs(x));
    }
    await file.close();
  });

  test("equal input gives equal bytes, of the predicted number, data at multiples of 32", async () => {
    const [first, second] = [readFileSync(await write()), readFileSync(await write())];
    expect(sha256(first)).toBe(sha256(second));
    expect(first.byteLength).toBe(ggufFileBytes(entries, tensors));
    expect(first.byteLength % 32).toBe(0);
    expect(first.subarray(0, 8)).toEqual(Buffer.from("GGUF\x03\0\0\0", "latin1"));
  });

  test("a tensor name that llama.cpp refuses is refused", async () => {
    const path = join(temporaryDirectory(), "x.gguf");
    await expect(writeGgufFile(path, [], [plan("x".repeat(64), [1], "f32")])).rejects.toThrow("at most 63 bytes");
  });
});

test("types fall back as llama.cpp's quantiser falls back", () => {
  expect(resolveTensorType("q8_0", [64])).toBe("f32");
  expect(resolveTensorType("f16", [64])).toBe("f32");
  expect(resolveTensorType("q8_0", [172, 64])).toBe("q8_0");
  expect(resolveTensorType("q8_0", [64, 172])).toBe("f16");
  expect(resolveTensorType("bf16", [64, 172])).toBe("bf16");
});

describe("headers that lie", () => {
  /** Bytes of the file with some of them changed: `at` counts from the start, values are u32. */
  async function damaged(change: (bytes: Uint8Array, view: DataView) => Uint8Array | undefined): Promise<Uint8Array> {
    const bytes = new Uint8Array(readFileSync(await write()));
    return change(bytes, new DataView(bytes.buffer)) ?? bytes;
  }
  const set = (at: number, value: number) => (_: Uint8Array, view: DataView) => {
    view.setUint32(at, value, true);
    return undefined;
  };

  // Header: magic at 0, version at 4, tensors at 8, keys at 16; first key's length at 24, its type at 24 + 8 + 20.
  test.each([
    ["magic", set(0, 1), 'a GGUF file (it begins with "GGUF")'],
    ["version 1", set(4, 1), "found version 1"],
    ["big-endian", set(4, 0x03000000), "found a big-endian file"],
    ["more tensors than there are", set(8, 1000), "x.gguf"],
    ["a count beyond all bounds", set(12, 1 << 30), "expected a length"],
    ["a key longer than the file", set(24, 1 << 28), "found the end of the file"],
    ["an unknown value type", set(52, 99), "a value type of 0 to 12 for general.architecture"],
    ["a truncated header", (b: Uint8Array) => b.subarray(0, 100), "found the end of the file"],
    ["truncated data", (b: Uint8Array) => b.subarray(0, b.byteLength - 40), "the file is truncated"],
    ["nothing", () => new Uint8Array(0), "found the end of the file"],
  ])("%s", async (_, change, message) => {
    await expect(openGguf(memorySource(await damaged(change), "x.gguf"))).rejects.toThrow(message);
  });

  test("two keys of one name, an unknown tensor type, offsets with a hole", async () => {
    const directory = temporaryDirectory();
    const double = join(directory, "double.gguf");
    await writeGgufFile(double, [entries[1]!, entries[1]!], []);
    await expect(openGgufFile(double)).rejects.toThrow("metadata key a.u8 for a second time");
    const path = join(directory, "x.gguf");
    await writeGgufFile(path, [], [plan("w", [4], "f32")]);
    // Tensor info: name length 24, name 32, dimensions 33, size 37, type 45, offset 49.
    for (const [at, value, message] of [
      [45, 31, "unknown type 31"],
      [49, 32, "expected data at byte 0"],
    ] as const) {
      const bytes = new Uint8Array(readFileSync(path));
      new DataView(bytes.buffer).setUint32(at, value, true);
      await expect(openGguf(memorySource(bytes, "x.gguf"))).rejects.toThrow(message);
    }
  });
});

const smol = sharedPath("models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");

test.skipIf(!smol)("a published file of 134.5M parameters", async () => {
  const file = await openGgufFile(smol!);
  expect(file.names.length).toBe(272);
  expect(file.info("token_embd.weight")).toEqual({ type: "Q8_0", shape: [49152, 576], byteLength: 30081024 });
  expect(file.metadata.get("tokenizer.ggml.pre")).toEqual({ type: "string", value: "smollm" });
  const values = await file.read("blk.0.attn_q.weight");
  expect(Array.from(values.subarray(0, 4))).toEqual([-0.0963134765625, 0.1573486328125, -0.0963134765625, -0.73046875]);
  await file.close();
});

test("rows read alone are slices of the tensor in every type that is written", async () => {
  const rng = createRng(3);
  const values = Float32Array.from({ length: 96 * 7 }, () => rng.normal());
  for (const type of ["f32", "f16", "bf16", "q8_0"] as const) {
    const path = join(temporaryDirectory(), "rows.gguf");
    await writeGgufFile(path, [], [{ name: "w", shape: [7, 96], type, read: async () => values }]);
    const file = await openGgufFile(path);
    const all = await file.read("w");
    for (const [from, to] of [
      [0, 1],
      [3, 7],
      [2, 2],
    ] as const) {
      expect(await file.readRows("w", from, to)).toEqual(all.slice(from * 96, to * 96));
    }
    await expect(file.readRows("w", -1, 3)).rejects.toThrow("rows of 0 to 7");
    await file.close();
  }
});
