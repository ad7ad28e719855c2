import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../../base/testing.js";

const directory = temporaryDirectory();

function espalier(...args: string[]) {
  const main = repositoryPath("dist/cli/main.js");
  return spawnSync(process.execPath, [main, ...args], { encoding: "utf8", cwd: repositoryPath("") });
}

const sft = (...args: string[]) => {
  const out = join(directory, "out");
  const store = join(directory, "store");
  return espalier("train", "sft", "models/stories260K", "--out", out, "--store", store, ...args);
};

describe("train sft", () => {
  test("a base model needs a chat template, and the error says how to give one", () => {
    const { status, stderr } = sft("--data", "data/toy/helpful.jsonl");
    expect(status).toBe(2);
    expect(stderr).toContain("name a Jinja file with --chat-template");
  });

  test("with one it ends with a result as JSON", () => {
    const options = ["--chat-template", "plain", "--steps", "2", "--held-out", "4", "--length", "128", "--json"];
    const { status, stdout, stderr } = sft("--data", "data/toy/helpful.jsonl", ...options);
    expect([status, stderr.match(/"event":"train"/g)?.length]).toEqual([0, 2]);
    const { stages, policy, command } = JSON.parse(stdout);
    expect(stages[0].measures[0]).toMatchObject({ name: "held-out loss", after: { n: 4 } });
    expect(policy).toBe(join(directory, "out/model"));
    expect(command).toContain("--chat-template plain");
  });

  test("all problems of the fields are told at once", () => {
    const { status, stderr } = sft("--data", "data/toy/helpful.jsonl", "--rank", "0", "--steps", "2", "--epochs", "1");
    expect(status).toBe(2);
    expect(stderr).toContain("stages.0.rank");
    expect(stderr).toContain("stages.0.epochs: name one of steps, epochs");
  });
});
