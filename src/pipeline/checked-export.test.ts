import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../base/testing.js";
import { bundledTextPath } from "../data/index.js";
import { type Model, openModel } from "../models/index.js";
import { f32Tensor } from "../tensor/index.js";
import { exportChecked } from "./checked-export.js";

const parent = await openModel(repositoryPath("models/stories260K"));
const check = bundledTextPath("valid");
const threads = 1;

/** A model whose first norm changes once the file has been written: what a writer that garbles it would look like. */
function changedAfter(reads: number): Model {
  const name = "model.layers.0.input_layernorm.weight";
  let left = reads;
  return {
    ...parent,
    weights: {
      has: (asked) => parent.weights.has(asked),
      shapeOf: (asked) => parent.weights.shapeOf(asked),
      async read(asked) {
        const tensor = await parent.weights.read(asked);
        if (asked !== name || left-- > 0) return tensor;
        return f32Tensor(
          tensor.shape,
          (tensor.data as Float32Array).map((value) => 2 * value),
        );
      },
    },
  };
}

describe("a checked export", () => {
  test("of a directory: the same logits in f32, and in f16 those of the values that it holds", async () => {
    const out = join(temporaryDirectory(), "model");
    const exact = await exportChecked(parent, { format: "hf", type: "f32", out, check, threads });
    expect(exact).toMatchObject({ path: out, format: "hf", type: "f32", maxAbsLogitDifference: 0 });
    expect(Math.abs(exact.kl!)).toBeLessThan(1e-12);
    const close = await exportChecked(parent, { format: "hf", type: "f16", out: `${out}-f16`, check, threads });
    expect(close.maxAbsLogitDifference).toBe(0);
    expect(close.kl).toBeGreaterThan(1e-9);
    expect(close.kl).toBeLessThan(1e-4);
  });

  test("of a GGUF: llama.cpp computes the same", async () => {
    const out = join(temporaryDirectory(), "model.gguf");
    const { maxAbsLogitDifference, kl } = await exportChecked(parent, {
      format: "gguf",
      type: "f32",
      out,
      check,
      threads,
    });
    expect(maxAbsLogitDifference).toBeLessThan(1e-3);
    expect(kl).toBeLessThan(1e-9);
    expect(existsSync(out)).toBe(true);
  });

  test("of a GGUF in F16: the logits of F16 arithmetic, where the f32 ones are further off", async () => {
    const out = join(temporaryDirectory(), "model.gguf");
    const { maxAbsLogitDifference, kl } = await exportChecked(parent, {
      format: "gguf",
      type: "f16",
      out,
      check,
      threads,
    });
    expect(maxAbsLogitDifference).toBeLessThan(5e-2);
    expect(kl).toBeGreaterThan(1e-9);
    expect(kl).toBeLessThan(1e-4);
  });

  test.each([
    ["hf", "f32", "expected logits within 0.001"],
    ["gguf", "f16", "expected logits within 0.05"],
    ["gguf", "q8_0", "expected a KL within 0.1"],
  ] as const)("of a wrong %s %s fails, and nothing has its name", async (format, type, message) => {
    const directory = temporaryDirectory();
    const out = join(directory, "model");
    const work = exportChecked(changedAfter(1), { format, type, out, check, threads });
    await expect(work).rejects.toThrow(`${out}: ${message}`);
    expect(readdirSync(directory)).toEqual([]);
  });

  test("without a text is written as it is", async () => {
    const out = join(temporaryDirectory(), "model");
    const saved = await exportChecked(changedAfter(1), { format: "hf", type: "f32", out });
    expect(saved.maxAbsLogitDifference).toBeUndefined();
    expect(existsSync(join(out, "model.safetensors"))).toBe(true);
  });

  test("a path that is taken, a text without tokens: told, with nothing written", async () => {
    const directory = temporaryDirectory();
    mkdirSync(join(directory, "taken"));
    const taken = exportChecked(parent, { format: "hf", type: "f32", out: join(directory, "taken"), check, threads });
    await expect(taken).rejects.toThrow(/taken: .*found a directory/);
    const text = join(directory, "short.txt");
    writeFileSync(text, "Hi.");
    const short = exportChecked(parent, {
      format: "hf",
      type: "f32",
      out: join(directory, "model"),
      check: text,
      threads,
    });
    await expect(short).rejects.toThrow(/short.txt: expected a text of at least 8 tokens.*--no-check/);
    expect(readdirSync(directory).sort()).toEqual(["short.txt", "taken"]);
  });
});
