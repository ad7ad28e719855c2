/**
 * The long check of resuming: `npm start`'s recipe, killed at six random moments and resumed each time, ends with the same
 * bytes as a run that was left alone. Takes about three runs of the recipe.
 *   npm run check:resume [-- RECIPE [KILLS [SEED]]]
 */
import { createRng } from "../src/base/index.js";
import { temporaryDirectory } from "../src/base/testing.js";
import { digestRun, killAndResume, runPlace, startRun } from "../test/support/runs.js";

const [recipe = "recipes/start.json", kills = "6", seed = "1"] = process.argv.slice(2);

const whole = runPlace(temporaryDirectory());
const started = performance.now();
const { code, errors } = await startRun(recipe, whole).ended;
if (code !== 0) throw new Error(`the run that was left alone failed: ${errors}`);
const seconds = (performance.now() - started) / 1000;
const expected = digestRun(whole);
console.log(`${recipe}: ${Object.keys(expected).length} files in ${seconds.toFixed(0)} s; now with ${kills} kills`);

const rng = createRng(Number(seed));
const places = await killAndResume({
  recipe,
  place: () => runPlace(temporaryDirectory()),
  kills: Number(kills),
  seconds,
  random: () => rng.next(),
  onKill: (after) => console.log(`  killed after ${after.toFixed(1)} s`),
});
let different = 0;
for (const place of places) {
  const found = digestRun(place);
  const names = new Set([...Object.keys(expected), ...Object.keys(found)]);
  for (const name of names) {
    if (expected[name] === found[name]) continue;
    different++;
    console.log(`  different: ${name}`);
  }
}
console.log(different === 0 ? "the same bytes in every file" : `${different} files differ`);
process.exitCode = different === 0 ? 0 : 1;
