import { spawnSync } from "node:child_process";
import { describe, expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../src/base/testing.js";

const main = repositoryPath("dist/cli/main.js");

function espalier(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], {
    encoding: "utf8",
    cwd: repositoryPath(""),
  });
  return { status, stdout, stderr };
}

describe("command line", () => {
  const names = [
    "run",
    "reshape",
    "init",
    "measure",
    "search",
    "show",
    "export",
    "generate",
    "chat",
    "perplexity",
    "doctor",
    "clean",
  ];

  test("--help lists every command", () => {
    const { status, stdout } = espalier("--help");
    expect(status).toBe(0);
    for (const name of names) expect(stdout).toMatch(new RegExp(`^  ${name} `, "m"));
  });

  test.each(names)("%s --help has an example and --json", (name) => {
    const { status, stdout } = espalier(name, "--help");
    expect(status).toBe(0);
    expect(stdout).toMatch(/Examples?:\s+\$ espalier /);
    expect(stdout).toContain("--json");
  });

  test("an unknown option suggests the near one and exits with 2", () => {
    const { status, stderr } = espalier("show", "models/stories260K", "--jsn");
    expect(status).toBe(2);
    expect(stderr).toContain("Did you mean --json?");
  });

  test("an unknown command suggests the near one and exits with 2", () => {
    const { status, stderr } = espalier("serch");
    expect(status).toBe(2);
    expect(stderr).toContain("Did you mean search?");
  });

  test("a bad option value names what was found", () => {
    const { status, stderr } = espalier("show", "models/stories260K", "--threads", "many");
    expect(status).toBe(2);
    expect(stderr).toContain('found "many"');
  });

  test("all problems of a recipe are told at once, with exit code 2", () => {
    const { status, stderr } = espalier("run", "test/fixtures/bad-recipe.json");
    expect(status).toBe(2);
    for (const part of ["parent", "budget.params", "length", "distil"]) expect(stderr).toContain(part);
  });

  test("a missing model is named, with exit code 1 and nothing on standard output", () => {
    const { status, stdout, stderr } = espalier("show", "models/none", "--json");
    expect(status).toBe(1);
    expect(stdout).toBe("");
    expect(JSON.parse(stderr.trim().split("\n").at(-1)!).error).toContain("models/none");
  });

  test("init writes a recipe that passes its own check and is not replaced unasked", () => {
    const path = `${temporaryDirectory()}/recipe.json`;
    expect(espalier("init", path).status).toBe(0);
    const again = espalier("init", path);
    expect([again.status, again.stderr]).toEqual([2, expect.stringContaining("--force")]);
  });
});
