import { existsSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { createRng, type Event } from "../base/index.js";
import { temporaryDirectory } from "../base/testing.js";
import { type ModelConfig, modelWeights } from "../models/index.js";
import { gqa, swiglu, testConfig } from "../models/testing.js";
import { createRuntime, type Runtime } from "../runtime/index.js";
import {
  adamw,
  cosine,
  createParameters,
  createStep,
  distillationBatch,
  languageModelLoss,
  modelDistillationLoss,
  nextTokenBatch,
  type Parameters,
  parentPrefix,
  sgd,
  type TrainOptions,
  train,
} from "./index.js";

const config = testConfig({
  family: "llama",
  vocabSize: 32,
  hiddenSize: 16,
  headDim: 4,
  maxPositions: 64,
  blocks: [
    { attention: gqa(2), ffn: swiglu(24) },
    { attention: gqa(4), ffn: swiglu(16) },
  ],
});
const shape = { batch: 2, length: 8 };

function randomParameters(model: ModelConfig, seed: number): Parameters {
  const parameters = createParameters(modelWeights(model));
  const rng = createRng(seed);
  for (const { name, shape } of parameters.layout.places) {
    const { data } = parameters.tensors[name]!;
    for (let i = 0; i < data.length; i++) data[i] = shape.length === 1 ? 1 : 0.2 * rng.normal();
  }
  return parameters;
}

function idsOf(number: number): Int32Array {
  const rng = createRng(`ids ${number}`);
  return Int32Array.from({ length: shape.batch * shape.length }, () => rng.int(config.vocabSize));
}

const textBatch = (number: number) =>
  nextTokenBatch({ ids: idsOf(number % 3), batchSize: shape.batch, length: shape.length });

function optionsFor(runtime: Runtime, parameters: Parameters): TrainOptions {
  return {
    runtime,
    stage: "toy",
    parameters,
    loss: languageModelLoss(config, shape),
    batches: textBatch,
    optimiser: adamw({ weightDecay: 0.01 }),
    learningRate: 0.01,
    schedule: cosine(),
    steps: 12,
  };
}

describe("train", () => {
  test("learns a text by heart and reports every step", async () => {
    const runtime = await createRuntime();
    const events: Event[] = [];
    const options = { ...optionsFor(runtime, randomParameters(config, 1)), steps: 60 };
    const { losses } = await train({ ...options, learningRate: 0.03, onEvent: (event) => events.push(event) });
    expect(losses[0]).toBeGreaterThan(3);
    expect(losses.at(-1)).toBeLessThan(0.5);
    expect(events.length).toBe(60);
    expect(events[1]).toMatchObject({ event: "train", stage: "toy", step: 2, steps: 60, loss: losses[1], tokens: 16 });
    await runtime.dispose();
  });

  test("stopped and resumed at any step ends with the same bytes", async () => {
    const runtime = await createRuntime();
    const whole = randomParameters(config, 2);
    const expected = await train(optionsFor(runtime, whole));
    for (const stop of [1, 5, 11]) {
      const path = join(temporaryDirectory(), "state");
      const stopping = new AbortController();
      const parameters = randomParameters(config, 2);
      const first = train({
        ...optionsFor(runtime, parameters),
        checkpoint: { path },
        signal: stopping.signal,
        onEvent: (event) => event.event === "train" && event.step === stop && stopping.abort(),
      });
      await expect(first).rejects.toThrow(/abort/i);
      const resumed = randomParameters(config, 99);
      const { losses } = await train({ ...optionsFor(runtime, resumed), checkpoint: { path } });
      expect(losses).toEqual(expected.losses);
      expect(resumed.flat).toEqual(whole.flat);
    }
    await runtime.dispose();
  });

  test("a run killed between checkpoints repeats the steps since the last one", async () => {
    const runtime = await createRuntime();
    const whole = randomParameters(config, 2);
    await train(optionsFor(runtime, whole));
    const path = join(temporaryDirectory(), "state");
    const killed = train({
      ...optionsFor(runtime, randomParameters(config, 2)),
      checkpoint: { path, every: 4 },
      batches: (number) => {
        if (number === 7) throw new Error("killed");
        return textBatch(number);
      },
    });
    await expect(killed).rejects.toThrow("killed");
    const resumed = randomParameters(config, 3);
    await train({ ...optionsFor(runtime, resumed), checkpoint: { path, every: 4 } });
    expect(resumed.flat).toEqual(whole.flat);
    await runtime.dispose();
  });

  test("steps counted from their time: the timing leaves nothing behind", async () => {
    const runtime = await createRuntime();
    const [whole, timed] = [randomParameters(config, 2), randomParameters(config, 2)];
    const expected = await train(optionsFor(runtime, whole));
    let [time, measured] = [0, 0];
    const { losses } = await train({
      ...optionsFor(runtime, timed),
      clock: () => {
        time += 100;
        return time;
      },
      steps: (secondsPerStep) => {
        measured = secondsPerStep;
        return expected.losses.length;
      },
    });
    expect(measured).toBe(0.1);
    expect(losses).toEqual(expected.losses);
    expect(timed.flat).toEqual(whole.flat);
    await runtime.dispose();
  });

  test("checkpoints are spaced by what they cost, where no step count is given", async () => {
    const runtime = await createRuntime();
    const path = join(temporaryDirectory(), "state");
    let time = 0;
    const written: number[] = [];
    await train({
      ...optionsFor(runtime, randomParameters(config, 2)),
      checkpoint: { path },
      clock: () => time,
      afterStep: async (step) => {
        time += 8000;
        if (existsSync(path)) {
          written.push(step);
          rmSync(path);
        }
      },
    });
    // 15 s are over after the second step, the file is seen after the next one.
    expect(written).toEqual([3, 5, 7, 9, 11]);
    await runtime.dispose();
  });

  test("refuses a checkpoint of other settings, and a broken one", async () => {
    const runtime = await createRuntime();
    const path = join(temporaryDirectory(), "state");
    const options = { ...optionsFor(runtime, randomParameters(config, 2)), checkpoint: { path, every: 4 } };
    await train(options);
    await expect(train({ ...options, learningRate: 0.5 })).rejects.toThrow("one of other settings");
    const bytes = await readFile(path);
    const { writeFile } = await import("node:fs/promises");
    await writeFile(path, bytes.subarray(0, bytes.length - 7));
    await expect(train(options)).rejects.toThrow("truncated");
    await runtime.dispose();
  });

  test("a step over two batches equals one over their union, whatever their weights", async () => {
    const runtime = await createRuntime();
    const ids = [idsOf(0), idsOf(1)];
    const chosen = [new Uint8Array(16).fill(1), Uint8Array.from({ length: 16 }, (_, i) => Number(i > 10))];
    const batches = ids.map((row, i) => nextTokenBatch({ ids: row, batchSize: 2, length: 8 }, chosen[i]));
    const union = nextTokenBatch(
      { ids: Int32Array.of(...ids[0]!, ...ids[1]!), batchSize: 4, length: 8 },
      Uint8Array.of(...chosen[0]!, ...chosen[1]!),
    );
    expect(union.weight).toBe(batches[0]!.weight + batches[1]!.weight);
    const options = { runtime, stage: "sum", optimiser: sgd(), learningRate: 0.1, steps: 2 };
    const [parts, one] = [randomParameters(config, 4), randomParameters(config, 4)];
    const loss = languageModelLoss(config, shape);
    const summed = await train({
      ...{ ...options, loss, parameters: parts },
      accumulate: 2,
      batches: (number) => batches[number % 2]!,
    });
    const wide = languageModelLoss(config, { batch: 4, length: 8 });
    const joined = await train({ ...options, loss: wide, parameters: one, batches: () => union });
    expect(summed.losses[1]).toBeCloseTo(joined.losses[1]!, 5);
    parts.flat.forEach((value, i) => {
      expect(Math.abs(value - one.flat[i]!)).toBeLessThan(1e-6);
    });
    await runtime.dispose();
  });

  test("every row of an embedding that is looked up often gets all its gradients", async () => {
    const runtime = await createRuntime({ threads: 2 });
    const [rows, width] = [2048, 64];
    const embedding = createParameters([{ name: "table", shape: [8, width] }]);
    const ids = BigInt64Array.from({ length: rows }, (_, i) => BigInt(i % 3));
    const gradients = new Float32Array(embedding.layout.size);
    const step = createStep(runtime, "lookup", embedding, gradients, (g, { table }) => ({
      loss: g.sum(g.embedding(table!, g.input("ids", [rows], "i64"))),
    }));
    for (const first of [true, false]) await step.run({ ids: { dtype: "i64", shape: [rows], data: ids } }, 1, first);
    const counts = [1366, 1366, 1364, 0, 0, 0, 0, 0]; // 683, 683, 682 in each of two batches
    expect([...gradients]).toEqual(counts.flatMap((count) => Array.from({ length: width }, () => count)));
    await runtime.dispose();
  });

  test("stops with an error when the loss is not finite", async () => {
    const runtime = await createRuntime();
    const parameters = randomParameters(config, 5);
    parameters.flat[3] = Number.NaN;
    await expect(train(optionsFor(runtime, parameters))).rejects.toThrow("toy, step 1: expected a finite loss");
    await runtime.dispose();
  });
});

describe("distillation", () => {
  const parent = randomParameters(config, 6);
  const frozen = Object.fromEntries(Object.entries(parent.tensors).map(([name, t]) => [parentPrefix + name, t]));
  const child: ModelConfig = {
    ...config,
    blocks: [
      { attention: { kind: "linear" }, ffn: { kind: "swiglu", width: 12 } },
      { attention: { kind: "gqa", kvHeads: 1 }, ffn: { kind: "none" } },
    ],
  };
  const batch = () => distillationBatch({ ids: idsOf(0), batchSize: 2, length: 8 });

  test("a copy of the parent is at distance zero, with no gradient", async () => {
    const runtime = await createRuntime();
    const gradients = new Float32Array(parent.layout.size);
    const loss = modelDistillationLoss(config, config, shape);
    const step = createStep(runtime, "copy", parent, gradients, loss);
    const { feeds, weight } = batch();
    const result = await step.run({ ...feeds, ...frozen }, weight, true);
    expect(Math.abs(result.loss)).toBeLessThan(1e-6);
    expect(Math.max(...gradients.map(Math.abs))).toBeLessThan(1e-6);
    await runtime.dispose();
  });

  test("brings a child with other blocks nearer to its parent, in both parts", async () => {
    const runtime = await createRuntime();
    const parts: Record<string, number>[] = [];
    await train({
      ...optionsFor(runtime, randomParameters(child, 7)),
      loss: modelDistillationLoss(config, child, shape),
      frozen,
      batches: batch,
      steps: 60,
      onEvent: (event) => event.event === "train" && parts.push(event.parts!),
    });
    const [first, last] = [parts[0]!, parts.at(-1)!];
    expect(last.cosine).toBeLessThan(0.7 * first.cosine!);
    expect(last.kl).toBeLessThan(0.5 * first.kl!);
    await runtime.dispose();
  });
});
