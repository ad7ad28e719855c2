import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { repositoryPath, sharedPath, temporaryDirectory } from "../src/base/testing.js";

const main = repositoryPath("src/cli/main.ts");

function espalier(...args: string[]) {
  const options = { encoding: "utf8", cwd: repositoryPath("") } as const;
  return spawnSync(process.execPath, ["--import", "tsx", main, ...args], options);
}

function resultOf<T>(...args: string[]): T {
  const { status, stdout, stderr } = espalier(...args, "--json");
  expect(status, stderr).toBe(0);
  return JSON.parse(stdout) as T;
}

interface Generated {
  text: string;
  ids: number[];
  promptIds: number[];
  tokensPerSecond: number;
}

test("generate --json: 200 greedy tokens of stories260K, byte for byte", () => {
  const made = resultOf<Generated>("generate", "models/stories260K", "--prompt", "", "--max-tokens", "200");
  expect(made.text).toBe(readFileSync(repositoryPath("test/golden/models/stories260K-greedy-200.txt"), "utf8"));
  expect(made.promptIds).toEqual([1]);
  expect(made.ids).toHaveLength(200);
  expect(made.tokensPerSecond).toBeGreaterThan(0);
});

test("generate prints the prompt and its continuation", () => {
  const { stdout } = espalier("generate", "models/stories260K", "--prompt", "Once upon", "--max-tokens", "12");
  expect(stdout).toMatch(/^Once upon a time, there was a/);
});

test("a base model has no chat, and a probability is at most 1", () => {
  const chat = espalier("generate", "models/stories260K", "--prompt", "Hello", "--chat");
  expect([chat.status, chat.stdout]).toEqual([2, ""]);
  expect(chat.stderr).toContain("chat template");
  const probability = espalier("generate", "models/stories260K", "--prompt", "Hello", "--top-p", "2");
  expect([probability.status, probability.stderr]).toEqual([2, expect.stringContaining('found "2"')]);
});

interface Measured {
  tokens: number;
  nll: number;
  perplexity: number;
  bitsPerByte: number;
  kl: { mean: number; low: number; high: number };
}

test("perplexity --against itself: no divergence, the same numbers", () => {
  const path = join(temporaryDirectory(), "text.txt");
  writeFileSync(path, "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.");
  const measured = resultOf<Measured>(
    ...["perplexity", "models/stories260K", "--text", path, "--context", "16"],
    ...["--against", "models/stories260K"],
  );
  expect(measured.perplexity).toBeCloseTo(Math.exp(measured.nll), 10);
  expect(Math.abs(measured.kl.mean)).toBeLessThan(1e-6);
  expect(measured.bitsPerByte).toBeGreaterThan(0);
});

test("a text that is not there is named", () => {
  const { status, stderr } = espalier("perplexity", "models/stories260K", "--text", "none.txt");
  expect([status, stderr]).toEqual([1, expect.stringContaining("none.txt")]);
});

const instruct = sharedPath("models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
test.skipIf(!instruct)("generate --chat answers with SmolLM2 (shared)", { timeout: 120_000 }, () => {
  const prompt = "What is the capital of France?";
  const { text, ids, promptIds } = resultOf<Generated>("generate", instruct!, "--prompt", prompt, "--chat");
  const golden = JSON.parse(readFileSync(repositoryPath("test/golden/models/smollm2-135m-instruct.json"), "utf8"));
  expect(text).toBe("The capital of France is Paris.");
  expect({ promptIds, ids }).toEqual({ promptIds: golden.chats[0].ids, ids: golden.chats[0].greedy_ids });
});
