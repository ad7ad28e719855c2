import { expect, test } from "vitest";
import { f32Tensor } from "../../tensor/index.js";
import { createGraph } from "../builder.js";
import { emitOnnx } from "./emit.js";

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("latin1");

function twoConstants() {
  const g = createGraph("constants");
  const x = g.input("x", [600]);
  const first = g.constant(f32Tensor([600], new Float32Array(600).fill(2)));
  const second = g.constant(f32Tensor([600], new Float32Array(600).fill(3)));
  g.output("y", g.mul(g.add(x, first), second));
  return g;
}

test("constants lie in the model unless external data is asked for", () => {
  const { bytes, externalData } = emitOnnx(twoConstants());
  expect(externalData).toBeUndefined();
  expect(bytes.length).toBeGreaterThan(2 * 2400);
});

test("external data starts at pages, and the model says where", () => {
  const { bytes, externalData } = emitOnnx(twoConstants(), { externalBytes: 1000, externalName: "big.bin" });
  expect(bytes.length).toBeLessThan(1000);
  expect(externalData!.path).toBe("big.bin");
  expect(externalData!.data.length).toBe(4096 + 2400);
  expect(new Float32Array(externalData!.data.buffer, 0, 1)[0]).toBe(2);
  expect(new Float32Array(externalData!.data.buffer, 4096, 1)[0]).toBe(3);
  // StringStringEntryProto { key, value }, as text with length prefixes.
  for (const entry of ["\x0a\x08location\x12\x07big.bin", "\x0a\x06offset\x12\x044096", "\x0a\x06length\x12\x042400"]) {
    expect(text(bytes)).toContain(entry);
  }
});

test("equal constants are stored once, and equal graphs give equal bytes", () => {
  const g = createGraph("same");
  const x = g.input("x", [600]);
  const constant = () => g.constant(f32Tensor([600], new Float32Array(600).fill(2)));
  g.output("y", g.mul(g.add(x, constant()), constant()));
  expect(emitOnnx(g).bytes.length).toBeLessThan(2 * 2400);
  expect(emitOnnx(g).bytes).toEqual(emitOnnx(g).bytes);
});

test("a by-product that nothing reads is not asked for", () => {
  const g = createGraph("norm");
  const [x, w] = [g.input("x", [2, 3]), g.input("w", [3])];
  const [y, statistics] = g.apply("rmsNorm", [x, w], { eps: 1e-5 });
  g.output("y", y!);
  const without = emitOnnx(g).bytes.length;
  g.output("statistics", statistics!);
  expect(emitOnnx(g).bytes.length).toBeGreaterThan(without);
});
