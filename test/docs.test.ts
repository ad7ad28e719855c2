import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { repositoryPath } from "../src/base/testing.js";

const pages = [
  "README.md",
  "ARCHITECTURE.md",
  "CONTRIBUTING.md",
  ...readdirSync(repositoryPath("docs")).map((name) => `docs/${name}`),
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
  const text = readFileSync(repositoryPath("ARCHITECTURE.md"), "utf8");
  const mapped = [...text.matchAll(/^\| `([a-z]+)` \|/gm)].map((match) => match[1]!);
  expect(mapped).toEqual(areas);
});

test("every area that users import has a page", () => {
  const rows = JSON.parse(readFileSync(repositoryPath("layers.json"), "utf8")) as string[][];
  const areas = rows
    .flat()
    .filter((area) => !["base", "cli"].includes(area) && existsSync(repositoryPath(`src/${area}`)));
  expect(areas.filter((area) => !existsSync(repositoryPath(`docs/${area}.md`)))).toEqual([]);
});
