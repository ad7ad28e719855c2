import { readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { createRng } from "../../base/index.js";
import { repositoryPath, temporaryDirectory } from "../../base/testing.js";
import { createEngine } from "../../engine/index.js";
import { modelWeights, openModel } from "../../models/index.js";
import { createRuntime } from "../../runtime/index.js";
import { createParameters, loadParameters } from "../../train/index.js";
import { createPoints } from "./distil-points.js";

test("the best state on the way is kept on disk, and comes back", async () => {
  const model = await openModel(repositoryPath("models/stories260K"));
  const runtime = await createRuntime({ threads: 1 });
  const parameters = createParameters(modelWeights(model.config));
  await loadParameters(parameters, (name) => model.weights.read(name));
  const exact = parameters.flat.slice();
  const rng = createRng("points");
  const noise = exact.map(() => rng.normal());
  const sequences = Array.from({ length: 3 }, () => Int32Array.from({ length: 16 }, () => rng.int(512)));
  const directory = temporaryDirectory();
  const { signal } = new AbortController();
  const teacher = createEngine(runtime, model);
  const request = { runtime, teacher, model, parameters, sequences, tokensPerStep: 10, directory, signal };
  const points = createPoints(request);
  for (const [step, size] of [
    [0, 0.3],
    [10, 0.2],
    [20, 0.05],
    [30, 0.1],
  ] as const) {
    parameters.flat.forEach((_, i) => {
      parameters.flat[i] = exact[i]! * (1 + size * noise[i]!);
    });
    // An interrupted run measures again what it has measured; the first answer stays.
    for (const run of [points, createPoints(request)]) await run.measure(step);
  }
  expect(readdirSync(directory).sort()).toEqual([
    "best-20.f32",
    ...["point-0.json", "point-10.json", "point-20.json", "point-30.json"],
  ]);
  const { kept, worseThanKept } = await points.keepBest();
  expect([kept.step, kept.tokens]).toEqual([20, 200]);
  expect(worseThanKept!.low).toBeGreaterThan(0);
  expect(parameters.flat).toEqual(exact.map((value, i) => value * (1 + 0.05 * noise[i]!)));
  await runtime.dispose();
  await model.close();
});
