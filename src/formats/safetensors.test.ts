import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { createRng, memorySource, sha256 } from "../base/index.js";
import { repositoryPath, temporaryDirectory } from "../base/testing.js";
import type { TensorPlan } from "./checkpoint.js";
import {
  openSafetensors,
  openSafetensorsFile,
  openShardedSafetensors,
  writeSafetensors,
  writeShardedSafetensors,
} from "./safetensors.js";

const plan = (name: string, shape: number[], values: readonly number[]): TensorPlan => ({
  name,
  shape,
  read: async () => Float32Array.from(values),
});

/** A file with the given header text and data. */
function fileOf(header: string | object, data = new Uint8Array(0), length?: bigint): Uint8Array {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.byteLength + data.byteLength);
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(json.byteLength), true);
  bytes.set(json, 8);
  bytes.set(data, 8 + json.byteLength);
  return bytes;
}

const open = (bytes: Uint8Array) => openSafetensors(memorySource(bytes, "x.safetensors"));

describe("writing and reading", () => {
  const values = [1, -2.5, 0.333251953125, 65504, -0, 2 ** -14];

  // 1365/4096 = 0.333251953125 takes the 11 bits that f16 has; bf16 has 8, so it becomes 171/512 and 65504 becomes 65536.
  test.each([
    ["f32", values],
    ["f16", values],
    ["bf16", [1, -2.5, 0.333984375, 65536, -0, 2 ** -14]],
  ] as const)("%s comes back rounded to the type", async (type, expected) => {
    const path = join(temporaryDirectory(), "x.safetensors");
    await writeSafetensors(path, [plan("a", [2, 3], values), plan("b", [], [7])], { type });
    const file = await openSafetensorsFile(path);
    expect(file.info("a")).toEqual({ type: type.toUpperCase(), shape: [2, 3], byteLength: type === "f32" ? 24 : 12 });
    expect(await file.read("a")).toEqual(Float32Array.from(expected));
    expect(await file.read("b")).toEqual(Float32Array.from([7]));
    expect(file.metadata).toEqual({ format: "pt" });
    await file.close();
  });

  test("the bytes are the format's: length, header padded to eight, data", async () => {
    const path = join(temporaryDirectory(), "x.safetensors");
    await writeSafetensors(path, [plan("w", [2], [1, 2])]);
    const header = '{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}';
    const padded = header.padEnd(Math.ceil(header.length / 8) * 8);
    const data = new Uint8Array(Float32Array.from([1, 2]).buffer);
    expect(new Uint8Array(readFileSync(path))).toEqual(fileOf(padded, data));
  });

  test("the bundled parent is what the conversion wrote", async () => {
    const path = repositoryPath("models/stories260K/model.safetensors");
    expect(sha256(readFileSync(path))).toBe("7fe20d74ed0c9325c818c61ad972080a09b1d862dea4d4868f25afdff0ac6f98");
  });

  test("shards hold at most the given bytes, and the index finds every tensor", async () => {
    const directory = temporaryDirectory();
    const rng = createRng(1);
    const tensors = Array.from({ length: 5 }, (_, i) =>
      plan(
        `t${i}`,
        [3, 2],
        Array.from({ length: 6 }, () => Math.fround(rng.normal())),
      ),
    );
    const files = await writeShardedSafetensors(directory, tensors, { maxShardBytes: 48 });
    expect(files).toEqual([
      "model-00001-of-00003.safetensors",
      "model-00002-of-00003.safetensors",
      "model-00003-of-00003.safetensors",
      "model.safetensors.index.json",
    ]);
    const file = await openShardedSafetensors(join(directory, "model.safetensors.index.json"));
    for (const tensor of tensors) expect(await file.read(tensor.name)).toEqual(await tensor.read());
    await file.close();
  });

  test("values that do not fill the shape are refused, and nothing is left behind", async () => {
    const path = join(temporaryDirectory(), "x.safetensors");
    await expect(writeSafetensors(path, [plan("w", [3], [1, 2])])).rejects.toThrow(
      "expected 3 values for [3], found 2",
    );
    expect(() => readFileSync(path)).toThrow();
  });
});

describe("headers that lie", () => {
  const entry = { dtype: "F32", shape: [2], data_offsets: [0, 8] };
  const eight = new Uint8Array(8);

  test.each([
    ["nothing", new Uint8Array(0), "expected a safetensors file, found 0 bytes"],
    ["a length beyond the file", fileOf("{}", eight, 1n << 40n), "expected a header of 2 to 10 bytes"],
    ["no JSON", fileOf("{nope", eight), "expected JSON"],
    ["no object", fileOf("[1]", eight), "header: one problem"],
    ["an unknown type", fileOf({ w: { ...entry, dtype: "F12" } }, eight), "found F12"],
    ["a shape of other size", fileOf({ w: { ...entry, shape: [3] } }, eight), "expected 12 bytes for F32 [3], found 8"],
    ["a negative size", fileOf({ w: { ...entry, shape: [-2] } }, eight), "shape.0"],
    ["a huge size", fileOf({ w: { ...entry, shape: [2 ** 40, 2 ** 40] } }, eight), "found 8"],
    ["a hole", fileOf({ w: { ...entry, data_offsets: [4, 12] } }, new Uint8Array(12)), "expected data at byte 0"],
    ["overlap", fileOf({ v: entry, w: entry }, eight), "expected data at byte 8, found byte 0"],
    ["a truncated file", fileOf({ w: entry }, new Uint8Array(5)), "the file is truncated"],
    ["bytes after the end", fileOf({ w: entry }, new Uint8Array(9)), "appended"],
    [
      "two of a name",
      fileOf(`{"w":${JSON.stringify(entry)},"w" :${JSON.stringify(entry)}}`, eight),
      "two entries named w",
    ],
    ["metadata that is no text", fileOf({ __metadata__: { a: 1 }, w: entry }, eight), "__metadata__"],
  ])("%s", async (_, bytes, message) => {
    await expect(open(bytes)).rejects.toThrow(message);
  });

  test("a type that is no weight type is refused when read, not before", async () => {
    const file = await open(fileOf({ w: { dtype: "I64", shape: [1], data_offsets: [0, 8] } }, eight));
    await expect(file.read("w")).rejects.toThrow("expected F32, F16 or BF16, found I64");
  });

  test("an index that names a missing tensor or a path outside", async () => {
    const directory = temporaryDirectory();
    await writeSafetensors(join(directory, "a.safetensors"), [plan("w", [1], [1])]);
    const index = join(directory, "model.safetensors.index.json");
    writeFileSync(index, JSON.stringify({ weight_map: { v: "a.safetensors" } }));
    await expect(openShardedSafetensors(index)).rejects.toThrow("expected v in a.safetensors");
    writeFileSync(index, JSON.stringify({ weight_map: { w: "../a.safetensors" } }));
    await expect(openShardedSafetensors(index)).rejects.toThrow("expected a file name");
  });
});

test("rows read alone are slices of the tensor, and pieces written are the whole", async () => {
  const rng = createRng(3);
  const shape = [4099, 1031]; // two pieces when written or read, the second shorter
  const values = Float32Array.from({ length: 4099 * 1031 }, () => rng.normal());
  const readRows = async (from: number, to: number) => values.slice(from * 1031, to * 1031);
  const whole = [{ name: "w", shape, read: async () => values }];
  const pieces = [{ ...whole[0]!, readRows }];
  for (const type of ["f32", "f16", "bf16"] as const) {
    const [a, b] = [join(temporaryDirectory(), "a"), join(temporaryDirectory(), "b")];
    await writeSafetensors(a, whole, { type });
    await writeSafetensors(b, pieces, { type });
    expect(sha256(readFileSync(b))).toBe(sha256(readFileSync(a)));
    const file = await openSafetensorsFile(a);
    const all = await file.read("w");
    for (const [from, to] of [
      [0, 1],
      [4098, 4099],
      [17, 90],
      [5, 5],
    ] as const) {
      expect(await file.readRows("w", from, to)).toEqual(all.slice(from * 1031, to * 1031));
    }
    await expect(file.readRows("w", 4000, 4100)).rejects.toThrow("expected rows of 0 to 4099, found 4000 to 4100");
    await file.close();
  }
});
