/**
 * The long check of resuming: a recipe (that of `npm start` unless another is named) killed and resumed ends with the same
 * bytes as a run that was left alone. Killed at six random moments, which takes about three runs of the recipe; or, with
 * `stages`, once in every stage, which takes about two.
 *   npm run check:resume [-- RECIPE [KILLS|stages [SEED]]]
 */
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { createRng } from "../src/base/index.js";
import { temporaryDirectory, temporaryRoot } from "../src/base/testing.js";
import { digestRun, killAndResume, killInEachStage, type RunPlace, runPlace, startRun } from "../test/support/runs.js";

const [recipe = "recipes/start.json", kills = "6", seed = "1"] = process.argv.slice(2);

const root = temporaryDirectory();
process.env[temporaryRoot] = root;
const whole = runPlace(temporaryDirectory());
const started = performance.now();
const { code, errors } = await startRun(recipe, whole).ended;
if (code !== 0) throw new Error(`the run that was left alone failed: ${errors}`);
const seconds = (performance.now() - started) / 1000;
const expected = digestRun(whole);
console.log(`${recipe}: ${Object.keys(expected).length} files in ${seconds.toFixed(0)} s; now with kills (${kills})`);

let different = 0;
for (const place of kills === "stages" ? [await killedInStages()] : await killedAtRandom()) {
  const found = digestRun(place);
  const names = new Set([...Object.keys(expected), ...Object.keys(found)]);
  for (const name of names) {
    if (expected[name] === found[name]) continue;
    different++;
    console.log(`  different: ${name}`);
  }
}
console.log(different === 0 ? "the same bytes in every file" : `${different} files differ; they are kept in ${root}`);
if (different === 0) rmSync(root, { recursive: true, force: true });
process.exitCode = different === 0 ? 0 : 1;

async function killedInStages(): Promise<RunPlace> {
  const rng = createRng(Number(seed));
  const place = runPlace(temporaryDirectory());
  const { stages } = JSON.parse(readFileSync(join(whole.out, "result.json"), "utf8"));
  await killInEachStage({
    recipe,
    place,
    stages,
    random: () => rng.next(),
    onKill: (stage, after) => console.log(`  killed ${after.toFixed(1)} s into ${stage}`),
  });
  return place;
}

async function killedAtRandom(): Promise<RunPlace[]> {
  const rng = createRng(Number(seed));
  return killAndResume({
    recipe,
    place: () => runPlace(temporaryDirectory()),
    kills: Number(kills),
    seconds,
    random: () => rng.next(),
    onKill: (after) => console.log(`  killed after ${after.toFixed(1)} s`),
  });
}
