import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryDirectory } from "../../base/testing.js";
import { runCli } from "../testing.js";
import { createCommand } from "./search.js";

const variant = (memory: number, loss: number) => ({ stats: { memory }, metrics: { kl_div: loss } });
const library = {
  a: { full: variant(10, 0), half: variant(5, 0.25) },
  b: { full: variant(10, 0), none: variant(0, 0.5) },
};

async function run(value: unknown, ...options: string[]) {
  const path = join(temporaryDirectory(), "library.json");
  writeFileSync(path, typeof value === "string" ? value : JSON.stringify(value));
  return runCli(createCommand(), [path, ...options]);
}

test("--json prints one object: the proven choice, a pool, a frontier", async () => {
  const { out, exitCode } = await run(
    library,
    ...["--max", "memory=15", "--solutions", "2", "--min-distance", "2", "--sweep", "memory=0..20/3", "--json"],
  );
  expect(exitCode).toBe(0);
  const result = JSON.parse(out);
  expect(result).toMatchObject({ status: "optimal", objective: 0.25, bound: 0.25, gap: 0, totals: { memory: 15 } });
  expect(result.choice).toEqual({ a: "half", b: "full" });
  expect(result.solutions.map(({ choice }: { choice: unknown }) => choice)).toEqual([
    { a: "half", b: "full" },
    { a: "full", b: "none" },
  ]);
  expect(result.frontier.map(({ status }: { status: string }) => status)).toEqual(["infeasible", "optimal", "optimal"]);
  expect(result.reason).toBeNull();
});

test("for people: the choice, the proof, what a unit more would save", async () => {
  const { out } = await run(library, "--max", "memory=15");
  expect(out).toContain("a  half\nb  full\n");
  expect(out).toMatch(/objective 0\.25, bound 0\.25, gap 0 \(proven optimal\)/);
  expect(out).toContain("memory 15  (one more saves 0.05)");
});

test("infeasible: exit code 1, the reason, and still one object", async () => {
  const { out, exitCode } = await run(library, "--max", "memory=3", "--json");
  expect(exitCode).toBe(1);
  expect(JSON.parse(out).reason.nearest.max).toEqual({ memory: 5 });
});

test("bad input: exit code 2 and one message", async () => {
  expect(await run("{", "--max", "memory=3")).toMatchObject({ out: "" });
  for (const [value, option, message] of [
    [{ a: { v: { stats: {} } } }, "memory=3", "a.v.metrics"],
    [library, "memory", '--max: expected NAME=NUMBER, found "memory"'],
    [library, "speed=3", 'max "speed": the library\'s names are "memory", "kl_div"'],
  ] as const) {
    const { error, exitCode } = await run(value, "--max", option);
    expect(error).toContain(message);
    expect(exitCode).toBe(2);
  }
});
