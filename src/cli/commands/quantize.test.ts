import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../../base/testing.js";
import { runCli } from "../testing.js";
import { createCommand } from "./quantize.js";

const folder = temporaryDirectory();
const run = (...options: string[]) => runCli(createCommand(), [repositoryPath("models/stories260K"), ...options]);

test.each([
  [["--out", "a.gguf"], "expected --type or --memory, found neither"],
  [["--out", "a.gguf", "--type", "Q4_0", "--memory", "1MB"], "expected --type or --memory, found both"],
  [["--out", "a.gguf", "--type", "Q9"], "expected --type of F32, F16"],
  [["--out", "a.gguf", "--type", "IQ2_XS", "--imatrix", "none"], "expected an importance matrix for IQ2_XS"],
  [["--out", "a.gguf", "--type", "Q4_0", "--tensor", "ffn=Q9"], "expected --tensor PATTERN=TYPE with a type of F32"],
  [
    ["--out", "a.gguf", "--type", "F16", "--tensor", "ffn=Q8_0"],
    "expected --tensor with a type that quantises, found F16",
  ],
  [
    ["--out", "a.gguf", "--type", "Q4_0", "--imatrix", "none", "--save-imatrix", "m.gguf"],
    "expected --save-imatrix with a matrix that is measured, found --imatrix none",
  ],
  [["--out", repositoryPath("README.md"), "--type", "Q4_0"], "README.md: expected a path that does not exist yet"],
])("%j is refused", async (options, message) => {
  const { error, exitCode } = await run(...options);
  expect([exitCode, error]).toEqual([2, expect.stringContaining(message)]);
});

test("says how large a file will be without writing one", async () => {
  const out = join(folder, "dry.gguf");
  const { out: printed } = await run("--type", "q8_0", "--out", out, "--dry-run", "--json");
  expect(JSON.parse(printed)).toMatchObject({ type: "Q8_0", imatrix: false });
  expect(existsSync(out)).toBe(false);
});

test("writes a file with its matrix, and says what was lost", async () => {
  const out = join(folder, "q4.gguf");
  const short = ["--sequences", "2", "--length", "64"];
  const { out: printed, error } = await run("--type", "Q4_0", "--out", out, ...short, "--json");
  const { file } = JSON.parse(printed);
  expect(file).toMatchObject({
    type: "Q4_0",
    imatrix: true,
    bytes: statSync(out).size,
    predictedBytes: statSync(out).size,
  });
  expect(file.compared).toMatchObject({ sequences: 2, tokens: 126 });
  expect(error).toContain("name text of your own kind with --text");
});

test("chooses types for a size and shows the mixture of the same budget beside them", async () => {
  const out = join(folder, "sized.gguf");
  const { out: printed } = await run("--memory", "260KB", "--out", out, "--sequences", "2", "--length", "64");
  expect(printed).toMatch(/sized\.gguf: .*\n {2}size .*: equal\n/);
  expect(printed).toMatch(
    /predicted {2}KL 0\.\d+, the sum over matrices quantised alone\nbeside it, \S+ of the same budget:/,
  );
  expect(statSync(out).size).toBeLessThanOrEqual(260_000);
  expect(existsSync(`${out}.rival.gguf`)).toBe(false);
});
