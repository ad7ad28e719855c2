// Every toy recipe runs: what a user tries first on each method.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../src/base/testing.js";
import { checkTrainingRecipe, runTraining } from "../src/pipeline/index.js";

const directory = temporaryDirectory();
const toys = readdirSync(repositoryPath("recipes")).filter((name) => name.endsWith(".toy.json"));

/** Paths in recipes are those of the repository, where the test may not write. */
function readToy(name: string): unknown {
  const recipe = JSON.parse(readFileSync(repositoryPath(`recipes/${name}`), "utf8"));
  return { ...recipe, out: join(directory, name) };
}

test.each(toys)("%s", { timeout: 60_000 }, async (name) => {
  const recipe = checkTrainingRecipe(readToy(name), name);
  const { result } = await runTraining(recipe, { store: join(directory, "store"), threads: 1 });
  expect(result.stages.length).toBeGreaterThan(0);
  for (const { measures } of result.stages) {
    for (const { after } of measures) expect(Number.isFinite(after.mean)).toBe(true);
  }
  expect(readFileSync(join(directory, name, "report.html"), "utf8")).toContain("<h2>");
});

test("recipes for real models follow the schema", () => {
  const all = readdirSync(repositoryPath("recipes")).filter((name) => name.endsWith(".json"));
  const real = all.map((name) => [name, JSON.parse(readFileSync(repositoryPath(`recipes/${name}`), "utf8"))] as const);
  const training = real.filter(([name, { kind }]) => kind === "train" && !toys.includes(name));
  for (const [name, recipe] of training) checkTrainingRecipe(recipe, name);
  expect(training.length).toBeGreaterThan(0);
});
