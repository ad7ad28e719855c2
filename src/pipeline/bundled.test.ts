import { writeFile } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import { expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../base/testing.js";
import { locate, locateInputs } from "./bundled.js";
import { checkRecipe } from "./recipe.js";

const inPackage = (path: string) => relative(process.cwd(), repositoryPath(path));
const recipe = { kind: "reshape", out: "out/child", budget: { params: "60%" } } as const;

test("a path is looked for in the working directory, then in the package", async () => {
  const here = join(temporaryDirectory(), "recipe.json");
  await writeFile(here, "{}");
  expect(await locate(here)).toBe(here);
  expect(await locate("data/tinystories/valid.txt.gz")).toBe(inPackage("data/tinystories/valid.txt.gz"));
  expect(await locate("models/absent")).toBe("models/absent");
});

test("away from the package its model is found there, by a path that works from where the user is", async () => {
  const home = process.cwd();
  const elsewhere = temporaryDirectory();
  process.chdir(elsewhere);
  try {
    const { parent, out, text } = await locateInputs(checkRecipe({ ...recipe, parent: "models/stories260K" }, "test"));
    expect(resolve(elsewhere, parent)).toBe(repositoryPath("models/stories260K"));
    expect(out).toBe("out/child");
    expect(text).toEqual({});
  } finally {
    process.chdir(home);
  }
});
