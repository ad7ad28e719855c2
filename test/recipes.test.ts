/** @module Every small recipe under recipes/ runs from its data to its report. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../src/base/testing.js";
import { checkTrainingRecipe, runTraining } from "../src/pipeline/index.js";

const directory = temporaryDirectory();
const recipes = readdirSync(repositoryPath("recipes")).filter((name) => name.endsWith(".toy.json"));

test.each(recipes)("%s", { timeout: 60_000 }, async (name) => {
  const json = JSON.parse(readFileSync(repositoryPath(`recipes/${name}`), "utf8"));
  const recipe = checkTrainingRecipe({ ...json, out: join(directory, name) }, name);
  const { result } = await runTraining(recipe, { store: join(directory, "store"), threads: 1 });
  expect(result.stages.length).toBeGreaterThan(0);
  for (const { measures } of result.stages) {
    for (const { after } of measures) expect(Number.isFinite(after.mean)).toBe(true);
  }
  expect(readFileSync(join(directory, name, "report.html"), "utf8")).toContain("<h2>");
});
