import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import { expect, test } from "vitest";
import { repositoryPath } from "../src/base/testing.js";

const rows = JSON.parse(readFileSync(repositoryPath("layers.json"), "utf8")) as string[][];
const source = repositoryPath("src");
const rowOf = (area: string) => rows.findIndex((row) => row.includes(area));

const files = readdirSync(source, { recursive: true })
  .map(String)
  .filter((file) => file.endsWith(".ts"));
const areaOf = (file: string) => (file.includes(sep) ? file.split(sep)[0]! : undefined);

/** Relative imports of every kind: static, type-only, dynamic, re-export. */
function importsOf(file: string): string[] {
  const text = readFileSync(join(source, file), "utf8");
  const specifiers = [...text.matchAll(/(?:from|import)\s*\(?\s*["'](\.[^"']+)["']/g)].map((match) => match[1]!);
  return specifiers.map((specifier) => relative(source, resolve(dirname(join(source, file)), specifier)));
}

test("every area has its row in layers.json", () => {
  const areas = readdirSync(source, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  expect(areas.map(({ name }) => name).filter((name) => rowOf(name) < 0)).toEqual([]);
});

test("an area imports only areas in earlier rows", () => {
  const wrong: string[] = [];
  for (const file of files) {
    const area = areaOf(file);
    if (!area) continue;
    for (const target of importsOf(file)) {
      const other = areaOf(target);
      if (other && other !== area && !(rowOf(other) < rowOf(area))) wrong.push(`${file} imports ${target}`);
    }
  }
  expect(wrong).toEqual([]);
});

test("the import pattern sees every kind of import", () => {
  const kinds = [
    'import a from "./a.js"',
    'import type { A } from "../b.js"',
    'await import("./c.js")',
    'export * from "./d.js"',
  ];
  const pattern = /(?:from|import)\s*\(?\s*["'](\.[^"']+)["']/;
  expect(kinds.map((line) => pattern.exec(line)?.[1])).toEqual(["./a.js", "../b.js", "./c.js", "./d.js"]);
});

/** Each library is met in one file, so that replacing it touches one file. */
const metIn: Record<string, string> = {
  "onnxruntime-node": "src/runtime/session.ts",
  "node-llama-cpp": "src/llamacpp/binding.ts",
  highs: "src/puzzle/search/highs.ts",
  zod: "src/base/schema.ts",
  hono: "src/serve/http.ts",
  "@hono/node-server": "src/serve/http.ts",
  yaml: "src/pipeline/recipe.ts",
};

test.each(Object.entries(metIn))("%s is imported in %s alone", (library, home) => {
  const pattern = new RegExp(`(?:from|import|require)\\s*\\(?\\s*["']${library}["']`);
  const users = files.filter(
    (file) => pattern.test(readFileSync(join(source, file), "utf8")) && !file.endsWith(".test.ts"),
  );
  expect(users.map((file) => `src/${file.split(sep).join("/")}`)).toEqual([home]);
});

test("package.json exports every area that has an index", () => {
  const { exports } = JSON.parse(readFileSync(repositoryPath("package.json"), "utf8")) as {
    exports: Record<string, unknown>;
  };
  const areas = rows.flat().filter((area) => area !== "cli" && existsSync(join(source, area, "index.ts")));
  expect(areas.filter((area) => !(`./${area}` in exports))).toEqual([]);
});
