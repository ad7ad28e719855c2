import { existsSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { createRng, createRngFromState, type Event, type Rng, type RngState } from "../base/index.js";
import { temporaryDirectory } from "../base/testing.js";
import { type ModelConfig, modelWeights, resolveLora } from "../models/index.js";
import { createTestModel, gqa, swiglu, testConfig } from "../models/testing.js";
import { createRuntime, type Runtime } from "../runtime/index.js";
import { f32Tensor, i64Tensor } from "../tensor/index.js";
import {
  adamw,
  type Batch,
  constant,
  cosine,
  createParameters,
  createStep,
  distillationBatch,
  languageModelLoss,
  loadTrainable,
  modelDistillationLoss,
  nextTokenBatch,
  type Parameters,
  packedLoss,
  parentPrefix,
  readTrainedParameters,
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
    await expect(train({ ...options, learningRate: 0.5 })).rejects.toThrow(
      /expected a checkpoint of the same run, learningRate: 0.5, found learningRate: 0.01/,
    );
    const frozen = { teacher: f32Tensor([2], [1, 2]) };
    await expect(train({ ...options, frozen })).rejects.toThrow(
      /frozen weights: 1 tensors.*found frozen weights: none/,
    );
    const wide = randomParameters({ ...config, vocabSize: 40 }, 2);
    await expect(train({ ...options, parameters: wide })).rejects.toThrow(
      /the same run, parameters: .*found parameters:/,
    );
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
    await expect(train(optionsFor(runtime, parameters))).rejects.toThrow(
      "toy, step 1, batch 0: expected a finite loss",
    );
    await runtime.dispose();
  });

  test("a batch that gives NaN is named, and the checkpoint stays that of the last state known to be sound", async () => {
    const runtime = await createRuntime();
    const path = join(temporaryDirectory(), "state");
    const whole = randomParameters(config, 2);
    await train({ ...optionsFor(runtime, whole), steps: 4, schedule: constant() });
    const parameters = randomParameters(config, 2);
    const broken = train({
      ...optionsFor(runtime, parameters),
      schedule: constant(),
      accumulate: 1,
      checkpoint: { path, every: 1 },
      batches(number) {
        const batch = textBatch(number);
        if (number !== 5) return { ...batch, name: `text ${number}` };
        const weights = f32Tensor([16], new Float32Array(16).fill(Number.NaN));
        return { ...batch, name: "text 5", feeds: { ...batch.feeds, weights } };
      },
    });
    await expect(broken).rejects.toThrow(
      /toy, step 6, batch 5 \(text 5\): expected a finite .*found loss NaN.*state is of an/,
    );
    const kept = new Float32Array(parameters.layout.size);
    // Five steps were done, and the loss after the fifth was no number: the state after the fourth is the last sound one.
    expect(await readTrainedParameters(path, kept)).toBe(4);
    expect(kept).toEqual(whole.flat);
    await runtime.dispose();
  });

  test("events tell memory, time left and the share of the peak", async () => {
    const runtime = await createRuntime();
    const events: Extract<Event, { event: "train" }>[] = [];
    let time = 0;
    await train({
      ...optionsFor(runtime, randomParameters(config, 2)),
      steps: 3,
      flopsPerToken: 1e9,
      clock: () => {
        time += 500;
        return time;
      },
      onEvent: (event) => event.event === "train" && events.push(event),
    });
    expect(events.map(({ secondsLeft }) => secondsLeft)).toEqual([1, 0.5, 0]);
    const { tokensPerSecond, shareOfPeak, rssBytes } = events[0]!;
    expect(tokensPerSecond).toBe(32);
    const rate = (32 * 1e9) / shareOfPeak!;
    expect(rate).toBeGreaterThan(1e9); // a matrix rate that a machine may have
    expect(rate).toBeLessThan(1e14);
    expect(rssBytes).toBeGreaterThan(50e6);
    await runtime.dispose();
  });
});

describe("measuring on the way", () => {
  const held = [nextTokenBatch({ ids: idsOf(50), batchSize: 2, length: 8 }), textBatch(0)];

  test("the mean loss of batches, at the start, every so often and at the end; the best state is kept", async () => {
    const runtime = await createRuntime();
    const folder = temporaryDirectory();
    const checkpoint = { path: join(folder, "last"), best: join(folder, "best") };
    const parameters = randomParameters(config, 2);
    const events: Event[] = [];
    const { measured, best, losses } = await train({
      ...optionsFor(runtime, parameters),
      learningRate: 0.05,
      checkpoint,
      evaluate: { every: 5, of: held },
      onEvent: (event) => event.event === "evaluate" && events.push(event),
    });
    expect(measured.map(({ step }) => step)).toEqual([0, 5, 10, 12]);
    expect(best).toEqual(measured.reduce((a, b) => (b.loss < a.loss ? b : a)));
    expect(events.map((event) => event.event === "evaluate" && event.loss)).toEqual(measured.map(({ loss }) => loss));
    const kept = createParameters(modelWeights(config));
    expect(await readTrainedParameters(checkpoint.best, kept.flat)).toBe(best!.step);
    // One step at rate 0 over the same batches has their loss.
    const again = await train({
      ...{ ...optionsFor(runtime, kept), steps: 1, accumulate: 2, learningRate: 0 },
      batches: (number) => held[number]!,
    });
    expect(again.losses[0]).toBeCloseTo(best!.loss, 5);
    const last = createParameters(modelWeights(config));
    expect(await readTrainedParameters(checkpoint.path, last.flat)).toBe(losses.length);
    expect(last.flat).toEqual(parameters.flat);
    await runtime.dispose();
  });

  test("stops when measurements cease to improve by enough", async () => {
    const runtime = await createRuntime();
    const script = [5, 4, 3.95, 3.5, 3.49, 3.45, 3];
    let at = 0;
    const { measured, best, steps } = await train({
      ...optionsFor(runtime, randomParameters(config, 2)),
      evaluate: { every: 2, of: async () => script[at++]!, patience: 2, minImprovement: 0.1 },
    });
    expect(steps).toBe(10);
    expect(measured.map(({ loss }) => loss)).toEqual(script.slice(0, 6));
    expect(best).toEqual({ step: 6, loss: 3.5 });
    await runtime.dispose();
  });

  test("the moving average is what is measured", async () => {
    const runtime = await createRuntime();
    const start = randomParameters(config, 2);
    const expected = Float64Array.from(start.flat);
    const parameters = randomParameters(config, 2);
    let seen: Float32Array | undefined;
    const { average } = await train({
      ...optionsFor(runtime, parameters),
      average: { decay: 0.75 },
      evaluate: {
        every: 12,
        async of({ flat, tensors }) {
          seen = flat;
          return tensors["model.norm.weight"]!.data[0]!;
        },
      },
      afterStep: async () => {
        for (let i = 0; i < expected.length; i++) expected[i] = 0.75 * expected[i]! + 0.25 * parameters.flat[i]!;
      },
    });
    expect(seen).toBe(average);
    average!.forEach((value, i) => {
      expect(Math.abs(value - expected[i]!)).toBeLessThan(1e-6);
    });
    await runtime.dispose();
  });

  test("average, adapter, accumulation, early stop and a generator: killed anywhere, the same bytes", async () => {
    const runtime = await createRuntime();
    const model = createTestModel(testConfig({ vocabSize: 32, blocks: [{ attention: gqa(2), ffn: swiglu(24) }] }));
    const lora = resolveLora(model.config, { rank: 2 });
    const packed = { ...shape, targets: 10, sequences: 2 };
    const loss = packedLoss({
      ...{ config: model.config, lora, shape: packed },
      lossOf: (g, { logProbs, weights }, denominator) => ({
        loss: g.div(g.neg(g.sum(g.mul(logProbs, weights))), denominator),
      }),
    });
    const run = async (folder: string, seed: number, killAt?: number) => {
      const { parameters, frozen } = await loadTrainable(model, { lora, seed });
      let rng = createRng("draws");
      const result = await train({
        ...optionsFor(runtime, parameters),
        ...{ loss, frozen, accumulate: 2, learningRate: 0.05, average: { decay: 0.9 } },
        steps: 40,
        batches(number) {
          if (number === killAt) throw new Error("killed");
          return packedBatch(rng);
        },
        carried: {
          save: () => rng.state(),
          restore: (value) => {
            rng = createRngFromState(value as RngState);
          },
        },
        evaluate: { every: 3, of: [packedBatch(createRng("held out"))], patience: 3, minImprovement: 0.7 },
        checkpoint: { path: join(folder, "last"), best: join(folder, "best"), every: 2 },
      });
      return {
        ...result,
        flat: parameters.flat,
        files: await Promise.all(["last", "best"].map((name) => readFile(join(folder, name)))),
      };
    };
    const whole = await run(temporaryDirectory(), 1);
    expect(whole.steps).toBeGreaterThan(6);
    expect(whole.steps).toBeLessThan(40);
    for (const killAt of [5, 8, 11, 2 * whole.steps - 1]) {
      const folder = temporaryDirectory();
      await expect(run(folder, 1, killAt)).rejects.toThrow("killed");
      const resumed = await run(folder, killAt < 8 ? 1 : 2);
      expect(resumed.losses).toEqual(whole.losses);
      expect(resumed.measured).toEqual(whole.measured);
      expect(resumed.flat).toEqual(whole.flat);
      expect(resumed.average).toEqual(whole.average);
      expect(resumed.files).toEqual(whole.files);
    }
    await runtime.dispose();
  });

  /** Random rows of one sequence each; every token of the second half is to be learnt. */
  function packedBatch(rng: Rng): Batch {
    const grid = (of: (i: number) => number) =>
      i64Tensor(
        [2, 8],
        Array.from({ length: 16 }, (_, i) => of(i)),
      );
    const ids = Array.from({ length: 16 }, () => rng.int(32));
    const learnt = [...ids.keys()].filter((i) => i % 8 > 2);
    return {
      feeds: {
        ids: grid((i) => ids[i]!),
        positions: grid((i) => i % 8),
        segments: grid((i) => i >> 3),
        prefixes: grid((i) => i >> 3),
        from: i64Tensor(
          [10],
          learnt.map((i) => i - 1),
        ),
        targets: i64Tensor(
          [10],
          learnt.map((i) => ids[i]!),
        ),
        weights: f32Tensor(
          [10],
          learnt.map(() => 1),
        ),
        membership: f32Tensor([2, 10]),
      },
      weight: 10,
    };
  }
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
