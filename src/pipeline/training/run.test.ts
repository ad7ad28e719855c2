import { writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../../base/testing.js";
import { openModel } from "../../models/index.js";
import { checkTrainingRecipe } from "./recipe.js";
import { runTraining } from "./run.js";

const directory = temporaryDirectory();
const names = ["Tom", "Lily", "Ben", "Sue", "Max", "Mia"];
const conversation = (name: string) => ({
  messages: [
    { role: "user", content: `Who is ${name}?` },
    { role: "assistant", content: `${name} is a little dog.` },
  ],
});
writeFileSync(join(directory, "chats.jsonl"), names.map((name) => `${JSON.stringify(conversation(name))}\n`).join(""));

const recipe = checkTrainingRecipe(
  {
    kind: "train",
    model: repositoryPath("models/stories260K"),
    out: join(directory, "out"),
    chatTemplate: "plain",
    stages: [
      {
        rounds: 2,
        stages: [{ method: "sft", data: join(directory, "chats.jsonl"), heldOut: 2, steps: 4, batch: 2, length: 64 }],
      },
    ],
  },
  "recipe",
);
const options = { store: join(directory, "store"), threads: 1 };

describe("two rounds of tuning", async () => {
  const { result, table } = await runTraining(recipe, options);

  test("each begins with the model of the one before", () => {
    const [first, second] = result.stages.map(({ measures }) => measures[0]!);
    expect(result.stages.map(({ name }) => name)).toEqual(["sft-1", "sft-2"]);
    expect(second!.before!.mean).toBeCloseTo(first!.after.mean, 5);
    expect(second!.after.mean).toBeLessThan(first!.before!.mean);
  });

  test("the model that comes out has the template, and its adapter beside it", async () => {
    const model = await openModel(result.policy!);
    expect(model.sidecars.chatTemplate).toContain("Question:");
    await model.close();
    const adapter = JSON.parse(await readFile(join(directory, "out/sft-2/adapter/adapter_config.json"), "utf8"));
    expect(adapter).toMatchObject({ peft_type: "LORA", r: 8, lora_alpha: 16 });
    const gguf = await readFile(join(directory, "out/sft-2/adapter.gguf"));
    expect(gguf.subarray(0, 4).toString()).toBe("GGUF");
  });

  test("table and page tell what was measured", async () => {
    expect(table).toMatch(/held-out loss, nats a token +[\d.]+ +[\d.]+/);
    const page = await readFile(join(directory, "out/report.html"), "utf8");
    expect(page).toContain("held-out loss");
    expect(page).toContain("<svg");
  });

  test("a second run finds its stages in the store and ends with the same", async () => {
    const again = await runTraining(recipe, options);
    expect(again.result.stages).toEqual(result.stages);
  });
});
