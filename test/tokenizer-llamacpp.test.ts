/** Our ids against those of llama.cpp itself, on text in which anything may stand beside anything. */
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { repositoryPath, sharedPath, temporaryDirectory } from "../src/base/testing.js";
import { createLlamaCpp } from "../src/llamacpp/index.js";
import { openModel, writeGguf } from "../src/models/index.js";
import { loadTokenizer } from "../src/tokenizer/index.js";
import { randomTexts } from "../src/tokenizer/testing.js";

const llama = createLlamaCpp({ threads: 1 });
afterAll(() => llama.dispose());

// llama.cpp takes the text as a C string: it ends at U+0000.
const texts = randomTexts(1000, "llama.cpp").map((text) => text.replaceAll("\u0000", ""));

async function expectSameIds(path: string, tokenizerPath: string): Promise<void> {
  const model = await openModel(tokenizerPath);
  const tokenizer = loadTokenizer(model.sidecars.tokenizer!);
  const ids = await llama.tokenizeMany(path, texts);
  texts.forEach((text, i) => {
    expect(tokenizer.encode(text, { addSpecial: false, parseSpecial: false }), JSON.stringify(text)).toEqual(ids[i]);
  });
  await model.close();
}

test("scored vocabulary: stories260K from tokenizer.json and as GGUF", async () => {
  const path = join(temporaryDirectory(), "stories260K.gguf");
  const folder = repositoryPath("models/stories260K");
  const model = await openModel(folder);
  await writeGguf(model, path);
  await model.close();
  await expectSameIds(path, folder);
  await expectSameIds(path, path);
});

const smol = sharedPath("models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
describe.skipIf(!smol)("SmolLM2-135M-Instruct (optional test data)", () => {
  test("byte-level vocabulary", async () => {
    await expectSameIds(smol!, smol!);
  });
});
