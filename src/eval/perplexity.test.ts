import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { repositoryPath, sharedPath } from "../base/testing.js";
import { createEngine, type Engine } from "../engine/index.js";
import { type Model, openModel, overlayModel } from "../models/index.js";
import { createRuntime, type Runtime } from "../runtime/index.js";
import { type F32Tensor, f32Tensor, type HostTensor } from "../tensor/index.js";
import { loadTokenizer, type Tokenizer } from "../tokenizer/index.js";
import { cutWindows, measurePerplexity } from "./index.js";

describe("cutWindows", () => {
  test("without a start token, windows of context ids and a shorter last one", () => {
    expect(cutWindows([1, 2, 3, 4, 5], 3, undefined)).toEqual([
      [1, 2, 3],
      [4, 5],
    ]);
  });

  test("a window that predicts nothing is left out", () => {
    expect(cutWindows([1, 2, 3, 4], 3, undefined)).toEqual([[1, 2, 3]]);
  });

  test("the start token leads every window, so every id is predicted", () => {
    expect(cutWindows([1, 2, 3], 3, 9)).toEqual([
      [9, 1, 2],
      [9, 3],
    ]);
  });
});

describe("stories260K", () => {
  const text = gunzipSync(readFileSync(repositoryPath("data/tinystories/valid.txt.gz")))
    .toString("utf8")
    .slice(0, 3000);
  let runtime: Runtime;
  let model: Model;
  let engine: Engine;
  let tokenizer: Tokenizer;
  beforeAll(async () => {
    runtime = await createRuntime({ threads: 1 });
    model = await openModel(repositoryPath("models/stories260K"));
    engine = createEngine(runtime, model);
    tokenizer = loadTokenizer(model.sidecars.tokenizer!);
  });
  afterAll(async () => {
    await model.close();
    await runtime.dispose();
  });

  test("perplexity is the exponential of nll, bits per byte count all bytes", async () => {
    const ids = tokenizer.encode(text, { addSpecial: false });
    const result = await measurePerplexity(engine, tokenizer, text, { context: 64 });
    expect(result.tokens).toBe(ids.length);
    expect(result.windows).toBe(Math.ceil(ids.length / 63));
    expect(result.perplexity).toBeCloseTo(Math.exp(result.nll), 10);
    const bytes = Buffer.byteLength(text);
    expect(result.bitsPerByte).toBeCloseTo((result.nll * ids.length) / Math.LN2 / bytes, 10);
    // Batches are how it is computed, not what is computed.
    const oneByOne = await measurePerplexity(engine, tokenizer, text, { context: 64, batchTokens: 1 });
    expect(oneByOne.nll).toBeCloseTo(result.nll, 5);
  });

  test("a model does not diverge from itself, and diverges from another", async () => {
    const same = await measurePerplexity(engine, tokenizer, text, { context: 64, parent: engine });
    expect(Math.abs(same.kl!.mean)).toBeLessThan(1e-6);
    expect(same.parent!.nll).toBeCloseTo(same.nll, 5);
    const norm = (await model.weights.read("model.norm.weight")) as F32Tensor;
    const halved = f32Tensor(
      norm.shape,
      norm.data.map((w) => w / 2),
    );
    const flat = overlayModel(model, model.config, new Map<string, HostTensor>([["model.norm.weight", halved]]));
    const result = await measurePerplexity(createEngine(runtime, flat), tokenizer, text, {
      context: 64,
      parent: engine,
    });
    expect(result.kl!.mean).toBeGreaterThan(0.1);
    expect(result.kl!.low).toBeLessThan(result.kl!.mean);
    expect(result.kl!.n).toBe(result.windows);
    expect(result.parent!.nll).toBeCloseTo(same.nll, 5);
  });

  test("a context out of range and a text with nothing to predict are refused", async () => {
    await expect(measurePerplexity(engine, tokenizer, text, { context: 513 })).rejects.toThrow("2 to 512 tokens");
    await expect(measurePerplexity(engine, tokenizer, "")).rejects.toThrow("at least one token to predict");
  });
});

const instruct = sharedPath("models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
test.skipIf(!instruct)("SmolLM2 (shared): the first window of WikiText-2", { timeout: 180_000 }, async () => {
  const golden = JSON.parse(readFileSync(repositoryPath("test/golden/models/smollm2-135m-instruct.json"), "utf8")) as {
    texts: { file: string; mean_nll_512: number }[];
  };
  const { file, mean_nll_512 } = golden.texts[0]!;
  const text = gunzipSync(readFileSync(sharedPath(`data/${file}`)!))
    .toString("utf8")
    .slice(0, 20_000);
  const runtime = await createRuntime({ threads: 2 });
  const model = await openModel(instruct!);
  const tokenizer = loadTokenizer(model.sidecars.tokenizer!);
  const result = await measurePerplexity(createEngine(runtime, model), tokenizer, text, { maxWindows: 1 });
  expect(result.tokens).toBe(511);
  expect(Math.abs(result.nll / mean_nll_512 - 1)).toBeLessThan(1e-4);
  await model.close();
  await runtime.dispose();
});
