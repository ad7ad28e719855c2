import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { repositoryPath } from "../src/base/testing.js";

const { exports, dependencies } = JSON.parse(readFileSync(repositoryPath("package.json"), "utf8")) as {
  exports: Record<string, unknown>;
  dependencies: Record<string, string>;
};
const subpaths = Object.keys(exports).filter((path) => path !== "./package.json");

/** Imports every subpath of the build in a fresh process and says what that loaded. */
const program = `
  const modules = {};
  for (const path of ${JSON.stringify(subpaths)}) modules[path] = Object.keys(await import("espalier" + path.slice(1)));
  const files = process.report.getReport().sharedObjects;
  console.log(JSON.stringify({ modules, native: files.filter((file) => file.includes("node_modules")) }));
`;

test("every area that has an index is a subpath, and every subpath leads to one", () => {
  const areas = readdirSync(repositoryPath("src")).filter((area) => existsSync(repositoryPath(`src/${area}/index.ts`)));
  expect(
    subpaths
      .filter((path) => path !== ".")
      .map((path) => path.slice(2))
      .sort(),
  ).toEqual(areas.sort());
});

describe.skipIf(!existsSync(repositoryPath("dist/index.js")))("the build", () => {
  const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "--eval", program], {
    encoding: "utf8",
    cwd: repositoryPath(""),
  });

  test("importing everything loads no native library", () => {
    expect(stderr).toBe("");
    expect(JSON.parse(stdout).native).toEqual([]);
  });

  test("exports what the pages import", () => {
    const { modules } = JSON.parse(stdout) as { modules: Record<string, string[]> };
    const names = readdirSync(repositoryPath("docs")).filter((name) => name.endsWith(".md"));
    const docs = names.map((name) => `docs/${name}`);
    const missing: string[] = [];
    let seen = 0;
    for (const page of ["README.md", "src/index.ts", ...docs]) {
      const text = readFileSync(repositoryPath(page), "utf8");
      for (const [, names, path] of text.matchAll(/import \{([^}]+)\} from "espalier([^"]*)"/g)) {
        const values = names!.split(",").map((name) => name.trim().replace(/ as .*/, ""));
        for (const name of values.filter((value) => value !== "" && !value.startsWith("type "))) {
          seen++;
          if (!modules[`.${path}`]?.includes(name)) missing.push(`${page}: ${name} of espalier${path}`);
        }
      }
    }
    expect(missing).toEqual([]);
    expect(seen).toBeGreaterThan(20);
  });
});

test("each dependency is met in one area, those with native code in one file", () => {
  const met: Record<string, string[]> = {};
  for (const file of readdirSync(repositoryPath("src"), { recursive: true }).map(String)) {
    if (!file.endsWith(".ts") || file.endsWith(".test.ts")) continue;
    const text = readFileSync(repositoryPath(`src/${file}`), "utf8");
    for (const [, name] of text.matchAll(/(?:from|import)\s*\(?\s*["'](@?[a-z][^"'/]*(?:\/[^"'/]*)?)["']/g)) {
      if (name! in dependencies) met[name!] = [...new Set([...(met[name!] ?? []), file])];
    }
  }
  expect(Object.keys(met).sort()).toEqual(Object.keys(dependencies).sort());
  const areasOf = (name: string) => new Set(met[name]!.map((file) => file.split("/")[0]));
  expect(Object.keys(met).filter((name) => areasOf(name).size > 1)).toEqual([]);
  for (const name of ["onnxruntime-node", "node-llama-cpp", "highs", "zod", "yaml"]) {
    expect(met[name], name).toHaveLength(1);
  }
});
