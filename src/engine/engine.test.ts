import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createRng } from "../base/index.js";
import { createGraph } from "../graph/index.js";
import {
  buildModel,
  buildPackedMask,
  layerPrefix,
  modelWeightInputs,
  modelWeights,
  packedPositions,
  rotaryTables,
} from "../models/index.js";
import { createRuntime, type Runtime } from "../runtime/index.js";
import { type F32Tensor, f32Tensor, type HostTensor, i64Tensor, maxAbsDifference, roundHalf } from "../tensor/index.js";
import { chunksOf } from "./head-scores.js";
import { createDecodeSession, createEngine, generate, rememberForward, scoreSequences } from "./index.js";
import { mixedConfig, randomModel, referenceLogits } from "./testing.js";

let runtime: Runtime;
beforeAll(async () => {
  runtime = await createRuntime({ threads: 1 });
});
afterAll(() => runtime.dispose());

const rng = createRng("ids");
const randomIds = (length: number) => Array.from({ length }, () => rng.int(mixedConfig.vocabSize));
const logSoftmax = (row: readonly number[]) => {
  const top = Math.max(...row);
  const total = Math.log(row.reduce((sum, value) => sum + Math.exp(value - top), 0));
  return row.map((value) => value - top - total);
};

describe("a model with a block of every kind", () => {
  const model = randomModel(mixedConfig, 1);

  test("equals the definitions in float64", async () => {
    const engine = createEngine(runtime, model);
    const ids = [randomIds(9), randomIds(9)];
    const logits = await engine.logits(await engine.forward(ids));
    const expected = [...(await referenceLogits(model, ids[0]!)), ...(await referenceLogits(model, ids[1]!))].flat();
    expect(maxAbsDifference(logits.data, expected)).toBeLessThan(1e-4);
  });

  test("the kv cache gives the same tokens as running everything again", async () => {
    const engine = createEngine(runtime, model);
    // 45 prompt tokens take a padded chunk, 100 more outgrow the first capacity of the cache.
    const prompt = randomIds(45);
    const { ids } = await generate(engine, prompt, { maxTokens: 100 });
    const again: number[] = [];
    for (let i = 0; i < 100; i += 11) {
      const logits = await engine.logits(await engine.forward([[...prompt, ...ids.slice(0, i)]]));
      const last = [...logits.data.subarray(-mixedConfig.vocabSize)];
      again.push(last.indexOf(Math.max(...last)));
    }
    expect(again).toEqual(ids.filter((_, i) => i % 11 === 0));
  });

  test("sequences longer than a chunk of queries equal the kv cache's answer", async () => {
    const engine = createEngine(runtime, model);
    const ids = randomIds(700);
    const whole = await engine.forward([ids]);
    const last = await createDecodeSession(engine).append(ids);
    expect(maxAbsDifference(whole.data.subarray(-16), last.data)).toBeLessThan(1e-4);
  });

  test("the same tokens when no weight may stay in memory, each read once a pass", async () => {
    const counted = randomModel(mixedConfig, 1);
    const engine = createEngine(runtime, counted, { cacheBytes: 0 });
    const ids = [randomIds(7)];
    const x = await engine.forward(ids);
    expect(x.data).toEqual((await createEngine(runtime, model).forward(ids)).data);
    expect(Math.max(...counted.reads.values())).toBe(1);
    await engine.forward(ids);
    expect(counted.reads.get("model.layers.4.mlp.up_proj.weight")).toBe(2);
  });

  test("weights that stay in memory lie in one buffer, in which a second engine over them finds them", async () => {
    const { weights } = createEngine(runtime, model).parts;
    const again = createEngine(runtime, { ...model, weights: { ...model.weights, read: weights.read } }).parts;
    const names = modelWeights(model.config).map(({ name }) => name);
    const kept = await Promise.all(names.map((name) => weights.read(name)));
    for (const [i, name] of names.entries()) {
      expect(kept[i]).toEqual(await model.weights.read(name));
      expect(kept[i]!.data.buffer).toBe(kept[0]!.data.buffer);
      expect((await again.weights.read(name)).data).toBe(kept[i]!.data);
    }
    expect(kept[0]!.data.buffer.byteLength).toBe(weights.heldBytes());
  });

  test("one layer over many batches is read once", async () => {
    const counted = randomModel(mixedConfig, 1);
    const engine = createEngine(runtime, counted, { cacheBytes: 0 });
    const x = f32Tensor([4, 16]).data.map((_, i) => Math.sin(i));
    for (let i = 0; i < 3; i++) await engine.runBlock(0, f32Tensor([4, 16], x), { batch: 2, length: 2 });
    expect(counted.reads.get("model.layers.0.mlp.up_proj.weight")).toBe(1);
  });
});

describe("in half precision", () => {
  test.each(["f16", "bf16"] as const)("%s rounds matrices and what they multiply, and nothing else", async (type) => {
    const model = randomModel(mixedConfig, 3);
    const engine = createEngine(runtime, model, { rounding: type });
    const x = f32Tensor(
      [2, mixedConfig.hiddenSize],
      Float32Array.from({ length: 2 * mixedConfig.hiddenSize }, () => rng.normal()),
    );
    const norm = (await model.weights.read("model.norm.weight")).data as Float32Array;
    const head = roundHalf((await model.weights.read("lm_head.weight")).data as Float32Array, type);
    const width = mixedConfig.hiddenSize;
    const expected: number[] = [];
    for (let row = 0; row < 2; row++) {
      const values = x.data.subarray(row * width, (row + 1) * width);
      const scale = 1 / Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / width + mixedConfig.normEps);
      const input = roundHalf(
        values.map((v, i) => v * scale * norm[i]!),
        type,
      );
      for (let id = 0; id < mixedConfig.vocabSize; id++) {
        expected.push(input.reduce((sum, v, i) => sum + v * head[id * width + i]!, 0));
      }
    }
    expect(maxAbsDifference((await engine.logits(x)).data, expected)).toBeLessThan(1e-4);
  });

  test("a whole model comes near the f32 one, not onto it", async () => {
    const model = randomModel(mixedConfig, 3);
    const ids = [randomIds(9)];
    const logits = async (engine: ReturnType<typeof createEngine>) =>
      (await engine.logits(await engine.forward(ids))).data;
    const difference = maxAbsDifference(
      await logits(createEngine(runtime, model)),
      await logits(createEngine(runtime, model, { rounding: "f16" })),
    );
    expect(difference).toBeGreaterThan(1e-5);
    expect(difference).toBeLessThan(2e-2);
  });
});

test("remembered forward passes are the same, run once, and forgotten beyond the bytes allowed", async () => {
  const engine = createEngine(runtime, randomModel(mixedConfig, 5));
  const runs: number[] = [];
  const counted = {
    ...engine,
    forward(ids: readonly ArrayLike<number>[]) {
      runs.push(ids.length);
      return engine.forward(ids);
    },
  };
  const bytes = 4 * 2 * 6 * mixedConfig.hiddenSize;
  const remembered = rememberForward(counted, bytes);
  const [first, second] = [[randomIds(6), randomIds(6)], [randomIds(12)]];
  const x = await remembered.forward(first);
  expect(await remembered.forward(first.map((row) => Int32Array.from(row)))).toBe(x);
  expect(maxAbsDifference(x.data, (await engine.forward(first)).data)).toBe(0);
  await remembered.forward(second);
  await remembered.forward(second);
  expect(runs).toEqual([2, 1, 1]);
});

describe("runBlock", () => {
  const model = randomModel(mixedConfig, 2);
  const x = f32Tensor(
    [6, 16],
    Float32Array.from({ length: 96 }, (_, i) => Math.cos(i)),
  );

  test("another block with its own weights stands in for the layer's", async () => {
    const engine = createEngine(runtime, model);
    const shape = { batch: 2, length: 3 };
    const weights = new Map<string, HostTensor>();
    for (const { name } of modelWeights(mixedConfig)) {
      const prefix = layerPrefix(1);
      if (name.startsWith(prefix)) weights.set(name.slice(prefix.length), await model.weights.read(name));
    }
    const own = await engine.runBlock(1, x, shape);
    const replaced = await engine.runBlock(0, x, { ...shape, block: mixedConfig.blocks[1]!, weights });
    expect(replaced.output.data).toEqual(own.output.data);
  });

  test("halves of a block run alone give the whole", async () => {
    const engine = createEngine(runtime, model);
    const shape = { batch: 2, length: 3 };
    const whole = await engine.runBlock(0, x, { ...shape, taps: true });
    const { attention, ffn } = mixedConfig.blocks[0]!;
    const first = await engine.runBlock(0, x, { ...shape, block: { attention, ffn: { kind: "none" } } });
    const second = await engine.runBlock(0, first.output, { ...shape, block: { attention: { kind: "none" }, ffn } });
    expect(maxAbsDifference(first.output.data, whole.afterAttention!.data)).toBeLessThan(1e-6);
    expect(maxAbsDifference(second.output.data, whole.output.data)).toBeLessThan(1e-5);
  });

  test("taps are what the projections are given", async () => {
    const engine = createEngine(runtime, model);
    const { output, afterAttention, taps } = await engine.runBlock(0, x, { batch: 2, length: 3, taps: true });
    const down = (await model.weights.read("model.layers.0.mlp.down_proj.weight")) as F32Tensor;
    const bias = (await model.weights.read("model.layers.0.mlp.down_proj.bias")) as F32Tensor;
    const [hidden, width] = [taps!.ffnHidden!, 20];
    const expected = Array.from(output.data, (_, at) => {
      const [row, out] = [Math.floor(at / 16), at % 16];
      let sum = afterAttention!.data[at]! + bias.data[out]!;
      for (let i = 0; i < width; i++) sum += hidden.data[row * width + i]! * down.data[out * width + i]!;
      return sum;
    });
    expect(maxAbsDifference(output.data, expected)).toBeLessThan(1e-4);
  });

  test("a block of nothing is the identity", async () => {
    const engine = createEngine(runtime, model);
    expect((await engine.runBlock(2, x, { batch: 2, length: 3 })).output).toBe(x);
  });

  test("an id outside the vocabulary and ragged sequences are refused with their place", async () => {
    const engine = createEngine(runtime, model);
    await expect(engine.embed([[1, 37]])).rejects.toThrow("token 1 of sequence 0: expected an id below 37");
    await expect(engine.embed([[1], [1, 2]])).rejects.toThrow("lengths 1, 2");
  });
});

describe("head scores", () => {
  const [parent, child] = [randomModel(mixedConfig, 3), randomModel(mixedConfig, 4)];

  test("log-probabilities and divergence equal the definitions", async () => {
    const [ours, theirs] = [createEngine(runtime, child), createEngine(runtime, parent)];
    const ids = randomIds(11);
    const p = (await referenceLogits(parent, ids)).map(logSoftmax);
    const q = (await referenceLogits(child, ids)).map(logSoftmax);
    const expectedKl = p.map((row, t) => row.reduce((sum, lp, v) => sum + Math.exp(lp) * (lp - q[t]![v]!), 0));
    const expectedNll = -q.slice(0, -1).reduce((sum, row, t) => sum + row[ids[t + 1]!]!, 0);
    const [score] = await scoreSequences(ours, [ids], { reference: theirs });
    expect(score!.kl).toBeCloseTo(expectedKl.reduce((a, b) => a + b) / 11, 4);
    expect(score!.nll).toBeCloseTo(expectedNll, 3);
    expect((await scoreSequences(ours, [ids]))[0]!.nll).toBeCloseTo(score!.nll, 5);
    const states = { engine: theirs, x: await theirs.forward([ids]) };
    const [kl] = await ours.klAgainst(states, await ours.forward([ids]), { batch: 1 });
    expect(kl).toBeCloseTo(score!.kl!, 6);
    const held = await theirs.holdReference(states.x);
    expect(held.held!.shape).toEqual([11, mixedConfig.vocabSize]);
    const x = await ours.forward([ids]);
    expect(await ours.klAgainst(held, x, { batch: 1 })).toEqual(await ours.klAgainst(states, x, { batch: 1 }));
    expect((await theirs.holdReference(states.x, { maxBytes: 10 })).held).toBeUndefined();
  });

  test("padding and batching change nothing", async () => {
    const [ours, theirs] = [createEngine(runtime, child), createEngine(runtime, parent)];
    const sequences = [5, 12, 33, 2, 12].map(randomIds);
    const together = await scoreSequences(ours, sequences, { reference: theirs, batchTokens: 100 });
    for (const [i, ids] of sequences.entries()) {
      const [alone] = await scoreSequences(ours, [ids], { reference: theirs });
      expect(together[i]!.tokens).toBe(ids.length - 1);
      expect(together[i]!.nll).toBeCloseTo(alone!.nll, 4);
      expect(together[i]!.kl).toBeCloseTo(alone!.kl!, 5);
    }
  });

  test("chunks cover every row with one size", () => {
    expect(chunksOf(10, 4).map(({ start }) => start)).toEqual([0, 4, 6]);
    expect(chunksOf(8, 4).map(({ start }) => start)).toEqual([0, 4]);
    expect(chunksOf(3, 4)).toEqual([{ start: 0, size: 4, rows: 3 }]);
  });
});

test("packed sequences see only themselves", async () => {
  const model = randomModel(mixedConfig, 5);
  const engine = createEngine(runtime, model);
  const [a, b, c, d] = [randomIds(3), randomIds(5), randomIds(6), randomIds(2)];
  const segments = [
    [0, 0, 0, 1, 1, 1, 1, 1],
    [2, 2, 2, 2, 2, 2, 3, 3],
  ];
  const g = createGraph("packed");
  const weights = modelWeightInputs(g, mixedConfig);
  const tables = rotaryTables(mixedConfig, packedPositions(segments), 2);
  const { hiddenStates } = buildModel(g, mixedConfig, {
    batch: 2,
    length: 8,
    ids: g.input("ids", [2, 8], "i64"),
    weights,
    cos: g.constant(tables.cos),
    sin: g.constant(tables.sin),
    mask: buildPackedMask(g, g.input("segments", [2, 8], "i64")),
  });
  g.output("last", hiddenStates.at(-1)!);
  const feeds: Record<string, HostTensor> = {
    ids: i64Tensor([2, 8], [...a, ...b, ...c, ...d]),
    segments: i64Tensor([2, 8], segments.flat()),
  };
  // Nothing but the head reads these two, and this graph has no head.
  for (const { name } of modelWeights(mixedConfig)) feeds[name] = await model.weights.read(name);
  const { last } = await (await runtime.compile(g)).run(feeds);
  const alone = await Promise.all([a, b, c, d].map(async (ids) => [...(await engine.forward([ids])).data]));
  expect(maxAbsDifference(last!.data as Float32Array, alone.flat())).toBeLessThan(1e-4);
});

describe("generate", () => {
  const model = randomModel(mixedConfig, 6);

  test("ends at a stop id, at maxTokens, and when the context is full", async () => {
    const engine = createEngine(runtime, model);
    const free = await generate(engine, [1, 2], { maxTokens: 6 });
    expect(free).toMatchObject({ finish: "length" });
    expect(free.ids).toHaveLength(6);
    const stopped = await generate(engine, [1, 2], { maxTokens: 6, stop: [free.ids[2]!] });
    expect(stopped.finish).toBe("stop");
    expect(stopped.ids).toEqual(free.ids.slice(0, free.ids.indexOf(free.ids[2]!) + 1));
    const full = await generate(engine, randomIds(298), { maxTokens: 10 });
    // 298 prompt tokens, two that fit and the one they predict.
    expect([full.ids.length, full.finish]).toEqual([3, "context"]);
  });

  test("a seed decides the draws", async () => {
    const engine = createEngine(runtime, model);
    const draw = (seed: number) => generate(engine, [3], { maxTokens: 12, temperature: 1, topP: 0.9, seed });
    const [first, same, other] = [await draw(1), await draw(1), await draw(2)];
    expect(same.ids).toEqual(first.ids);
    expect(other.ids).not.toEqual(first.ids);
  });

  test("an aborted signal ends it", async () => {
    const engine = createEngine(runtime, model);
    const controller = new AbortController();
    const ids: number[] = [];
    const onToken = (id: number) => {
      ids.push(id);
      if (ids.length === 3) controller.abort();
    };
    await expect(generate(engine, [1], { signal: controller.signal, onToken })).rejects.toThrow(/abort/i);
    expect(ids).toHaveLength(3);
  });

  test("logits that are not finite are an error and not token 0", async () => {
    const broken = randomModel(mixedConfig, 7);
    const huge = f32Tensor([mixedConfig.vocabSize, 16], new Float32Array(mixedConfig.vocabSize * 16).fill(3e38));
    const read = broken.weights.read;
    broken.weights.read = async (name) => (name === "lm_head.weight" ? huge : read(name));
    await expect(generate(createEngine(runtime, broken), [1, 2])).rejects.toThrow("expected finite numbers");
  });

  test("an empty prompt and one too long are refused", async () => {
    const engine = createEngine(runtime, model);
    await expect(generate(engine, [])).rejects.toThrow("expected 1 to 300 tokens");
    await expect(generate(engine, randomIds(301))).rejects.toThrow("found 301");
  });
});
