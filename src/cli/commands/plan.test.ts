import { statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../../base/testing.js";
import { openModel, writeGguf } from "../../models/index.js";
import { runCli } from "../testing.js";
import { createCommand } from "./plan.js";

async function run(...words: string[]) {
  return runCli(createCommand(), words);
}

const parent = repositoryPath("models/stories260K");

describe("espalier plan", () => {
  test("says the bytes of a file before it is written", async () => {
    const facts = JSON.parse((await run(parent, "--json")).out);
    const size = facts.sizes.find(({ type }: { type: string }) => type === "F16");
    const path = join(temporaryDirectory(), "model.gguf");
    const model = await openModel(parent);
    await writeGguf(model, path, { type: "f16" });
    await model.close();
    expect(size).toMatchObject({ imatrix: false, headerExact: true, bytes: statSync(path).size });
    expect(JSON.parse((await run(path, "--json")).out).sizes).toEqual(facts.sizes);
  });

  test("of a GGUF: with the header that it has, whoever wrote it", async () => {
    const path = join(temporaryDirectory(), "model.gguf");
    const model = await openModel(parent);
    await writeGguf(model, path, {
      type: "q8_0",
      name: "a name that is much longer than the one of the model itself, by far",
    });
    await model.close();
    const { sizes } = JSON.parse((await run(path, "--json")).out);
    const size = sizes.find(({ type }: { type: string }) => type === "Q8_0");
    expect([size.bytes, size.headerExact]).toEqual([statSync(path).size, true]);
  });

  test("of a name: sizes, memory and what runs it", async () => {
    const { out } = await run("llama-3.1-8b");
    expect(out).toMatch(/Q4_K_M +4,920,739,232 +4\.58 GiB +4\.89/);
    expect(out).toMatch(/kv cache +1\.00 GiB/);
    const listed = JSON.parse((await run("llama-3.1-8b", "--gpus", "--json")).out).gpus;
    expect(listed.find(({ name }: { name: string }) => name === "RTX 4090")).toMatchObject({
      count: 1,
      fits: true,
      type: "Q4_K_M",
      context: 8192,
      memoryBytes: 24 * 2 ** 30,
    });
  });

  test("of a GPU that is too small: how many layers it holds", async () => {
    const { out } = await run("llama-3.1-70b", "--gpu", "rtx 4090");
    expect(out).toMatch(/RTX 4090 +24\.0 GiB +- +\d+ of 80 layers/);
  });

  test("of several, side by side", async () => {
    const { out } = await run("llama-3.1-70b", "llama-3.3-nemotron-super-49b");
    expect(out).toMatch(/kv bytes a token +327,680 +200,704/);
    expect(out).toMatch(/MMLU +81\.66 \[1\], 82 \[\d\]/);
    expect(out).toContain("[1] arXiv:2411.19146");
  });

  test("of training: each method with its parts, reshaping from the recipe's numbers", async () => {
    const { training, trainingUse } = JSON.parse((await run(parent, "--batch", "2", "--json")).out);
    expect(trainingUse).toEqual({ batch: 2, length: 256, rank: 16, share: 0.8 });
    const full = training.find(({ method }: { method: string }) => method === "full");
    expect(full).toMatchObject({ precision: "f32", weightsBytes: 4 * 260_032, optimiserBytes: 8 * 260_032 });
    const { out } = await run("llama-3.1-8b", "--training");
    expect(out).toMatch(/lora +30\.1 GiB +160 MiB +320 MiB/);
    expect(out).toMatch(/reshape, in \w+ /);
    expect((await run("nemotron-4-340b", "--training")).out).not.toContain("reshape");
  });

  test("of a server: parallelism, rate and rent", async () => {
    const { server } = JSON.parse((await run("llama-3.1-70b", "--server", "H100 SXM", "--json")).out);
    expect(server).toMatchObject({ gpu: "H100 SXM", type: "fp8", input: 128, output: 1024, tensorParallel: 2 });
    expect(server.costPerMonth).toBeCloseTo(2 * 2.95 * 730, 6);
    expect(server.costPerMillionTokens).toBeCloseTo(2.95 / (server.tokensPerSecondPerGpu * 3600e-6), 9);
    expect((await run("smollm2-135m", "--server", "H100 SXM")).out).toContain("heads do not divide by 2, 4, 8");
  });

  test("of the page of Nemotron-4-340B: its figures, and the exact ones", async () => {
    const { out } = await run("nemotron-4-340b", "--page");
    expect(out).toMatch(/4\.5 +194\.2 GB +191\.8 GB/);
    expect(out).toMatch(/16 +682\.9 GB +682\.1 GB/);
  });

  test.each([
    [["llama-3.1-9b"], "did you mean llama-3.1-8b"],
    [["llama-3.1-8b", "--type", "q4"], "--type: expected one of F32, F16, BF16, Q8_0"],
    [["llama-3.1-8b", "--cache", "q8_0", "--no-flash-attention"], "llama.cpp cannot quantise values then"],
    [["llama-3.1-8b", "--share", "1.5"], "--share: expected above 0, at most 1"],
    [["llama-3.1-8b", "--gpu", "RTX 4091"], "did you mean RTX 4090"],
  ])("%j is refused", async (words, message) => {
    const { error, exitCode } = await run(...words);
    expect(error).toContain(message);
    expect(exitCode).toBe(2);
  });
});
