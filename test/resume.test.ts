import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { createRng } from "../src/base/index.js";
import { temporaryDirectory } from "../src/base/testing.js";
import { digestRun, filesBelow, killAndResume, type RunPlace, runPlace, startRun } from "./support/runs.js";

const recipe = "recipes/toy.json";
const minutes = 60_000; // limits for a busy machine: a quiet one takes under a minute in all

describe("a run that is stopped", () => {
  const whole = runPlace(temporaryDirectory());
  let expected: Record<string, string>;
  let seconds: number;

  beforeAll(async () => {
    const run = startRun(recipe, whole);
    await run.seen(({ event }) => event === "stage-start");
    const started = performance.now();
    expect(await run.ended).toMatchObject({ code: 0, errors: "" });
    seconds = (performance.now() - started) / 1000;
    expected = digestRun(whole);
  }, 5 * minutes);

  test("killed at four random moments and resumed, it ends with the same bytes", {
    timeout: 8 * minutes,
  }, async () => {
    const rng = createRng("kill");
    const place = () => runPlace(temporaryDirectory());
    const places = await killAndResume({ recipe, place, kills: 4, seconds, random: () => rng.next() });
    for (const resumed of places) {
      expect(digestRun(resumed)).toEqual(expected);
      expect(filesBelow(resumed.out).filter((name) => name.endsWith(".tmp"))).toEqual([]);
    }
  });

  test("Ctrl-C ends it with 130 and nothing half-written, and it goes on from there", {
    timeout: 5 * minutes,
  }, async () => {
    const place = runPlace(temporaryDirectory());
    for (const stage of ["score", "distil/child"]) {
      const run = startRun(recipe, place);
      const reached = await run.seen((event) => ("done" in event || "step" in event ? event.stage === stage : false));
      expect(reached).toBe(true);
      run.child.kill("SIGINT");
      const { code, errors } = await run.ended;
      expect([code, errors]).toEqual([130, expect.stringContaining('{"error":"stopped"}')]);
      expectNothingHalfWritten(place, expected);
    }
    const stages = filesBelow(place.store).filter((name) => name.endsWith("manifest.json"));
    expect(stages.some((name) => name.startsWith("artifacts/realise-child"))).toBe(true);
    expect(stages.some((name) => name.startsWith("artifacts/distil-child"))).toBe(false);
  });
});

/** What is there under its own name is what the whole run wrote. */
function expectNothingHalfWritten(place: RunPlace, expected: Record<string, string>) {
  const files = [...filesBelow(place.store), ...filesBelow(place.out)];
  expect(files.filter((name) => /\.(tmp|lock)$/.test(name))).toEqual([]);
  const finished = Object.entries(digestRun(place)).filter(([file]) => file.startsWith(join("store", "artifacts")));
  expect(Object.fromEntries(finished)).toEqual(Object.fromEntries(finished.map(([file]) => [file, expected[file]])));
}
