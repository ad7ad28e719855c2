import { describe, expect, test } from "vitest";
import { createGraph } from "../graph/index.js";
import { f32Tensor } from "../tensor/index.js";
import { createRuntime, defaultThreads, listDevices, profileProgram } from "./index.js";

function affine() {
  const g = createGraph("affine");
  const x = g.input("x", [2, 3]);
  const w = g.input("w", [4, 3]);
  g.output("y", g.linear(x, w));
  g.output("twice", g.scale(x, 2));
  return g;
}

const x = f32Tensor([2, 3], [1, 2, 3, 4, 5, 6]);
const w = f32Tensor([4, 3], [1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1]);

describe("programs", () => {
  test("give the numbers of their graph", async () => {
    const runtime = await createRuntime();
    const program = await runtime.compile(affine());
    const { y, twice } = await program.run({ x, w });
    expect([...y!.data]).toEqual([1, 2, 3, 6, 4, 5, 6, 15]);
    expect([...twice!.data]).toEqual([2, 4, 6, 8, 10, 12]);
    await runtime.dispose();
  });

  test("write given outputs in place and read views of larger arrays", async () => {
    const runtime = await createRuntime();
    const program = await runtime.compile(affine());
    const buffer = new Float32Array(20).fill(-1);
    buffer.set(x.data, 0);
    const view = f32Tensor([2, 3], buffer.subarray(0, 6));
    const y = f32Tensor([2, 4], buffer.subarray(8, 16));
    const results = await program.run({ x: view, w }, { y });
    expect(results.y).toBe(y);
    expect([...buffer]).toEqual([1, 2, 3, 4, 5, 6, -1, -1, 1, 2, 3, 6, 4, 5, 6, 15, -1, -1, -1, -1]);
    await runtime.dispose();
  });

  test("may update a tensor that is input and output at once", async () => {
    const runtime = await createRuntime();
    const g = createGraph("decay");
    const p = g.input("p", [3]);
    g.output("next", g.scale(p, 0.5));
    const value = f32Tensor([3], [2, 4, 8]);
    const program = await runtime.compile(g);
    await program.run({ p: value }, { next: value });
    await program.run({ p: value }, { next: value });
    expect([...value.data]).toEqual([0.5, 1, 2]);
    await runtime.dispose();
  });

  test("of equal graphs are one", async () => {
    const runtime = await createRuntime();
    expect(await runtime.compile(affine())).toBe(await runtime.compile(affine()));
    await runtime.dispose();
  });

  test("stay usable after dispose and after eviction", async () => {
    const runtime = await createRuntime({ maxSessions: 1 });
    const first = await runtime.compile(affine());
    const g = createGraph("other");
    g.output("z", g.neg(g.input("x", [2, 3])));
    const second = await runtime.compile(g);
    for (let i = 0; i < 2; i++) {
      expect([...(await first.run({ x, w })).twice!.data]).toEqual([2, 4, 6, 8, 10, 12]);
      expect([...(await second.run({ x })).z!.data]).toEqual([-1, -2, -3, -4, -5, -6]);
    }
    await first.dispose();
    expect([...(await first.run({ x, w })).twice!.data]).toEqual([2, 4, 6, 8, 10, 12]);
    await runtime.dispose();
  });

  test("say which input is wrong", async () => {
    const runtime = await createRuntime();
    const program = await runtime.compile(affine());
    const where = "program affine: expected";
    await expect(program.run({ x })).rejects.toThrow(`input w of ${where} f32[4, 3], found nothing`);
    await expect(program.run({ x: w, w })).rejects.toThrow(`input x of ${where} f32[2, 3], found f32[4, 3]`);
    await expect(program.run({ x, w, z: x })).rejects.toThrow(`input z of ${where} one of x, w`);
    await expect(program.run({ x, w }, { q: x })).rejects.toThrow(`output q of ${where} one of y, twice`);
    await runtime.dispose();
  });

  test("run one after the other when called at once", async () => {
    const runtime = await createRuntime({ maxSessions: 1 });
    const program = await runtime.compile(affine());
    const results = await Promise.all(Array.from({ length: 8 }, () => program.run({ x, w })));
    for (const { y } of results) expect([...y!.data]).toEqual([1, 2, 3, 6, 4, 5, 6, 15]);
    await runtime.dispose();
  });

  test("give the same bytes for the same input", async () => {
    const g = createGraph("softmax_of_product");
    const a = g.input("a", [64, 96]);
    g.output("p", g.softmax(g.matmul(a, a, { transposeB: true })));
    const input = f32Tensor(
      [64, 96],
      Float32Array.from({ length: 64 * 96 }, (_, i) => Math.sin(i * i)),
    );
    const bytes = async () => {
      const runtime = await createRuntime();
      const { p } = await (await runtime.compile(g)).run({ a: input });
      await runtime.dispose();
      return Buffer.from(p!.data.buffer, p!.data.byteOffset, p!.data.byteLength).toString("base64");
    };
    expect(await bytes()).toBe(await bytes());
  });
});

describe("devices", () => {
  test("the CPU is always present, with at least one thread", async () => {
    expect((await listDevices()).find(({ device }) => device === "cpu")).toEqual({ device: "cpu", present: true });
    expect(defaultThreads()).toBeGreaterThanOrEqual(1);
  });

  test("one that is missing is an error that names those present", async () => {
    const missing = (await listDevices()).find(({ present }) => !present);
    if (missing) await expect(createRuntime({ device: missing.device })).rejects.toThrow(/expected one of cpu/);
    await expect(createRuntime({ device: "abacus" })).rejects.toThrow(/found abacus/);
  });
});

test("a profile names the operators and what they take", async () => {
  const runtime = await createRuntime();
  const { operators, nodes } = await profileProgram(runtime, affine(), { x, w });
  expect(operators.map(({ op, count }) => [op, count])).toContainEqual(["Gemm", 1]);
  expect(nodes.find(({ op }) => op === "Gemm")?.inputs).toContain('"float":[4,3]');
  for (const { milliseconds } of operators) expect(milliseconds).toBeGreaterThanOrEqual(0);
  await runtime.dispose();
});
