import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createRng } from "../base/index.js";
import { type Graph, optimise } from "../graph/index.js";
import { mergeLora, modelWeights, resolveLora } from "../models/index.js";
import { createTestModel, gqa, referenceLogits, swiglu, testConfig } from "../models/testing.js";
import { createRuntime, type Runtime, type Tensors } from "../runtime/index.js";
import { f32Tensor, i64Tensor } from "../tensor/index.js";
import {
  type BuildLoss,
  buildStep,
  createStep,
  createTokenScorer,
  languageModelLoss,
  loadTrainable,
  nextTokenBatch,
  type PackedLossOptions,
  packedLoss,
  splitTrainable,
  viewsOf,
  weightInfos,
} from "./index.js";

const config = testConfig({
  vocabSize: 40,
  blocks: [
    { attention: gqa(2), ffn: swiglu(48) },
    { attention: gqa(4), ffn: swiglu(24) },
  ],
});
const model = createTestModel(config, 3);
const lora = resolveLora(config, { rank: 4 });
let runtime: Runtime;
beforeAll(async () => {
  runtime = await createRuntime({ threads: 2 });
});
afterAll(() => runtime.dispose());

const tuning: PackedLossOptions["lossOf"] = (g, { logProbs, weights }, denominator) => ({
  loss: g.div(g.neg(g.sum(g.mul(logProbs, weights))), denominator),
});

const prompt = [1, 9, 30, 4, 17];
const answers = [
  [5, 6, 38, 2],
  [11, 3, 2],
];
const shape = { batch: 1, length: 16, targets: 8, sequences: 2 };

/** Both answers behind the one prompt: 12 tokens and 4 of padding, 7 targets and one of padding. */
function branchedFeeds(): Tensors {
  const fill = (count: number, value: number) => Array<number>(count).fill(value);
  // The prompt's last token predicts the first of each answer; answers begin at 5 and at 9.
  const from = [4, 5, 6, 7, 4, 9, 10];
  return {
    ids: i64Tensor([1, 16], [...prompt, ...answers[0]!, ...answers[1]!, ...fill(4, 0)]),
    positions: i64Tensor([1, 16], [0, 1, 2, 3, 4, 5, 6, 7, 8, 5, 6, 7, 0, 0, 0, 0]),
    segments: i64Tensor([1, 16], [...fill(5, 0), ...fill(4, 1), ...fill(3, 2), ...fill(4, -1)]),
    prefixes: i64Tensor([1, 16], [...fill(12, 0), ...fill(4, -1)]),
    from: i64Tensor([8], [...from, 0]),
    targets: i64Tensor([8], [...answers.flat(), 0]),
    weights: f32Tensor([8], [...fill(7, 1), 0]),
    membership: f32Tensor([2, 8], [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0]),
  };
}

async function allWeights(): Promise<Tensors> {
  const entries = modelWeights(config).map(async ({ name }) => [name, await model.weights.read(name)] as const);
  return Object.fromEntries(await Promise.all(entries));
}

test("answers that share a prompt have the log-probabilities and entropies that each has behind its own", async () => {
  const { logProbs, entropy } = await createTokenScorer(
    runtime,
    "scores",
    { config },
    shape,
  )(await allWeights(), branchedFeeds());
  const expected: { logProb: number; entropy: number }[] = [];
  for (const answer of answers) {
    const logits = await referenceLogits(model, [...prompt, ...answer]);
    for (const [i, id] of answer.entries()) {
      const row = logits.subarray(40 * (prompt.length - 1 + i), 40 * (prompt.length + i));
      const logSum = Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
      expected.push({
        logProb: row[id]! - logSum,
        entropy: row.reduce((sum, x) => sum - Math.exp(x - logSum) * (x - logSum), 0),
      });
    }
  }
  expected.forEach((value, n) => {
    expect(Math.abs(logProbs[n]! - value.logProb)).toBeLessThan(2e-5);
    expect(Math.abs(entropy[n]! - value.entropy)).toBeLessThan(2e-5);
  });
});

test("a temperature divides the logits", async () => {
  const [plain, cool] = await Promise.all(
    [1, 0.5].map(async (temperature) =>
      createTokenScorer(runtime, "warm", { config, temperature }, shape)(await allWeights(), branchedFeeds()),
    ),
  );
  const row = (await referenceLogits(model, prompt)).subarray(-40);
  const logSum = Math.log(row.reduce((sum, x) => sum + Math.exp(2 * x), 0));
  expect(cool!.logProbs[0]).toBeCloseTo(2 * row[5]! - logSum, 4);
  expect(cool!.logProbs[0]).not.toBeCloseTo(plain!.logProbs[0]!, 2);
});

test.each(["all", "lora"] as const)(
  "training %s: the step has the very log-probabilities of the forward sweep",
  async (trainable) => {
    const adapted = trainable === "lora" ? { lora } : {};
    const { parameters, frozen } = await loadTrainable(model, { ...adapted, trainable });
    const loss = packedLoss({
      config,
      ...adapted,
      shape,
      lossOf(g, tokens, denominator) {
        g.output("logProbs", tokens.logProbs);
        return tuning(g, tokens, denominator);
      },
    });
    const step = await runtime.compile(buildStep("step", parameters, loss));
    const feeds = branchedFeeds();
    const results = await step.run({ ...parameters.tensors, ...frozen, ...feeds, denominator: f32Tensor([], [7]) });
    const score = createTokenScorer(runtime, "forward", { config, ...adapted }, shape);
    const { logProbs } = await score({ ...parameters.tensors, ...frozen }, feeds);
    expect(results.logProbs!.data).toEqual(logProbs);
    // An adapter that was just made changes nothing: the policy is its own reference.
    const reference = await createTokenScorer(runtime, "reference", { config }, shape)(await allWeights(), feeds);
    expect(reference.logProbs).toEqual(logProbs);
  },
);

describe("gradients", () => {
  const rows = { batch: 2, length: 8 };
  const rng = createRng("ids");
  const ids = Int32Array.from({ length: 16 }, () => rng.int(40));
  const chosen = Uint8Array.from({ length: 16 }, (_, i) => Number(i % 3 !== 0));

  /** Two plain rows of which some tokens are to be learnt, packed. */
  function plainFeeds(targets: number): Tensors {
    const learnt = [...ids.keys()].filter((i) => chosen[i] && i % 8 !== 0);
    const padded = (values: number[]) => [...values, ...Array<number>(targets - values.length).fill(0)];
    const grid = (of: (i: number) => number) =>
      i64Tensor(
        [2, 8],
        Array.from({ length: 16 }, (_, i) => of(i)),
      );
    return {
      ids: i64Tensor([2, 8], ids),
      positions: grid((i) => i % 8),
      segments: grid((i) => i >> 3),
      prefixes: grid((i) => i >> 3),
      from: i64Tensor([targets], padded(learnt.map((i) => i - 1))),
      targets: i64Tensor([targets], padded(learnt.map((i) => ids[i]!))),
      weights: f32Tensor([targets], padded(learnt.map(() => 1))),
      membership: f32Tensor([1, targets]),
    };
  }

  async function gradientOf(loss: BuildLoss, trained: Awaited<ReturnType<typeof loadTrainable>>, feeds: Tensors) {
    const flat = new Float32Array(trained.parameters.layout.size);
    const step = createStep(runtime, "gradient", trained.parameters, flat, loss);
    const result = await step.run({ ...trained.frozen, ...feeds }, 9, true);
    return { loss: result.loss, gradient: viewsOf(trained.parameters.layout, flat) };
  }

  const packed = (adapted: { lora?: typeof lora }) =>
    packedLoss({ config, ...adapted, shape: { ...rows, targets: 12, sequences: 1 }, lossOf: tuning });
  const text = nextTokenBatch({ ids, batchSize: 2, length: 8 }, chosen);

  test("of all weights equal those of the language-modelling loss", async () => {
    const trained = await loadTrainable(model);
    const plain = await gradientOf(languageModelLoss(config, rows), trained, text.feeds);
    const found = await gradientOf(packed({}), trained, plainFeeds(12));
    expect(found.loss).toBeCloseTo(plain.loss, 5);
    for (const [name, { data }] of Object.entries(plain.gradient)) expectNear(found.gradient[name]!.data, data, name);
  });

  test("of adapters are those of the merged matrices, times the other factor", async () => {
    const adapted = await loadTrainable(model, { lora });
    const { tensors } = adapted.parameters;
    const noise = createRng("B");
    for (let i = 0; i < adapted.parameters.flat.length; i++) adapted.parameters.flat[i]! += 0.05 * noise.normal();
    const { gradient } = await gradientOf(packed({ lora }), adapted, plainFeeds(12));
    const merged = mergeLora(model, { ...lora, tensors });
    const whole = await gradientOf(languageModelLoss(config, rows), await loadTrainable(merged), text.feeds);
    const scale = lora.alpha / lora.rank;
    for (const layer of ["model.layers.0.self_attn.k_proj", "model.layers.1.mlp.down_proj"]) {
      const [a, b] = [`${layer}.lora_A.weight`, `${layer}.lora_B.weight`];
      const dW = whole.gradient[`${layer}.weight`]!;
      const [out, inner] = dW.shape as [number, number];
      const product = (rows: number, columns: number, depth: number, of: (i: number, j: number, k: number) => number) =>
        Float32Array.from({ length: rows * columns }, (_, at) => {
          let sum = 0;
          for (let k = 0; k < depth; k++) sum += of(Math.floor(at / columns), at % columns, k);
          return scale * sum;
        });
      const [A, B, G] = [tensors[a]!.data, tensors[b]!.data, dW.data];
      const dB = product(out, 4, inner, (i, j, k) => G[i * inner + k]! * A[j * inner + k]!);
      const dA = product(4, inner, out, (i, j, k) => B[k * 4 + i]! * G[k * inner + j]!);
      expectNear(gradient[b]!.data, dB, b);
      expectNear(gradient[a]!.data, dA, a);
    }
  });

  test("frozen matrices have no products of their own", async () => {
    // A gradient of weights is a product over positions; those of adapters have their rank, 4, as one side.
    const count = (graph: Graph) =>
      optimise(graph).nodes.filter(
        ({ kind, params, outputs: [result] }) =>
          (kind === "matmul" || kind === "gemm") &&
          (params as { transposeA: boolean }).transposeA &&
          result!.shape.length === 2 &&
          !result!.shape.includes(4),
      ).length;
    const all = await loadTrainable(model);
    expect(count(buildStep("all", all.parameters, packed({})))).toBeGreaterThanOrEqual(14);
    const adapted = await loadTrainable(model, { lora });
    expect(count(buildStep("lora", adapted.parameters, packed({ lora })))).toBe(0);
  });
});

function expectNear(found: ArrayLike<number>, expected: Float32Array, name: string): void {
  const largest = expected.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  expect(largest, name).toBeGreaterThan(0);
  expected.forEach((value, i) => {
    expect(Math.abs(found[i]! - value), `${name} ${i}`).toBeLessThan(2e-5 * largest + 1e-7);
  });
}

test("what is trained: everything, adapters, or names by pattern", () => {
  const infos = weightInfos(config, lora);
  expect(splitTrainable(infos, "all").frozen).toEqual([]);
  expect(splitTrainable(infos, "lora").trained).toHaveLength(2 * 14);
  const { trained, frozen } = splitTrainable(infos, ["model.layers.1.*.weight", "model.norm.weight"]);
  expect(trained.map(({ name }) => name)).toContain("model.layers.1.mlp.up_proj.lora_A.weight");
  expect(trained).toHaveLength(9 + 14 + 1);
  expect(frozen.map(({ name }) => name)).toContain("model.embed_tokens.weight");
  expect(() => splitTrainable(infos, ["model.layers.7.*"])).toThrow("trainable model.layers.7.*: expected a pattern");
  expect(() => splitTrainable(weightInfos(config), "lora")).toThrow("lora_A");
});
