import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { hashFile } from "../base/index.js";
import { repositoryPath, temporaryDirectory } from "../base/testing.js";
import { openGgufFile } from "../formats/index.js";
import { maxAbsDifference } from "../tensor/index.js";
import { loadTokenizer } from "../tokenizer/index.js";
import { type Model, type ModelConfig, modelWeights } from "./config.js";
import { openModel } from "./open.js";
import { ggufExportBytes, writeGguf, writeHub, writeModelfile } from "./save.js";
import { createTestModel, gqa, linear, none, referenceLogits, swiglu, testConfig } from "./testing.js";

const path = (name: string) => join(temporaryDirectory(), name);
const uniform = [
  { attention: gqa(2), ffn: swiglu(40) },
  { attention: gqa(2), ffn: swiglu(40) },
];
const irregular = [
  { attention: gqa(4), ffn: swiglu(40) },
  { attention: gqa(1), ffn: swiglu(64) },
  { attention: linear, ffn: swiglu(32) },
  { attention: none, ffn: swiglu(96) },
];

async function expectSameWeights(a: Model, b: Model): Promise<void> {
  for (const { name } of modelWeights(a.config)) {
    const [x, y] = [await a.weights.read(name), await b.weights.read(name)];
    expect([name, y.shape, maxAbsDifference(x.data as Float32Array, y.data as Float32Array)]).toEqual([
      name,
      x.shape,
      0,
    ]);
  }
}

describe("what is written in f32 is read back, value for value", () => {
  const llama3 = {
    type: "llama3",
    factor: 8,
    lowFreqFactor: 1,
    highFreqFactor: 4,
    originalMaxPositions: 8192,
  } as const;
  const cases: [string, Partial<ModelConfig>][] = [
    ["plain Llama", { blocks: uniform }],
    ["untied", { blocks: uniform, tiedEmbeddings: false }],
    ["biases of q, k and v (Qwen2)", { blocks: uniform, attentionBias: true }],
    ["all biases", { blocks: uniform, attentionBias: true, attentionOutputBias: true, mlpBias: true }],
    ["a head size of its own", { blocks: uniform, headDim: 12 }],
    ["llama3 scaling", { blocks: uniform, headDim: 64, rope: { theta: 500000, scaling: llama3 } }],
    ["linear scaling", { blocks: uniform, rope: { theta: 10000, scaling: { type: "linear", factor: 4 } } }],
    ["irregular blocks", { blocks: irregular }],
    [
      "irregular blocks with all biases",
      { blocks: irregular, attentionBias: true, attentionOutputBias: true, mlpBias: true },
    ],
  ];

  test.each(cases)("%s", async (_, changes) => {
    const model = createTestModel(testConfig(changes));
    const family = changes.blocks === irregular ? "deci" : "llama";
    for (const format of ["hf", "gguf"] as const) {
      const out = path(format);
      const saved = format === "hf" ? await writeHub(model, out) : await writeGguf(model, out);
      expect(saved.notes).toEqual([]);
      const back = await openModel(out);
      const { modelType: _type, family: _family, ...rest } = model.config;
      expect(back.config).toMatchObject({ ...rest, family });
      await expectSameWeights(model, back);
      await back.close();
    }
  });

  test("the function is the same where blocks had to be packed anew", async () => {
    const blocks = [
      { attention: none, ffn: linear },
      { attention: gqa(2), ffn: none },
      { attention: gqa(4), ffn: swiglu(40) },
    ];
    const model = createTestModel(testConfig({ blocks }));
    const ids = [1, 403, 407, 261];
    for (const write of [writeGguf, writeHub]) {
      const out = path("packed");
      await write(model, out);
      const back = await openModel(out);
      expect(maxAbsDifference(await referenceLogits(model, ids), await referenceLogits(back, ids))).toBe(0);
      await back.close();
    }
  });
});

describe("a child is complete", () => {
  test("licence, tokenizer, chat template and ends survive HF -> GGUF -> HF", async () => {
    const sidecars = { chatTemplate: "{{ messages }}", generationConfig: { eos_token_id: [2, 1], temperature: 0.6 } };
    const model = createTestModel(testConfig({ blocks: irregular, eosTokenIds: [2, 1] }), 1, sidecars);
    const [first, gguf, second] = [path("a"), path("b.gguf"), path("c")];
    await writeHub(model, first, { card: "# card\n" });
    const hub = await openModel(first);
    await writeGguf(hub, gguf, { name: "Child" });
    const middle = await openModel(gguf);
    expect(middle.sidecars).toMatchObject({ name: "Child", chatTemplate: "{{ messages }}", legal: hub.sidecars.legal });
    await writeHub(middle, second);
    const last = await openModel(second);
    expect(last.config.eosTokenIds).toEqual([2, 1]);
    expect(last.sidecars.legal).toEqual(model.sidecars.legal);
    expect(last.sidecars.chatTemplate).toBe("{{ messages }}");
    expect(readFileSync(join(first, "README.md"), "utf8")).toBe("# card\n");
    expect(JSON.parse(readFileSync(join(first, "generation_config.json"), "utf8")).temperature).toBe(0.6);
    const text = "Once upon a time, Lily said: “Hi!”\n\nnaïve 🐶";
    const encode = ({ sidecars: { tokenizer } }: Model) => Array.from(loadTokenizer(tokenizer!).encode(text));
    const expected = encode(model);
    for (const written of [hub, middle, last]) {
      expect(encode(written)).toEqual(expected);
      await written.close();
    }
  });

  test("the directory has what a loader looks for", async () => {
    const out = path("child");
    const model = createTestModel(testConfig({ blocks: uniform }), 1, { card: "of the parent" });
    await writeHub(model, out, { type: "bf16", card: "x" });
    expect(readdirSync(out).sort()).toEqual([
      "LICENSE",
      "PARENT_README.md",
      "README.md",
      "config.json",
      "generation_config.json",
      "model.safetensors",
      "special_tokens_map.json",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
  });

  test("the Modelfile goes beside the GGUF and is not written over", async () => {
    const gguf = path("child.gguf");
    const model = createTestModel(testConfig());
    const { path: modelfile } = await writeModelfile(model, gguf);
    expect(modelfile).toBe(gguf.replace(".gguf", ".Modelfile"));
    expect(readFileSync(modelfile, "utf8")).toContain("FROM ./child.gguf");
    expect(readFileSync(modelfile, "utf8")).toContain('LICENSE """May be used by tests.');
    writeFileSync(modelfile, "edited");
    expect(await writeModelfile(model, gguf)).toEqual({ path: modelfile, kept: true });
    expect(readFileSync(modelfile, "utf8")).toBe("edited");
  });
});

describe("GGUF", () => {
  test("equal models give equal bytes, of the number told beforehand", async () => {
    const model = createTestModel(testConfig({ blocks: irregular }));
    for (const type of ["f32", "f16", "bf16", "q8_0"] as const) {
      const [a, b] = [path("a.gguf"), path("b.gguf")];
      const saved = await writeGguf(model, a, { type });
      await writeGguf(model, b, { type });
      expect(await hashFile(a)).toBe(await hashFile(b));
      expect(saved.bytes).toBe(ggufExportBytes(model, type));
    }
  });

  test("is `llama` with one number for all blocks, or `deci` with one for each", async () => {
    const files = await Promise.all(
      [uniform, irregular].map(async (blocks) => {
        const out = path("x.gguf");
        await writeGguf(createTestModel(testConfig({ blocks })), out);
        return openGgufFile(out);
      }),
    );
    const [llama, deci] = files.map(
      ({ metadata }) =>
        (key: string) =>
          metadata.get(key)?.value,
    );
    expect([llama!("general.architecture"), deci!("general.architecture")]).toEqual(["llama", "deci"]);
    expect(llama!("llama.feed_forward_length")).toBe(40);
    expect(deci!("deci.attention.head_count")).toEqual(Int32Array.of(4, 4, 4, 0));
    expect(deci!("deci.attention.head_count_kv")).toEqual(Int32Array.of(4, 1, 0, 0));
    expect(deci!("deci.feed_forward_length")).toEqual(Int32Array.of(40, 64, 32, 96));
    for (const file of files) await file.close();
  });

  test("rows that blocks of 32 do not fill fall back to f16, and the notes say so", async () => {
    const out = path("x.gguf");
    const saved = await writeGguf(createTestModel(testConfig({ blocks: uniform })), out, { type: "q8_0" });
    expect(saved.notes).toEqual([
      "rows that do not fill blocks of 32 are f16 instead of q8_0: blk.0.ffn_down.weight, blk.1.ffn_down.weight",
    ]);
    const file = await openGgufFile(out);
    const type = (name: string) => file.info(name)!.type;
    expect(["blk.0.ffn_down.weight", "blk.0.ffn_up.weight", "output_norm.weight"].map(type)).toEqual([
      "F16",
      "Q8_0",
      "F32",
    ]);
    await file.close();
  });

  test("rows beyond the tokenizer are named; a tokenizer of another model is refused", async () => {
    const out = path("x.gguf");
    await writeGguf(createTestModel(testConfig({ vocabSize: 520 })), out);
    const file = await openGgufFile(out);
    const tokens = file.metadata.get("tokenizer.ggml.tokens")!.value as string[];
    expect([tokens.length, tokens[519]]).toEqual([520, "[PAD519]"]);
    await file.close();
    await expect(writeGguf(createTestModel(testConfig({ vocabSize: 500 })), path("y.gguf"))).rejects.toThrow(
      "the tokenizer belongs to another model",
    );
  });
});

describe("nothing half-written", () => {
  const model = createTestModel(testConfig({ blocks: uniform }));

  test("a path that exists is refused, unless told to replace it", async () => {
    const directory = temporaryDirectory();
    const gguf = join(directory, "x.gguf");
    writeFileSync(gguf, "mine");
    await expect(writeGguf(model, gguf)).rejects.toThrow("expected a path that does not exist yet, found a file");
    await expect(writeHub(model, directory)).rejects.toThrow("choose another path or remove it");
    expect(readFileSync(gguf, "utf8")).toBe("mine");
    await writeGguf(model, gguf, { overwrite: true });
    const hub = join(directory, "hub");
    mkdirSync(hub);
    writeFileSync(join(hub, "stale"), "");
    await writeHub(model, hub, { overwrite: true });
    expect(existsSync(join(hub, "stale"))).toBe(false);
  });

  test("an f16 that would overflow, a stop half-way, and a path that cannot be made leave nothing", async () => {
    const directory = temporaryDirectory();
    const large = createTestModel(testConfig({ blocks: uniform }));
    const weights: Model["weights"] = {
      ...large.weights,
      async read(name) {
        const tensor = await large.weights.read(name);
        const values = tensor.data as Float32Array;
        return name.startsWith("model.layers.1.mlp") ? { ...tensor, data: values.map((x) => 1e6 * x) } : tensor;
      },
    };
    const overflow = { ...large, weights };
    await expect(writeGguf(overflow, join(directory, "x.gguf"), { type: "f16" })).rejects.toThrow("write bf16 or f32");
    await expect(writeHub(overflow, join(directory, "hub"), { type: "f16" })).rejects.toThrow("write bf16 or f32");
    const stop = AbortSignal.abort();
    await expect(writeHub(model, join(directory, "hub"), { signal: stop })).rejects.toThrow("aborted");
    await expect(writeGguf(model, join(directory, "x.gguf"), { signal: stop })).rejects.toThrow("aborted");
    expect(readdirSync(directory)).toEqual([]);
    const file = repositoryPath("package.json");
    await expect(writeHub(model, join(file, "child"))).rejects.toThrow("a file where a directory was wanted");
    await expect(writeGguf(model, join(file, "child.gguf"))).rejects.toThrow("package.json");
  });

  test("without a tokenizer there is no GGUF", async () => {
    const { tokenizer: _, ...sidecars } = model.sidecars;
    await expect(writeGguf({ ...model, sidecars }, path("x.gguf"))).rejects.toThrow(
      "put tokenizer.json beside the weights",
    );
  });
});
