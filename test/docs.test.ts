import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { repositoryPath } from "../src/base/testing.js";
import { recipeJsonSchema } from "../src/pipeline/index.js";
import { countSchema, messagesSchema } from "../src/serve/anthropic/messages.js";
import { generateSchema, chatSchema as ollamaChatSchema } from "../src/serve/ollama/chat.js";
import { chatSchema } from "../src/serve/openai/chat.js";
import { completionSchema } from "../src/serve/openai/completions.js";
import { embeddingSchema } from "../src/serve/openai/embeddings.js";
import { responseSchema } from "../src/serve/openai/responses.js";

const pages = [
  "README.md",
  "ARCHITECTURE.md",
  "CONTRIBUTING.md",
  ...readdirSync(repositoryPath("docs"))
    .filter((name) => name.endsWith(".md"))
    .map((name) => `docs/${name}`),
];

test.each(pages)("the links of %s lead somewhere", (page) => {
  const text = readFileSync(repositoryPath(page), "utf8");
  const links = [...text.matchAll(/\]\(([^)#\s]+)[^)]*\)/g)]
    .map((match) => match[1]!)
    .filter((link) => !/^[a-z]+:/.test(link));
  expect(links.filter((link) => !existsSync(join(dirname(repositoryPath(page)), link)))).toEqual([]);
});

test("the map of ARCHITECTURE.md has every area of src, in the order of layers.json", () => {
  const rows = JSON.parse(readFileSync(repositoryPath("layers.json"), "utf8")) as string[][];
  const areas = rows.flat().filter((area) => existsSync(repositoryPath(`src/${area}`)));
  const [map] = readFileSync(repositoryPath("ARCHITECTURE.md"), "utf8").split("## Decisions");
  const mapped = [...map!.matchAll(/^\| `([a-z]+)` \|/gm)].map((match) => match[1]!);
  expect(mapped).toEqual(areas);
});

test("every area that users import has a page", () => {
  const rows = JSON.parse(readFileSync(repositoryPath("layers.json"), "utf8")) as string[][];
  const areas = rows
    .flat()
    .filter((area) => !["base", "cli"].includes(area) && existsSync(repositoryPath(`src/${area}`)));
  expect(areas.filter((area) => !existsSync(repositoryPath(`docs/${area}.md`)))).toEqual([]);
});

test("docs/pipeline.md has every field of a recipe with its default", () => {
  const page = readFileSync(repositoryPath("docs/pipeline.md"), "utf8");
  const rows = fieldsOf(recipeJsonSchema() as Schema).map(([path, value]) =>
    value === undefined ? `| \`${path}\` | ` : `| \`${path}\` | ${[value].flat().join(", ")} |`,
  );
  expect(rows.filter((row) => !page.includes(row))).toEqual([]);
});

const requests = {
  "/v1/chat/completions": chatSchema,
  "/v1/completions": completionSchema,
  "/v1/embeddings": embeddingSchema,
  "/v1/responses": responseSchema,
  "/v1/messages": messagesSchema,
  "/v1/messages/count_tokens": countSchema,
  "/api/chat": ollamaChatSchema,
  "/api/generate": generateSchema,
};

test.each(Object.entries(requests))("docs/serve.md has every field of %s", (path, schema) => {
  const page = readFileSync(repositoryPath("docs/serve.md"), "utf8");
  expect(page).toContain(path);
  const missing = Object.keys(schema.shape).filter((field) => !new RegExp(`\\b${field}\\b`).test(page));
  expect(missing).toEqual([]);
});

interface Schema {
  properties?: Record<string, Schema>;
  default?: unknown;
}

/** Paths of all fields that hold a value, with their defaults. */
function fieldsOf({ properties = {} }: Schema, prefix = ""): [path: string, value: unknown][] {
  return Object.entries(properties)
    .filter(([name]) => name !== "$schema" && name !== "kind")
    .flatMap(([name, schema]): [string, unknown][] =>
      schema.properties ? fieldsOf(schema, `${prefix}${name}.`) : [[prefix + name, schema.default]],
    );
}
