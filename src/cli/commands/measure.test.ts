import { expect, test, vi } from "vitest";
import { repositoryPath, temporaryDirectory } from "../../base/testing.js";
import { checkCostTable } from "../../plan/index.js";
import { runCli } from "../testing.js";
import { createCommand } from "./measure.js";

// Samples short enough for a test; what they measure is not asserted.
vi.mock("../../pipeline/index.js", async (load) => {
  const pipeline = await load<typeof import("../../pipeline/index.js")>();
  const measureCosts: typeof pipeline.measureCosts = (request) =>
    pipeline.measureCosts({ ...request, sampleSeconds: 0.001 });
  return { ...pipeline, measureCosts };
});

async function run(...options: string[]) {
  return runCli(createCommand(), [repositoryPath("models/stories260K"), ...options]);
}

test.each([
  [["--type", "q5_k"], "--type: expected one of f32, f16, bf16, q8_0, found q5_k"],
  [["--input", "2000"], "--context: expected at least 2128, what --input and --output add up to, found 2048"],
  [["--ffn", "75,half"], "--ffn: expected percents such as 75,50,25,10, found 75,half"],
  [["--repeats", "1"], "--repeats: expected at least 2"],
])("%j is refused", async (options, message) => {
  const { error, exitCode } = await run(...options);
  expect([exitCode, error]).toEqual([2, expect.stringContaining(message)]);
});

test("prints a table from the store at once, and the JSON that --costs reads", async () => {
  const options = ["--store", temporaryDirectory(), "--repeats", "2", "--input", "8", "--output", "4", "--ffn", "50"];
  const { out } = await run(...options, "--check");
  expect(out).toMatch(/attention gqa 4 .*\n(.*\n)*ffn swiglu 88 /);
  expect(out).toMatch(/parent +decode +predicted .* ms, measured .* ms/);
  const { out: json } = await run(...options, "--check", "--json");
  const costs = JSON.parse(json) as { checks: unknown[] };
  expect(checkCostTable(costs, "costs.json").parent).toMatchObject({ hiddenSize: 64, vocabSize: 512 });
  expect(costs.checks).toHaveLength(4);
}, 120_000);
