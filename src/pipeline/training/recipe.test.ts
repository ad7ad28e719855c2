import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { repositoryPath } from "../../base/testing.js";
import { checkTrainingRecipe, referencesOf, trainingRecipeJsonSchema } from "./recipe.js";

const base = { kind: "train", model: "m", out: "o" };
const problemsOf = (recipe: object): string => {
  try {
    checkTrainingRecipe(recipe, "recipe");
    return "";
  } catch (error) {
    return (error as Error).message;
  }
};

test("defaults are written in", () => {
  const { seed, stages } = checkTrainingRecipe({ ...base, stages: [{ method: "sft", data: "a.jsonl" }] }, "recipe");
  expect(seed).toBe(0);
  expect(stages[0]).toMatchObject({ method: "sft", data: ["a.jsonl"], rank: 8, batch: 8, overlong: "refuse" });
});

test("all problems are told at once, each with its place", () => {
  const stages = [
    { method: "sft", data: "a.jsonl", rank: 0 },
    { method: "sft", name: "again", data: "stage:nothing", steps: 3, epochs: 2 },
    { method: "sft", data: "b.jsonl" },
  ];
  expect(problemsOf({ ...base, stages: [stages[0]] })).toContain("stages.0.rank");
  const text = problemsOf({ ...base, out: 3, stages: [stages[1]] });
  expect(text).toContain("out");
  expect(text).toContain("stages.0.epochs: name one of steps, epochs, not all of them");
  const references = problemsOf({ ...base, stages: [{ ...stages[1], epochs: undefined }, stages[2], stages[2]] });
  expect(references).toContain('stages.0.data: no earlier stage "nothing"; there are: none');
  expect(references).toContain('stages.2: two stages called "sft"; give one a name');
});

test("a reference asks for what the stage makes", () => {
  const stages = [
    { method: "sft", name: "first", data: "a.jsonl" },
    { method: "sft", name: "second", data: ["stage:first"] },
  ];
  expect(referencesOf(stages[1] as never)).toEqual([{ field: "data", name: "first" }]);
  expect(problemsOf({ ...base, stages })).toContain('stage "first" makes a policy, where data is wanted');
});

test("rounds hold stages of their own", () => {
  const inner = [{ method: "sft", data: "a.jsonl" }];
  expect(problemsOf({ ...base, stages: [{ rounds: 2, stages: inner }] })).toBe("");
  expect(problemsOf({ ...base, stages: [{ rounds: 0, stages: inner }] })).toContain("rounds");
});

test("schemas/training-recipe.schema.json is the schema that recipes are checked with (npm run schemas writes it)", () => {
  const written: unknown = JSON.parse(readFileSync(repositoryPath("schemas/training-recipe.schema.json"), "utf8"));
  expect(written).toEqual(JSON.parse(JSON.stringify(trainingRecipeJsonSchema())));
});
