import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../../base/testing.js";
import { openModel, writeHub } from "../../models/index.js";
import { createTestModel, testConfig } from "../../models/testing.js";
import { checkTrainingRecipe } from "./recipe.js";
import { runTraining } from "./run.js";

const directory = temporaryDirectory();
const parent = repositoryPath("models/stories260K");
const text = join(directory, "text.txt");
writeFileSync(
  text,
  Array.from({ length: 40 }, (_, i) => `Tom has ${i} red balls and a dog. The dog is big.\n\n`.repeat(40)).join(""),
);
const chats = join(directory, "chats.jsonl");
writeFileSync(
  chats,
  ["Tom", "Lily", "Ben", "Sue"]
    .map((name) => ({
      messages: [
        { role: "user", content: `Who is ${name}?` },
        { role: "assistant", content: `${name} is a little dog.` },
      ],
    }))
    .map((row) => `${JSON.stringify(row)}\n`)
    .join(""),
);

const stage = { data: text, length: 64, batch: 2, heldOut: 2, steps: 2, evaluations: 1 };
const run = (stages: object[], name: string) =>
  runTraining(
    checkTrainingRecipe(
      { kind: "train", model: parent, out: join(directory, name), chatTemplate: "plain", stages },
      "recipe",
    ),
    { store: join(directory, "store"), threads: 1 },
  );

test("a longer context is written into the model, measured before and after, and the drift is distilled away", async () => {
  const { result } = await run(
    [
      {
        ...stage,
        method: "pretrain",
        rope: "linear",
        context: 1024,
        passkeys: 2,
        passkeyLengths: [256],
        trainable: "all",
      },
      {
        ...stage,
        method: "distill",
        teacher: parent,
        data: [text, chats],
        steps: 12,
        learningRate: 0.001,
        hiddenWeight: 1,
      },
    ],
    "both",
  );
  const [longer, taught] = result.stages;
  expect(longer!.measures.map(({ name }) => name)).toEqual(["held-out loss", "retrieval at 256 tokens"]);
  const model = await openModel(result.policy!);
  expect(model.config).toMatchObject({ maxPositions: 1024, rope: { scaling: { type: "linear", factor: 2 } } });
  await model.close();
  const [kl] = taught!.measures;
  expect(kl!.before!.mean).toBeGreaterThan(0.01);
  expect(kl!.difference!.mean).toBeLessThan(0);
  expect(kl!.after.n).toBe(4);
  expect(taught!.curves[1]!.points[0]).toEqual([0, kl!.before!.mean]);
});

test("a teacher with other tokens, or of other sizes, is refused with what differs", async () => {
  const other = join(directory, "other");
  const config = testConfig({ blocks: [...testConfig().blocks] });
  await writeHub(createTestModel(config), other, { name: "other" });
  const distill = { ...stage, method: "distill", teacher: other };
  await expect(run([{ ...distill, hiddenWeight: 1 }], "sizes")).rejects.toThrow(/width 64 and 5 layers[\s\S]*width 32/);
  const path = join(other, "tokenizer.json");
  const tokenizer = JSON.parse(readFileSync(path, "utf8"));
  const { vocab } = tokenizer.model;
  [vocab["<0x41>"], vocab["<0x42>"]] = [vocab["<0x42>"], vocab["<0x41>"]];
  writeFileSync(path, JSON.stringify(tokenizer));
  await expect(run([distill], "tokens")).rejects.toThrow(/token \d+ is "<0x41>"[\s\S]*"<0x42>"/);
});

test("weights that leave no loss, and hidden states without a teacher, are problems of the recipe", () => {
  const problems = (fields: object) => () =>
    checkTrainingRecipe(
      { kind: "train", model: parent, out: "o", stages: [{ ...stage, method: "distill", teacher: parent, ...fields }] },
      "recipe",
    );
  expect(problems({ logitWeight: 0 })).toThrow("must be above 0");
  expect(problems({ topK: 8, hiddenWeight: 1 })).toThrow("topK does not keep");
  expect(problems({ topK: 8, logitWeight: 0, textWeight: 1 })).toThrow("no use");
  expect(problems({ hiddenWeight: 1 })).not.toThrow();
});

test("rows longer than the context, and a context without a rope, are refused", async () => {
  await expect(run([{ ...stage, method: "pretrain", length: 600 }], "long")).rejects.toThrow("context of 512 tokens");
  await expect(async () => run([{ ...stage, method: "pretrain", context: 900 }], "norope")).rejects.toThrow(
    "goes with rope",
  );
});
