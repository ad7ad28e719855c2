import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createRng } from "../base/index.js";
import { temporaryDirectory } from "../base/testing.js";
import { type BranchedSample, packSamples } from "../data/index.js";
import { createGraph, interpret } from "../graph/index.js";
import {
  buildModel,
  createRewardHead,
  type Model,
  modelWeightInputs,
  modelWeights,
  openRewardModel,
  positionsFrom,
  type RewardHead,
  type RewardModel,
  rewardHeadNames,
  rotaryTables,
  writeHub,
} from "../models/index.js";
import { createTestModel, gqa, swiglu, testConfig } from "../models/testing.js";
import { createRuntime, type Runtime } from "../runtime/index.js";
import { adamw, type Batch, type BuildLoss, buildStep, createStep, train, viewsOf } from "../train/index.js";
import {
  createAttributeScorer,
  createRewardModelReward,
  markBatch,
  markRewardLoss,
  mergeRewardModels,
  openRewardTuning,
  pairBatch,
  pairRewardLoss,
  rewardShape,
} from "./index.js";

const H = 32;
const config = testConfig({ family: "llama", blocks: [{ attention: gqa(2), ffn: swiglu(48) }] });
const model = createTestModel(config, 5, { chatTemplate: "{% for m in messages %}{{ m.content }}</s>{% endfor %}" });
const shape = rewardShape(1, 64);
let runtime: Runtime;
beforeAll(async () => {
  runtime = await createRuntime({ threads: 1 });
});
afterAll(() => runtime.dispose());

function randomHead(attributes: readonly string[], seed: number, bias = false): RewardHead {
  const rng = createRng(seed);
  const head = createRewardHead(H, attributes, { bias });
  for (const tensor of [head.weight, head.bias]) tensor?.data.set(tensor.data.map(() => 0.3 * rng.normal()));
  return head;
}

const ids = (...list: number[]) => Int32Array.from(list);
const branch = (...list: number[]) => ({ ids: ids(...list), learn: new Uint8Array(list.length).fill(1) });
const pair: BranchedSample = { prompt: ids(1, 9, 30, 4), branches: [branch(5, 6, 7, 2), branch(11, 3, 2)] };
const other: BranchedSample = { prompt: ids(1, 50), branches: [branch(61, 2), branch(62, 63, 64, 2)] };

/** The last hidden state after the final norm, in float64. */
async function lastHidden({ config: own, weights }: Model, text: readonly number[]): Promise<number[]> {
  const g = createGraph("reference");
  const inputs = modelWeightInputs(g, own);
  const tables = rotaryTables(own, positionsFrom(0, text.length));
  const [cos, sin] = [tables.cos, tables.sin].map((table) =>
    g.reshape(g.constant(table), [1, text.length, own.headDim / 2]),
  );
  const given = { batch: 1, length: text.length, ids: g.input("ids", [1, text.length], "i64"), weights: inputs };
  g.output("hidden", buildModel(g, own, { ...given, cos: cos!, sin: sin! }).finalHidden);
  const feeds: Record<string, never> = { ids: text as never };
  for (const { name } of modelWeights(own)) feeds[name] = (await weights.read(name)) as never;
  return [...interpret(g, feeds).hidden!.data].slice(-own.hiddenSize).map(Number);
}

const answersOf = ({ prompt, branches }: BranchedSample) => branches.map((own) => [...prompt, ...own.ids]);
const dot = (a: readonly number[], b: ArrayLike<number>, from = 0) =>
  a.reduce((sum, x, i) => sum + x * b[from + i]!, 0);

describe("scores", () => {
  test("are the head on the last hidden state of each answer behind its own prompt", async () => {
    const head = randomHead(["a", "b"], 1, true);
    const tuning = await openRewardTuning({ body: model, head });
    const score = createAttributeScorer(runtime, "scores", tuning.architecture, shape);
    const scores = await score([pair, other], tuning.weights());
    for (const [i, sample] of [pair, other].entries()) {
      for (const [b, text] of answersOf(sample).entries()) {
        const hidden = await lastHidden(model, text);
        const expected = [0, 1].map((a) => dot(hidden, head.weight.data, a * H) + head.bias!.data[a]!);
        expected.forEach((value, a) => {
          expect(Math.abs(scores[i]![b]![a]! - value)).toBeLessThan(2e-5);
        });
      }
    }
  });

  test("read the last learnt token, not what the template writes behind it", async () => {
    const tail = { ids: ids(5, 6, 7, 2, 13), learn: Uint8Array.from([1, 1, 1, 1, 0]) };
    const { prompt, branches } = pair;
    const tuning = await openRewardTuning({ body: model, head: randomHead(["a"], 2) });
    const score = createAttributeScorer(runtime, "tail", tuning.architecture, shape);
    const [plain, longer] = await score([pair, { prompt, branches: [tail, branches[1]!] }], tuning.weights());
    expect(longer![0]![0]).toBeCloseTo(plain![0]![0]!, 5);
  });

  test("are the same after saving and opening", async () => {
    const tuning = await openRewardTuning({ body: model, head: randomHead(["a", "b"], 3) }, { lora: { rank: 2 } });
    const rng = createRng("adapter");
    const { flat } = tuning.parameters;
    flat.set(flat.map(() => 0.1 * rng.normal()));
    const { body, head } = tuning.tuned();
    const path = join(temporaryDirectory(), "reward");
    await writeHub(body, path, { head });
    const opened = await openRewardModel(path);
    const again = await openRewardTuning(opened);
    const score = (name: string, own: typeof tuning) =>
      createAttributeScorer(runtime, name, own.architecture, shape)([pair, other], own.weights());
    const [before, after] = [await score("adapted", tuning), await score("merged", again)];
    before.flat(2).forEach((value, i) => {
      expect(Math.abs(after.flat(2)[i]! - value)).toBeLessThan(1e-4);
    });
    await opened.body.close();
  });
});

/** Loss and gradient of one batch. */
async function slopesOf(reward: RewardModel, loss: BuildLoss, batch: Batch & { weight: number }) {
  const { parameters, frozen } = await openRewardTuning(reward, { lora: { rank: 2 } });
  const flat = new Float32Array(parameters.layout.size);
  const step = createStep(runtime, "slopes", parameters, flat, loss);
  const result = await step.run({ ...frozen, ...batch.feeds }, batch.weight, true);
  return { ...result, gradients: viewsOf(parameters.layout, flat) };
}

describe("gradients of the head", () => {
  test("Bradley-Terry: -sigmoid(-gap) (h_c - h_l) / pairs, places of padding aside", async () => {
    const head = randomHead(["reward"], 4);
    const { architecture } = await openRewardTuning({ body: model, head }, { lora: { rank: 2 } });
    const batch = pairBatch(packSamples([pair, other], shape).batches[0]!, shape);
    const loss = pairRewardLoss({ ...architecture, shape, weights: [1] });
    const { loss: value, parts, gradients } = await slopesOf({ body: model, head }, loss, batch);
    const expected = new Float64Array(H);
    let [nll, right] = [0, 0];
    for (const sample of [pair, other]) {
      const [chosen, rejected] = await Promise.all(answersOf(sample).map((text) => lastHidden(model, text)));
      const gap = dot(chosen!, head.weight.data) - dot(rejected!, head.weight.data);
      nll += Math.log1p(Math.exp(-gap)) / 2;
      right += gap > 0 ? 0.5 : 0;
      for (let i = 0; i < H; i++) expected[i]! -= (chosen![i]! - rejected![i]!) / (1 + Math.exp(gap)) / 2;
    }
    expect(value).toBeCloseTo(nll, 5);
    expect(parts.accuracy).toBe(right);
    const slopes = gradients[rewardHeadNames.weight]!.data;
    expected.forEach((slope, i) => {
      expect(Math.abs(slopes[i]! - slope)).toBeLessThan(2e-5);
    });
  });

  test("scaled pairs count by their strength, and several attributes by their weights", async () => {
    const head = randomHead(["a", "b"], 5);
    const { architecture } = await openRewardTuning({ body: model, head }, { lora: { rank: 2 } });
    const packed = packSamples([pair], shape).batches[0]!;
    const make = (kind: "regular" | "scaled") => pairRewardLoss({ ...architecture, shape, weights: [2, -1], kind });
    const plain = await slopesOf({ body: model, head }, make("regular"), pairBatch(packed, shape));
    const scaled = await slopesOf(
      { body: model, head },
      make("scaled"),
      pairBatch(packed, shape, () => 3),
    );
    expect(scaled.loss).toBeCloseTo(3 * plain.loss, 5);
    const slopes = plain.gradients[rewardHeadNames.weight]!.data;
    for (let i = 0; i < H; i++) expect(slopes[i]! + 2 * slopes[H + i]!).toBeCloseTo(0, 5);
  });

  test("regression: 2 (prediction - mark) h / marks; what nobody marked reaches neither loss nor gradient", async () => {
    const head = randomHead(["a", "b"], 6, true);
    const { architecture } = await openRewardTuning({ body: model, head }, { lora: { rank: 2 } });
    const answers = [pair, other].map(({ prompt, branches }) => ({ prompt, branches: [branches[0]!] }));
    const marks = [
      [3, undefined],
      [1, 4],
    ];
    const batch = markBatch(packSamples(answers, shape).batches[0]!, shape, 2, (sample) => marks[sample]!);
    expect(batch.weight).toBe(3);
    const loss = markRewardLoss({ ...architecture, shape });
    const { loss: value, gradients } = await slopesOf({ body: model, head }, loss, batch);
    let total = 0;
    const [weight, bias] = [new Float64Array(2 * H), new Float64Array(2)];
    for (const [i, sample] of answers.entries()) {
      const hidden = await lastHidden(model, answersOf(sample)[0]!);
      marks[i]!.forEach((mark, a) => {
        if (mark === undefined) return;
        const error = dot(hidden, head.weight.data, a * H) + head.bias!.data[a]! - mark;
        total += error ** 2 / 3;
        bias[a]! += (2 * error) / 3;
        for (let h = 0; h < H; h++) weight[a * H + h]! += (2 * error * hidden[h]!) / 3;
      });
    }
    expect(value).toBeCloseTo(total, 4);
    weight.forEach((slope, i) => {
      expect(Math.abs(gradients[rewardHeadNames.weight]!.data[i]! - slope)).toBeLessThan(1e-4 * (1 + Math.abs(slope)));
    });
    bias.forEach((slope, a) => {
      expect(gradients[rewardHeadNames.bias]!.data[a]!).toBeCloseTo(slope, 4);
    });
  });

  test("the head begins at zero: the first loss is log 2", async () => {
    const start = { body: model, head: createRewardHead(H, ["reward"]) };
    const { architecture } = await openRewardTuning(start, { lora: { rank: 2 } });
    const batch = pairBatch(packSamples([pair, other], shape).batches[0]!, shape);
    const { loss } = await slopesOf(start, pairRewardLoss({ ...architecture, shape, weights: [1] }), batch);
    expect(loss).toBeCloseTo(Math.LN2, 6);
  });
});

test("pairs that a word tells apart are learnt: accuracy 1 on pairs that were set aside", async () => {
  const rng = createRng("separable");
  const word = () => 100 + Math.floor(300 * rng.next());
  const pairs = Array.from({ length: 112 }, (): BranchedSample => {
    const [good, bad] = [branch(word(), 41, word(), 2), branch(word(), 42, word(), 2)];
    return { prompt: ids(1, word(), word()), branches: [good, bad] };
  });
  const [held, learnt] = [pairs.slice(0, 16), pairs.slice(16)];
  const room = rewardShape(4, 32);
  const start = { body: model, head: createRewardHead(H, ["reward"]) };
  const tuning = await openRewardTuning(start, { lora: { rank: 4, alpha: 8 } });
  const { batches } = packSamples(learnt, room);
  await train({
    runtime,
    stage: "separable",
    parameters: tuning.parameters,
    frozen: tuning.frozen,
    loss: pairRewardLoss({ ...tuning.architecture, shape: room, weights: [1] }),
    batches: (index) => pairBatch(batches[index % batches.length]!, room),
    optimiser: adamw(),
    learningRate: 0.01,
    steps: 90,
  });
  const scores = await createAttributeScorer(runtime, "held", tuning.architecture, room)(held, tuning.weights());
  expect(scores.filter(([chosen, rejected]) => chosen![0]! > rejected![0]!)).toHaveLength(16);
});

describe("a reward model as a reward", () => {
  const prompt = [{ role: "user", content: "Who is Tom?" }];
  const answers = ["Tom is a dog.", "A cat.", "Tom is a little dog that likes to play in the park all day."];
  const reward = { body: model, head: { ...randomHead(["a", "b"], 7), weights: [1, -2] } };

  test("an answer has the same score alone and beside others", async () => {
    const { score } = await createRewardModelReward(runtime, reward, { length: 64 });
    const together = await score(answers.map((answer) => ({ prompt, answer })));
    const alone = await Promise.all(answers.map(async (answer) => (await score([{ prompt, answer }]))[0]!));
    together.forEach((value, i) => {
      expect(value).toBeCloseTo(alone[i]!, 4);
    });
    expect(new Set(together.map((value) => value!.toFixed(3))).size).toBe(3);
  });

  test("blank and overlong answers cannot be judged; more answers than a row holds are", async () => {
    const { score } = await createRewardModelReward(runtime, reward, { length: 32 });
    const long = answers[2]!.repeat(4);
    const many = Array.from({ length: 40 }, (_, i) => ({ prompt, answer: `A cat ${i}.` }));
    const scores = await score([{ prompt, answer: " " }, { prompt, answer: long }, ...many]);
    expect(scores.slice(0, 2)).toEqual([null, null]);
    expect(scores.slice(2).every((value) => Number.isFinite(value))).toBe(true);
  });
});

describe("merging", () => {
  const weak = { body: createTestModel(config, 1), head: randomHead(["a"], 8) };
  const strong = { body: createTestModel(config, 2), head: randomHead(["a"], 9) };

  test("ExPO is weak + alpha (strong - weak), of every weight and of the head", async () => {
    const { body, head } = mergeRewardModels([weak, strong], { factors: [1 - 1.52, 1.52] });
    const name = "model.layers.0.self_attn.q_proj.weight";
    const [from, to] = await Promise.all([weak, strong].map((one) => one.body.weights.read(name)));
    const expected = Float32Array.from(from!.data as Float32Array, (x, i) => x + 1.52 * (Number(to!.data[i]) - x));
    const merged = (await body.weights.read(name)).data as Float32Array;
    merged.forEach((value, i) => {
      expect(Math.abs(value - expected[i]!)).toBeLessThan(1e-6);
    });
    expect(head.weight.data[3]).toBeCloseTo(weak.head.weight.data[3]! * -0.52 + strong.head.weight.data[3]! * 1.52, 6);
    expect((await body.weights.readRows!(name, 2, 4)).data).toEqual(merged.subarray(2 * H, 4 * H));
  });

  test("shares are equal unless factors are given", () => {
    const { head } = mergeRewardModels([weak, strong]);
    expect(head.weight.data[0]).toBeCloseTo((weak.head.weight.data[0]! + strong.head.weight.data[0]!) / 2, 6);
  });

  test("models that did not grow from one are refused", () => {
    const wide = createTestModel(testConfig({ family: "llama", blocks: [{ attention: gqa(2), ffn: swiglu(64) }] }), 2);
    expect(() => mergeRewardModels([weak, { ...strong, body: wide }])).toThrow(
      /model 2 of the merge: expected model.layers.0.mlp/,
    );
    expect(() => mergeRewardModels([weak, { ...strong, head: randomHead(["b"], 9) }])).toThrow(
      /the attributes a, found b/,
    );
    expect(() => mergeRewardModels([weak], { factors: [1, 2] })).toThrow(/one a model, 1, found 2/);
  });
});

test("a step leaves the body's frozen weights without gradients", async () => {
  const { parameters, architecture } = await openRewardTuning(
    { body: model, head: createRewardHead(H, ["reward"]) },
    { lora: { rank: 2 } },
  );
  const graph = buildStep("names", parameters, pairRewardLoss({ ...architecture, shape, weights: [1] }));
  const names = graph.outputs.map(({ name }) => name).filter((name) => name.startsWith("gradient/"));
  expect(names.every((name) => name.includes("lora_") || name === "gradient/score.weight")).toBe(true);
  expect(names).toHaveLength(parameters.layout.places.length);
});
