import { cpSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { repositoryPath, sharedPath, temporaryDirectory } from "../base/testing.js";
import { f32Tensor, maxAbsDifference } from "../tensor/index.js";
import { blockParameters, isUniform, kvBytesPerToken, modelParameters, modelWeights } from "./config.js";
import { openModel } from "./open.js";
import { overlayModel } from "./overlay.js";
import { gqa, none, referenceLogits, swiglu, testConfig } from "./testing.js";

const stories = repositoryPath("models/stories260K");

describe("the bundled parent", () => {
  test("is what its card says", async () => {
    const model = await openModel(stories);
    expect(modelParameters(model.config)).toBe(260032);
    // 64 x 64 q and o, 32 x 64 k and v, three of 172 x 64, two norms.
    expect(blockParameters(model.config, model.config.blocks[0]!)).toBe(2 * 4096 + 2 * 2048 + 3 * 11008 + 128);
    // Five layers of 4 kv heads of 8 values, keys and values, two bytes.
    expect(kvBytesPerToken(model.config)).toBe(5 * 4 * 8 * 2 * 2);
    expect(model.config.eosTokenIds).toEqual([2, 1]);
    expect(model.sidecars).toMatchObject({ name: "stories260K", licence: "mit" });
    expect(model.sidecars.legal.map(({ name }) => name)).toEqual(["LICENSE"]);
    expect(isUniform(model.config)).toBe(true);
    await model.close();
  });

  test("gives the logits of the reference run", async () => {
    const model = await openModel(stories);
    const logits = Array.from(await referenceLogits(model, [1]));
    // From the published checkpoint's reference values: the five best after BOS.
    const best = [
      [403, 17.0235],
      [385, 15.4062],
      [410, 13.1083],
      [317, 12.7692],
      [407, 12.4181],
    ] as const;
    for (const [id, value] of best) expect(logits[id]).toBeCloseTo(value, 3);
    await model.close();
  });
});

const tied = sharedPath("models/tinystories-656K");

test.skipIf(!tied)("a tied table stored under the head's name", async () => {
  const model = await openModel(tied!);
  expect(modelParameters(model.config)).toBe(656000);
  expect((await model.weights.read("model.embed_tokens.weight")).shape).toEqual([2048, 128]);
  expect(model.weights.has("lm_head.weight")).toBe(false);
  const golden = JSON.parse(readFileSync(join(tied!, "golden.json"), "utf8"));
  const logits = await referenceLogits(model, golden.prompt_ids);
  const last = Array.from(logits.subarray(-2048));
  for (const [id, value] of golden.top10_logits_after_prompt) expect(last[id]).toBeCloseTo(value, 2);
  await model.close();
});

const smol = sharedPath("models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");

test.skipIf(!smol)("a GGUF file has the configuration of its config.json", async () => {
  const model = await openModel(smol!);
  const config = JSON.parse(readFileSync(sharedPath("models/smollm2-135m-instruct/config.json")!, "utf8"));
  expect(modelParameters(model.config)).toBe(134515008);
  expect(model.config).toMatchObject({
    hiddenSize: config.hidden_size,
    heads: config.num_attention_heads,
    normEps: config.rms_norm_eps,
    rope: { theta: config.rope_theta },
    maxPositions: config.max_position_embeddings,
    tiedEmbeddings: true,
    vocabSize: config.vocab_size,
  });
  expect(model.config.blocks[29]).toEqual({ attention: gqa(3), ffn: swiglu(1536) });
  expect(model.sidecars).toMatchObject({ licence: "apache-2.0", tokenizer: { kind: "gguf" } });
  expect(model.sidecars.chatTemplate).toContain("<|im_start|>");
  await model.close();
});

describe("bad input", () => {
  let directory = "";
  const file = (name: string) => join(directory, name);
  const change = (name: string, changes: Record<string, unknown>) => {
    writeFileSync(file(name), JSON.stringify({ ...JSON.parse(readFileSync(file(name), "utf8")), ...changes }));
  };
  const message = () =>
    openModel(directory).then(
      () => "opened",
      (error: Error) => error.message,
    );

  beforeEach(() => {
    directory = join(temporaryDirectory(), "model");
    cpSync(stories, directory, { recursive: true });
  });

  test("nothing there, an empty directory, a file that is neither", async () => {
    await expect(openModel(file("nothing"))).rejects.toThrow("nothing of that name");
    const empty = temporaryDirectory();
    await expect(openModel(empty)).rejects.toThrow("expected config.json, found an empty directory");
    await expect(openModel(file("README.md"))).rejects.toThrow("expected a GGUF file");
  });

  test("a directory of GGUF or PyTorch files says what to do", async () => {
    rmSync(file("config.json"));
    writeFileSync(file("x.gguf"), "");
    expect(await message()).toContain(`name the file: ${file("x.gguf")}`);
    writeFileSync(file("pytorch_model.bin"), "");
    expect(await message()).toContain("convert them to safetensors");
  });

  test("a configuration of other sizes lists the tensors that differ", async () => {
    change("config.json", { intermediate_size: 173, num_hidden_layers: 6 });
    const text = await message();
    expect(text).toContain("tensors do not match the configuration");
    expect(text).toContain("model.layers.0.mlp.gate_proj.weight: expected [173,64], found [172,64]");
    expect(text).toMatch(/and \d+ more/);
  });

  test("a tensor that the configuration does not explain is not passed over", async () => {
    change("config.json", { num_hidden_layers: 4 });
    expect(await message()).toContain("model.layers.4.input_layernorm.weight: not a weight of this configuration");
  });

  test("a head that is missing although untied", async () => {
    change("config.json", { tie_word_embeddings: false });
    expect(await message()).toContain("lm_head.weight: expected [512,64], found none");
  });

  test("truncated weights and JSON", async () => {
    truncateSync(file("model.safetensors"), 500_000);
    expect(await message()).toContain("the file is truncated");
    truncateSync(file("config.json"), 100);
    expect(await message()).toContain("expected JSON");
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY])("%s among the weights is named when read", async (value) => {
    const bytes = readFileSync(file("model.safetensors"));
    const data = 8 + Number(bytes.readBigUInt64LE(0));
    bytes.writeFloatLE(value, data + 4 * 70);
    writeFileSync(file("model.safetensors"), bytes);
    const model = await openModel(directory);
    await expect(model.weights.read("model.embed_tokens.weight")).rejects.toThrow(
      `tensor model.embed_tokens.weight: expected finite weights, found ${value} at element 70`,
    );
    await expect(model.weights.read("model.norm.weight")).resolves.toBeDefined();
    await model.close();
  });
});

describe("overlayModel", () => {
  test("takes what the child has and the parent's weights elsewhere", async () => {
    const parent = await openModel(stories);
    const blocks = parent.config.blocks.map((block, layer) =>
      layer === 2 ? { attention: none, ffn: swiglu(3) } : block,
    );
    const config = { ...parent.config, family: "deci" as const, blocks };
    const prefix = "model.layers.2.mlp.";
    const small = new Map(
      [
        ["gate_proj", [3, 64]],
        ["up_proj", [3, 64]],
        ["down_proj", [64, 3]],
      ].map(([name, shape]) => [`${prefix}${name}.weight`, f32Tensor(shape as number[], new Float32Array(192))]),
    );
    const child = overlayModel(parent, config, small);
    expect(child.weights.has("model.layers.2.self_attn.q_proj.weight")).toBe(false);
    expect(child.weights.shapeOf(`${prefix}down_proj.weight`)).toEqual([64, 3]);
    // A feed-forward of zeros and no attention: the block is the identity, so it can as well go.
    const without = {
      ...config,
      blocks: config.blocks.map((b, layer) => (layer === 2 ? { attention: none, ffn: none } : b)),
    };
    const ids = [1, 403, 407];
    const [a, b] = await Promise.all(
      [child, overlayModel(parent, without, new Map())].map((m) => referenceLogits(m, ids)),
    );
    expect(maxAbsDifference(a!, b!)).toBe(0);
    await parent.close();
  });

  test("a weight that neither has is named", async () => {
    const parent = await openModel(stories);
    const blocks = parent.config.blocks.map(() => ({ attention: gqa(2), ffn: swiglu(172) }));
    expect(() => overlayModel(parent, { ...parent.config, blocks }, new Map())).toThrow(
      "child weight model.layers.0.self_attn.k_proj.weight: expected [16,64], found [32,64]",
    );
    await parent.close();
  });
});

test("weights in file order, tied head left out", () => {
  const names = modelWeights(testConfig({ blocks: [{ attention: none, ffn: swiglu(8) }] })).map(({ name }) => name);
  expect(names).toEqual([
    "model.embed_tokens.weight",
    "model.layers.0.post_attention_layernorm.weight",
    "model.layers.0.mlp.gate_proj.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.0.mlp.down_proj.weight",
    "model.norm.weight",
  ]);
});
