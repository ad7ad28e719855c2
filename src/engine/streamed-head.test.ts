import { afterAll, beforeAll, expect, test } from "vitest";
import { createRng } from "../base/index.js";
import type { ModelConfig } from "../models/index.js";
import { createRuntime, type Runtime } from "../runtime/index.js";
import { f32Tensor, maxAbsDifference } from "../tensor/index.js";
import { createEngine, type Engine } from "./index.js";
import { normaliseRows, vocabularyRanges } from "./streamed-head.js";
import { mixedConfig, randomModel } from "./testing.js";

let runtime: Runtime;
beforeAll(async () => {
  runtime = await createRuntime();
});
afterAll(() => runtime.dispose());

const config: ModelConfig = { ...mixedConfig, vocabSize: 1003, hiddenSize: 64, blocks: [] };
/** Eleven ranges, the last of them shorter. */
const headBytes = 4 * 64 * 100;

function hidden(rows: number, seed: number) {
  const rng = createRng(seed);
  return f32Tensor(
    [rows, config.hiddenSize],
    Float32Array.from({ length: rows * config.hiddenSize }, () => rng.normal()),
  );
}

test("the vocabulary is covered once, in ranges of at most the given bytes", () => {
  const { parts } = createEngine(runtime, randomModel(config, 1));
  const ranges = vocabularyRanges({ ...parts, model: randomModel(config, 1), headBytes });
  expect(ranges).toHaveLength(11);
  expect(ranges[0]).toEqual({ from: 0, to: 92 });
  expect(ranges.at(-1)).toEqual({ from: 920, to: 1003 });
  expect(ranges.slice(1).map(({ from }) => from)).toEqual(ranges.slice(0, -1).map(({ to }) => to));
});

test("log-probabilities of a row add up to one", () => {
  const rows = f32Tensor([2, 3], [1, 2, 3, 1000, 1000, 1000]);
  normaliseRows(rows);
  const third = Math.log(1 / 3);
  expect([...rows.data.subarray(3)]).toEqual([third, third, third].map(Math.fround));
  expect(rows.data.subarray(0, 3).reduce((sum, x) => sum + Math.exp(x), 0)).toBeCloseTo(1, 6);
});

test("a head read by ranges says the same as one in memory", async () => {
  const [own, other] = [randomModel(config, 1), randomModel(config, 2)];
  const whole = 1e12;
  const kept = createEngine(runtime, own, { cacheBytes: whole });
  const streamed = createEngine(runtime, own, { cacheBytes: 0, headBytes });
  const reference = createEngine(runtime, other, { cacheBytes: whole });
  const streamedReference = createEngine(runtime, other, { cacheBytes: 0, headBytes });
  const x = hidden(21, 1);
  const y = hidden(21, 2);
  const targets = Array.from({ length: 21 }, (_, i) => (i * 7919) % config.vocabSize);
  targets[20] = config.vocabSize - 1;

  const close = (a: Float32Array, b: Float32Array, tolerance = 1e-6) => {
    const scale = a.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
    expect(maxAbsDifference(a, b) / scale).toBeLessThan(tolerance);
  };
  close((await kept.logits(x)).data, (await streamed.logits(x)).data);
  close(await kept.targetLogProbs(x, targets), await streamed.targetLogProbs(x, targets));
  const compare = async (engine: Engine, against: Engine, held = false) => {
    const state = held ? await against.holdReference(y, { maxBytes: 1e12 }) : { engine: against, x: y };
    return engine.compare(state, x, { targets });
  };
  const expected = await compare(kept, reference);
  for (const found of [
    await compare(streamed, streamedReference),
    await compare(streamed, reference),
    await compare(streamed, reference, true),
    await compare(kept, streamedReference),
    await compare(kept, streamedReference, true),
  ]) {
    close(expected.kl, found.kl);
    close(expected.targetLogProbs!.own, found.targetLogProbs!.own);
    close(expected.targetLogProbs!.reference, found.targetLogProbs!.reference);
  }
  const same = await streamed.klAgainst(x, x, { batch: 3 });
  for (const kl of same) expect(Math.abs(kl)).toBeLessThan(1e-6);
});
