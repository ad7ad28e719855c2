// `espalier chat` on a real, tiny model: one question, two models, a draft.
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../src/base/testing.js";
import { createCommand } from "../src/cli/commands/chat.js";
import { runCli } from "../src/cli/testing.js";
import { openModel, writeGguf } from "../src/models/index.js";

const stories = repositoryPath("models/stories260K");
const gguf = join(temporaryDirectory(), "stories.gguf");
const common = ["--threads", "1", "--max-tokens", "16", "--context", "256"];
const chat = (...words: string[]) => runCli(createCommand(), [...words, ...common]);

beforeAll(async () => {
  const model = await openModel(stories);
  await writeGguf(model, gguf);
  await model.close();
});

test("a directory is written as GGUF for now; a model without a template is told so", async () => {
  const { out, error, exitCode } = await chat(stories, "--prompt", "Once upon a time");
  expect(exitCode).toBe(0);
  expect(out.trim().length).toBeGreaterThan(0);
  expect(error).toContain("written as F16 GGUF for now");
  expect(error).toContain('no chat template: it is shown turns as "User: ..." and "Assistant: ..."');
  expect(error).toMatch(/16 tokens, [\d.]+ tokens\/s, first after [\d.]+ s, cut/);
});

test("compares two models, with the speed of each", async () => {
  const { out, error } = await chat(gguf, "--compare", gguf, "--prompt", "Hi", "--json");
  const result = JSON.parse(out) as { text: string; tokensPerSecond: number; compared: { text: string; gguf: string } };
  expect(result.compared).toMatchObject({ text: result.text, gguf });
  expect(result.tokensPerSecond).toBeGreaterThan(0);
  expect(error).toMatch(/stories answered at [\d.]+ times the speed of stories/);
});

test("a draft that is the model itself stands, and the text is that of the model alone", async () => {
  const { out, error } = await chat(gguf, "--draft", gguf, "--speed-up", "--prompt", "Hi", "--json");
  const { draft } = JSON.parse(out) as { draft: Record<string, unknown> };
  expect(draft).toMatchObject({ acceptance: 1, sameText: true });
  expect(error).toContain("drafted tokens stood (100 %)");
  expect(error).toContain("on the same question, the same text");
});

describe("bad input", () => {
  test.each([
    [["--prompt", "Hi", "--speed-up"], "--speed-up: expected a --draft to compare with"],
    [["--prompt", "  "], "espalier chat: expected a question"],
    [["--prompt", "Hi", "--top-p", "2"], "--top-p: expected a probability, found 2"],
  ])("%j", async (words, message) => {
    const { error, exitCode } = await chat(gguf, ...words);
    expect(error).toContain(message);
    expect(exitCode).toBe(2);
  });

  test("a model that is not there", async () => {
    const { error, exitCode } = await chat("nowhere.gguf", "--prompt", "Hi");
    expect(error).toContain("nowhere.gguf: expected a .gguf file, a model's directory");
    expect(exitCode).toBe(2);
  });
});
