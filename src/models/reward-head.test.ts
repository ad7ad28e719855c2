import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { temporaryDirectory } from "../base/testing.js";
import { f32Tensor } from "../tensor/index.js";
import { openModel, openRewardModel, type RewardHead, writeHub } from "./index.js";
import { createTestModel, testConfig } from "./testing.js";

const directory = temporaryDirectory();
const head: RewardHead = {
  weight: f32Tensor(
    [2, 32],
    Array.from({ length: 64 }, (_, i) => i / 64),
  ),
  bias: f32Tensor([2], [0.5, -1]),
  attributes: ["helpfulness", "verbosity"],
  weights: [0.65, -0.4],
};

async function save(name: string, config: Parameters<typeof testConfig>[0], own: RewardHead = head) {
  const model = createTestModel(testConfig({ family: "llama", ...config }));
  const path = join(directory, name);
  await writeHub(model, path, { head: own });
  const json = JSON.parse(await readFile(join(path, "config.json"), "utf8"));
  return { model, path, json };
}

describe("a reward model as a directory", () => {
  test("is transformers' LlamaForSequenceClassification, and opens with the same head and body", async () => {
    const { model, path, json } = await save("plain", {});
    expect(json).toMatchObject({
      architectures: ["LlamaForSequenceClassification"],
      model_type: "llama",
      id2label: { 0: "helpfulness", 1: "verbosity" },
      label2id: { helpfulness: 0, verbosity: 1 },
      reward_weights: [0.65, -0.4],
    });
    const opened = await openRewardModel(path);
    expect(opened.head).toEqual(head);
    expect(opened.body.notices).toEqual([]);
    for (const name of ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight"]) {
      expect((await opened.body.weights.read(name)).data).toEqual((await model.weights.read(name)).data);
    }
    await opened.body.close();
  });

  test("has no output layer, and a head without bias has none", async () => {
    const { bias: _, ...plain } = head;
    const { path } = await save("untied", { tiedEmbeddings: false }, plain);
    const opened = await openRewardModel(path);
    expect([opened.body.weights.has("lm_head.weight"), opened.head.bias]).toEqual([false, undefined]);
    await opened.body.close();
    const bytes = await readFile(join(path, "model.safetensors"));
    expect(bytes.includes("lm_head")).toBe(false);
    expect(bytes.includes("score.bias")).toBe(false);
  });

  test("names no padding token where that ends turns too: transformers would pass over the end of an answer", async () => {
    expect((await save("pad-is-end", { padTokenId: 2 })).json.pad_token_id).toBeNull();
    expect((await save("pad-is-other", { padTokenId: 0 })).json.pad_token_id).toBe(0);
  });

  test("is told from a language model, both ways", async () => {
    const { model, path } = await save("told", {});
    await expect(openModel(path)).rejects.toThrow(/a reward model, which judges answers/);
    await writeHub(model, join(directory, "language"));
    await expect(openRewardModel(join(directory, "language"))).rejects.toThrow(
      /ForSequenceClassification, found LlamaForCausalLM/,
    );
    await expect(openRewardModel(join(directory, "nowhere"))).rejects.toThrow(/the directory of a reward model/);
  });

  test("a head that its configuration contradicts is refused", async () => {
    const { path } = await save("other", {}, { ...head, attributes: ["helpfulness", "verbosity", "coherence"] });
    await expect(openRewardModel(path)).rejects.toThrow(/score.weight: expected \[3,32\], found \[2,32\]/);
  });
});
