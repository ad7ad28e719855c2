import { cpSync, existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createRng, type Event } from "../../base/index.js";
import { repositoryPath, temporaryDirectory } from "../../base/testing.js";
import { createEngine } from "../../engine/index.js";
import { type Model, modelWeights, openModel, overlayModel } from "../../models/index.js";
import { createRuntime, type Runtime } from "../../runtime/index.js";
import { type F32Tensor, f32Tensor } from "../../tensor/index.js";
import { checkRecipe } from "../recipe.js";
import { type Artifact, openStore } from "../store.js";
import { type DistilContext, type DistilText, distilChild } from "./distil.js";

const length = 16;
let parent: Model;
let runtime: Runtime;
/** The parent with noise on every matrix. */
let child: Model;

beforeAll(async () => {
  parent = await openModel(repositoryPath("models/stories260K"));
  runtime = await createRuntime({ threads: 1 });
  const rng = createRng("noise");
  const noisy = new Map<string, F32Tensor>();
  for (const { name, shape } of modelWeights(parent.config)) {
    const values = ((await parent.weights.read(name)) as F32Tensor).data.map((x) => x * (1 + 0.3 * rng.normal()));
    noisy.set(name, f32Tensor(shape, values));
  }
  child = overlayModel(parent, parent.config, noisy);
});

afterAll(async () => {
  await runtime.dispose();
  await parent.close();
});

function contextAt(root: string, distil: object, more: Partial<DistilContext> = {}): DistilContext {
  const recipe = checkRecipe(
    { kind: "reshape", parent: "models/stories260K", out: "out", budget: { params: "60%" }, length, distil },
    "recipe",
  );
  const onEvent = () => {};
  const { signal } = new AbortController();
  const engine = createEngine(runtime, parent);
  return { recipe, store: openStore(root), parent, parentDigest: "parent", engine, runtime, onEvent, signal, ...more };
}

function textOf(part: string, count: number) {
  const rng = createRng(part);
  const ids = Int32Array.from({ length: count * length }, () => rng.int(parent.config.vocabSize));
  return { name: part, count, length, ids } as DistilText["sequences"]["distil"];
}

const artifactOf = (digest: string) => ({ digest }) as Artifact;
const prepared = () => ({
  artifact: artifactOf("text"),
  sequences: { score: textOf("score", 4), distil: textOf("distil", 40) },
});
const realised = () => ({ name: "child", artifact: artifactOf("child"), open: async () => child });

/** A machine on which every look at the clock finds it 50 ms later. */
function ticking() {
  let time = 0;
  return () => {
    time += 50;
    return time;
  };
}

function filesOf(directory: string): Record<string, string> {
  const names = readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const entries = names
    .filter(({ name }) => name !== "cost.json")
    .map((entry) => join(entry.parentPath, entry.name))
    .map((path) => [path.slice(directory.length), readFileSync(path).toString("base64")] as const);
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}

describe("distillation of a child", () => {
  test("brings it nearer to its parent, and keeps the last state", async () => {
    const events: Event[] = [];
    const distil = { tokens: 60 * 4 * length, batch: 4, learningRate: 2e-3 };
    const context = contextAt(temporaryDirectory(), distil, { onEvent: (event) => events.push(event) });
    const { curve, artifact, open } = await distilChild(context, prepared(), realised());
    expect(curve).toMatchObject({ steps: 60, tokensPerStep: 64, keptStep: 60 });
    expect(curve.points.map(({ step }) => step)).toEqual([0, 15, 30, 45, 60]);
    expect(curve.points.at(-1)!.kl.mean).toBeLessThan(0.5 * curve.points[0]!.kl.mean);
    expect(events).toContainEqual({
      event: "notice",
      level: "info",
      message: "distil/child: 6.0 passes over 640 tokens of text",
    });
    expect(readdirSync(artifact.directory).sort()).toEqual(["cost.json", "curve.json", "manifest.json", "model"]);
    await (await open()).close();
  });

  test("keeps an earlier state where training makes it worse", async () => {
    const events: Event[] = [];
    const distil = { tokens: 8 * 4 * length, batch: 4, learningRate: 3 };
    const context = contextAt(temporaryDirectory(), distil, { onEvent: (event) => events.push(event) });
    const { curve, open } = await distilChild(context, prepared(), realised());
    expect(curve.keptStep).toBe(0);
    expect(curve.lastAboveKept!.low).toBeGreaterThan(0);
    expect(JSON.stringify(events)).toContain("distil/child: step 0 of 8 is kept");
    const kept = await open();
    const name = "model.layers.0.mlp.up_proj.weight";
    expect((await kept.weights.read(name)).data).toEqual((await child.weights.read(name)).data);
    await kept.close();
  });

  test("a time box becomes steps by measurement, and the schedule ends with it", async () => {
    const rates: number[] = [];
    const context = contextAt(
      temporaryDirectory(),
      { minutes: 0.1, batch: 4 },
      { onEvent: (event) => event.event === "train" && rates.push(event.learningRate!) },
    );
    const { curve } = await distilChild(context, prepared(), realised(), { clock: ticking() });
    // A point and a step look at the clock twice; three to fifty steps in a second are timed after a first one.
    expect(curve.box).toMatchObject({ minutes: 0.1, secondsPerStep: 0.05, secondsPerPoint: 0.05 });
    const { steps, secondsSpent } = curve.box!;
    expect(steps).toBe(Math.floor((6 - secondsSpent - 4 * 0.05) / 0.05));
    expect([curve.steps, rates.length]).toEqual([steps, steps]);
    expect(Math.max(...rates)).toBe(1e-3);
    expect(rates.at(-1)).toBeLessThan(1.01e-4);
    expect(rates.at(-1)).toBeGreaterThanOrEqual(1e-4);
  });

  test.each([
    ["one program", 2 ** 30],
    ["programs for halves of blocks", 0],
  ])("killed in a box and resumed on a slower machine, it ends with the same bytes: %s", async (_, smallStepBytes) => {
    const [root, other] = [temporaryDirectory(), temporaryDirectory()];
    const distil = { minutes: 0.05, batch: 4 };
    let steps = 0;
    const whole = await distilChild(contextAt(root, distil), prepared(), realised(), {
      smallStepBytes,
      clock: () => {
        steps += 1;
        // What is known once the box is measured goes to the other run, as a kill would leave it.
        const work = join(root, "work");
        if (existsSync(work) && !existsSync(join(other, "work"))) {
          const box = readdirSync(work).some((name) => existsSync(join(work, name, "box.json")));
          if (box) cpSync(work, join(other, "work"), { recursive: true });
        }
        return 50 * steps;
      },
    });
    const stopping = new AbortController();
    const stopped = distilChild(
      contextAt(other, distil, {
        signal: stopping.signal,
        onEvent: (event) => event.event === "train" && event.step === 7 && stopping.abort(),
      }),
      prepared(),
      realised(),
      { smallStepBytes },
    );
    await expect(stopped).rejects.toThrow(/abort/i);
    const resumed = await distilChild(contextAt(other, distil), prepared(), realised(), { smallStepBytes });
    expect(resumed.curve.points.at(-1)!.kl.mean).toBeLessThan(0.5 * resumed.curve.points[0]!.kl.mean);
    expect(resumed.curve.box).toEqual(whole.curve.box);
    expect(filesOf(resumed.artifact.directory)).toEqual(filesOf(whole.artifact.directory));
    expect(resumed.artifact.digest).toBe(whole.artifact.digest);
  });
});
