import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryDirectory } from "../base/testing.js";
import { checkOutput, markOutput, publishDirectory } from "./publish.js";
import { checkRecipe } from "./recipe.js";

const recipe = checkRecipe({ kind: "reshape", parent: "m", out: "o", budget: { params: "60%" } }, "test");

test("a directory with other files is left alone; a new one and our own are taken", async () => {
  const directory = temporaryDirectory();
  await checkOutput(directory);
  await markOutput(directory, recipe);
  await checkOutput(directory);
  const foreign = temporaryDirectory();
  writeFileSync(join(foreign, "thesis.txt"), "x");
  await expect(checkOutput(foreign)).rejects.toThrow(/thesis\.txt.*choose another --out/);
  expect(readdirSync(foreign)).toEqual(["thesis.txt"]);
});

test("publishing replaces the child and leaves everything else", async () => {
  const [from, to] = [temporaryDirectory(), temporaryDirectory()];
  mkdirSync(join(from, "child"));
  mkdirSync(join(to, "child"));
  writeFileSync(join(from, "child", "config.json"), "new");
  writeFileSync(join(from, "manifest.json"), "{}");
  writeFileSync(join(to, "child", "config.json"), "old");
  writeFileSync(join(to, "child", "stale.json"), "old");
  writeFileSync(join(to, "report.html"), "kept");
  await publishDirectory(from, to, ["child"]);
  await publishDirectory(from, to, ["child"]);
  expect(readFileSync(join(to, "child", "config.json"), "utf8")).toBe("new");
  expect(existsSync(join(to, "child", "stale.json"))).toBe(false);
  expect(readdirSync(to).sort()).toEqual(["child", "report.html"]);
});
