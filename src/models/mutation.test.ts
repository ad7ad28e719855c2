import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { createRng } from "../base/index.js";
import { repositoryPath, temporaryDirectory } from "../base/testing.js";
import { mutateBytes, mutateJson, survives } from "../formats/testing.js";
import { modelWeights } from "./config.js";
import { configFromHub, configToHub } from "./families/index.js";
import { openModel } from "./open.js";
import { writeGguf } from "./save.js";
import { createTestModel, gqa, linear, none, swiglu, testConfig } from "./testing.js";

/** Opens a model and reads every weight. */
async function readModel(path: string): Promise<void> {
  const model = await openModel(path);
  try {
    for (const { name } of modelWeights(model.config)) await model.weights.read(name);
  } finally {
    await model.close();
  }
}

const blocks = [
  { attention: gqa(2), ffn: swiglu(32) },
  { attention: linear, ffn: swiglu(8) },
  { attention: none, ffn: linear },
];

test("a thousand damaged configurations, plain and DeciLM, are read or refused", async () => {
  const plain = JSON.parse(readFileSync(repositoryPath("models/stories260K/config.json"), "utf8"));
  const deci = configToHub(testConfig({ blocks }), "f32");
  const rng = createRng("configurations");
  let reads = 0;
  for (let i = 0; i < 1000; i++) {
    const damaged = mutateJson(i % 2 === 0 ? plain : deci, rng);
    // What is accepted must have shapes that can be stated: this is where absurd sizes would show.
    const attempt = async () => modelWeights(configFromHub(damaged, "config.json").config);
    if ((await survives(attempt)) === "read") reads++;
  }
  expect(reads).toBeGreaterThan(20);
  expect(reads).toBeLessThan(900);
});

test("damaged GGUF models: header, configuration and weights", async () => {
  const path = join(temporaryDirectory(), "x.gguf");
  await writeGguf(createTestModel(testConfig({ blocks: blocks.slice(0, 2), vocabSize: 512 })), path, { type: "q8_0" });
  const bytes = new Uint8Array(readFileSync(path));
  const rng = createRng("models");
  let reads = 0;
  for (let i = 0; i < 300; i++) {
    writeFileSync(path, mutateBytes(bytes, rng, i % 2 === 0 ? 1400 : bytes.byteLength));
    if ((await survives(() => readModel(path))) === "read") reads++;
  }
  expect(reads).toBeGreaterThan(10);
  expect(reads).toBeLessThan(290);
});

test("damaged Hugging Face directories, each of their JSON files", async () => {
  const directory = join(temporaryDirectory(), "model");
  cpSync(repositoryPath("models/stories260K"), directory, { recursive: true });
  const rng = createRng("directories");
  for (const name of ["tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "config.json"]) {
    const original = readFileSync(join(directory, name));
    for (let i = 0; i < 40; i++) {
      const damaged =
        i % 2 === 0 ? mutateBytes(original, rng) : JSON.stringify(mutateJson(JSON.parse(`${original}`), rng));
      writeFileSync(join(directory, name), damaged);
      await survives(async () => (await openModel(directory)).close());
    }
    writeFileSync(join(directory, name), original);
  }
});
