import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../../base/testing.js";
import { checkTrainingRecipe } from "./recipe.js";
import { runTraining } from "./run.js";

const directory = temporaryDirectory();

interface Row {
  prompt: string;
  chosen: string;
  rejected: string;
  chosen_reward?: number;
  rejected_reward?: number;
}

const names = ["Tom", "Lily", "Ben", "Sue"];
const plain: Row[] = names.map((name) => ({
  prompt: `Who is ${name}?`,
  chosen: `${name} is a little dog.`,
  rejected: "I do not know.",
}));

let files = 0;
function recipeOf(rows: readonly Row[], stage: Record<string, unknown>) {
  const data = join(directory, `pairs-${files++}.jsonl`);
  writeFileSync(data, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  const stages = [{ data, heldOut: 1, steps: 2, batch: 1, length: 64, evaluations: 0, ...stage }];
  const out = join(directory, `out-${files}`);
  return { kind: "train", model: repositoryPath("models/stories260K"), out, chatTemplate: "plain", stages };
}

const run = (recipe: unknown) =>
  runTraining(checkTrainingRecipe(recipe, "recipe"), { store: join(directory, "store"), threads: 1 });

test.each<[string, Row[], Record<string, unknown>, RegExp]>([
  ["no rewards", plain, { method: "rpo" }, /jsonl:1.*rewards of both answers.*missingRewards/s],
  [
    "one reward of two",
    [{ ...plain[0]!, chosen_reward: 1 }, ...plain.slice(1)],
    { method: "rpo" },
    /jsonl:1.*that of `chosen` alone/s,
  ],
  ["equal answers", [{ ...plain[0]!, rejected: plain[0]!.chosen }, ...plain.slice(1)], { method: "dpo" }, /equal to/],
  ["an empty answer", [{ ...plain[0]!, chosen: "" }, ...plain.slice(1)], { method: "dpo" }, /jsonl:1.*chosen/s],
  ["pairs longer than a row", plain, { method: "dpo", length: 16 }, /longer: .*drop, truncate-left/s],
])("%s: an error that says what to do", async (_, rows, stage, message) => {
  await expect(run(recipeOf(rows, stage))).rejects.toThrow(message);
});

test("options that contradict are told before anything is read", () => {
  const problemsOf = (stage: Record<string, unknown>) => () =>
    checkTrainingRecipe(recipeOf(plain, { method: "dpo", ...stage }), "recipe");
  expect(problemsOf({ labelSmoothing: 0.1 })).toThrow("sigmoid does not read it");
  expect(problemsOf({ kind: "exo_pair" })).toThrow("such as 1e-3");
  expect(problemsOf({ kind: "robust", labelSmoothing: 0.5 })).toThrow("less than 0.5");
  expect(problemsOf({ kind: "cdpo", labelSmoothing: 0.1 })).not.toThrow();
});

test("RPO without rewards takes 1 and 0 where it is told to; all weights can be trained, and KL is measured", async () => {
  const stage = { method: "rpo", missingRewards: "one-zero", trainable: "all", learningRate: 1e-3, heldOut: 2 };
  const { result } = await run(recipeOf(plain, stage));
  const measures = Object.fromEntries(result.stages[0]!.measures.map((measure) => [measure.name, measure]));
  expect(measures["reward margin"]!.before).toMatchObject({ mean: 0, n: 2 });
  expect(measures["reward margin"]!.after.mean).toBeGreaterThan(0);
  expect(measures["KL from the reference"]!.after.mean).toBeGreaterThan(0);
});

test("a loss that sorts its pairs trains", async () => {
  const { result } = await run(recipeOf(plain, { method: "dpo", kind: "aot", batch: 2, length: 1024 }));
  expect(result.stages[0]!.measures.length).toBeGreaterThan(0);
});
