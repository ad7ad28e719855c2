import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../../base/testing.js";
import { checkTrainingRecipe } from "./recipe.js";
import { runTraining } from "./run.js";

const directory = temporaryDirectory();
const model = repositoryPath("models/stories260K");
const names = ["Tom", "Lily", "Ben", "Sue", "Max", "Ann"];
const file = (name: string, rows: readonly unknown[]) => {
  const path = join(directory, name);
  writeFileSync(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  return path;
};
const chats = file(
  "chats.jsonl",
  names.map((name) => ({ prompt: `Who is ${name}?`, completion: `${name} is a little dog.` })),
);
const pairs = file(
  "pairs.jsonl",
  names.map((name) => ({ prompt: `Who is ${name}?`, chosen: `${name} is a little dog.`, rejected: "I do not know." })),
);
const prompts = file(
  "prompts.jsonl",
  names.map((name) => ({ prompt: `Tell me about ${name}.` })),
);

const shared = { frozen: "int8", trainable: "lora", steps: 2, heldOut: 2, evaluations: 1, length: 64, batch: 1 };
const { batch: _b, evaluations: _e, ...policy } = shared;
const stages: Record<string, Record<string, unknown>> = {
  dpo: { ...shared, data: pairs },
  reward: { ...shared, data: pairs },
  distill: { ...shared, data: chats, teacher: model },
  grpo: { ...policy, data: prompts, reward: "length:4-8", prompts: 2, samples: 2, maxTokens: 12, temperature: 2 },
};

test.each(Object.keys(stages))("%s: beside matrices in 8 bits, and says what they change", async (method) => {
  const out = join(directory, method);
  const recipe = { kind: "train", model, out, chatTemplate: "plain", stages: [{ method, ...stages[method] }] };
  const { result } = await runTraining(checkTrainingRecipe(recipe, "recipe"), {
    store: join(directory, "store"),
    threads: 1,
  });
  const told = result.stages[0]!.notes.filter((note) => note.includes("in 8 bits"));
  expect(told).toHaveLength(["distill", "grpo"].includes(method) ? 2 : 1);
  const [, loss, change] = /loss of (\d\.\d+) nats a token changed by (-?\d\.\d+) \(/.exec(told[0]!)!;
  expect(Number(loss)).toBeGreaterThan(1);
  expect(Math.abs(Number(change))).toBeLessThan(0.1);
});

test("8 bits with nothing frozen are refused", () => {
  const recipe = {
    kind: "train",
    model,
    out: directory,
    stages: [{ method: "sft", data: chats, trainable: "all", frozen: "int8" }],
  };
  expect(() => checkTrainingRecipe(recipe, "recipe")).toThrow(/frozen.*with `trainable: all` none is frozen/s);
});
