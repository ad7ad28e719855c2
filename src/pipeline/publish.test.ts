import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { temporaryDirectory } from "../base/testing.js";
import { openOutput, publishDirectory } from "./publish.js";
import { checkRecipe } from "./recipe.js";

const recipe = checkRecipe({ kind: "reshape", parent: "p", out: "o", budget: { params: "60%" } }, "test");

function write(directory: string, files: Record<string, string>): string {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, name)), { recursive: true });
    writeFileSync(join(directory, name), text);
  }
  return directory;
}

const filesOf = (directory: string) =>
  (readdirSync(directory, { recursive: true }) as string[]).filter((name) => name.includes(".")).sort();

const artifact = { "child/config.json": "{}", "child.f32.gguf": "weights", "manifest.json": "{}", "cost.json": "{}" };

test("a run writes where an earlier one wrote, removes what that one left, and keeps what is not its own", async () => {
  const out = join(temporaryDirectory(), "out");
  await openOutput(out, recipe);
  write(out, {
    "child/model-00002.safetensors": "old",
    "child.f16.gguf": "old",
    "result.json": "{}",
    "notes.txt": "mine",
  });
  await openOutput(out, recipe);
  await publishDirectory(write(temporaryDirectory(), artifact), out);
  expect(filesOf(out)).toEqual(["child.f32.gguf", "child/config.json", "notes.txt", "recipe.json"]);
  await openOutput(out, recipe);
});

test("what a killed run was publishing is finished by the next", async () => {
  const out = join(temporaryDirectory(), "out");
  await openOutput(out, recipe);
  write(out, { "child.f32.gguf.4242.tmp": "wei", "child/config.json.4242.tmp": "{" });
  await publishDirectory(write(temporaryDirectory(), artifact), out);
  expect(filesOf(out)).toEqual(["child.f32.gguf", "child/config.json", "recipe.json"]);
});

test("editing a published card leaves the store's own as it was", async () => {
  const [from, out] = [write(temporaryDirectory(), artifact), join(temporaryDirectory(), "out")];
  await publishDirectory(from, out);
  writeFileSync(join(out, "child/config.json"), "edited");
  expect(readFileSync(join(from, "child/config.json"), "utf8")).toBe("{}");
});

test("a directory of someone else is left alone, and a file in the way is named", async () => {
  const foreign = write(temporaryDirectory(), { "thesis.txt": "years of work" });
  await expect(openOutput(foreign, recipe)).rejects.toThrow(/thesis.txt.*another --out/);
  await expect(openOutput(join(foreign, "thesis.txt"), recipe)).rejects.toThrow(/a file where a directory was wanted/);
  await expect(openOutput(join(foreign, "thesis.txt/out"), recipe)).rejects.toThrow(/a file where a directory/);
  expect(filesOf(foreign)).toEqual(["thesis.txt"]);
});
