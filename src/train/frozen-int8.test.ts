import { afterAll, beforeAll, expect, test } from "vitest";
import { createRng, mean } from "../base/index.js";
import type { TokenSample } from "../data/index.js";
import { createTestModel, gqa, linear, swiglu, testConfig } from "../models/testing.js";
import { createRuntime, type Runtime } from "../runtime/index.js";
import {
  adamw,
  buildStep,
  createSampleScorer,
  openTuning,
  packedLoss,
  roundFrozen,
  sampleBatches,
  sftLoss,
  train,
} from "./index.js";

const config = testConfig({
  vocabSize: 40,
  attentionBias: true,
  blocks: [
    { attention: gqa(2), ffn: swiglu(48) },
    { attention: linear, ffn: linear },
    { attention: gqa(4), ffn: swiglu(24) },
  ],
});
const model = createTestModel(config, 3);
const shape = { batch: 1, length: 48, targets: 48, sequences: 4 };
const rng = createRng("samples");
/** Counting upwards from some id, which can be learnt. */
const samples: TokenSample[] = Array.from({ length: 24 }, () => {
  const start = rng.int(28);
  return { ids: Int32Array.from({ length: 12 }, (_, i) => start + i), learn: new Uint8Array(12).fill(1, 1) };
});
let runtime: Runtime;
beforeAll(async () => {
  runtime = await createRuntime({ threads: 1 });
});
afterAll(() => runtime.dispose());

async function setUp() {
  const tuning = await openTuning(model, { lora: { rank: 4 }, seed: 1 });
  const packed = { config, lora: tuning.lora! };
  const rounded = await roundFrozen({ runtime, name: "rounded", model: packed, shape, tuning, samples });
  return { tuning, packed, rounded };
}

test("stands in for the matrices alone, at a quarter of their bytes each way, and says what that does to the loss", async () => {
  const { tuning, rounded } = await setUp();
  const { frozen, losses } = rounded;
  expect(frozen["model.norm.weight"]).toBe(tuning.frozen["model.norm.weight"]);
  expect(frozen["model.layers.0.self_attn.q_proj.bias"]).toBe(tuning.frozen["model.layers.0.self_attn.q_proj.bias"]);
  expect(frozen["model.layers.0.mlp.up_proj.weight"]).toBeUndefined();
  expect(frozen["model.layers.0.mlp.up_proj.int8"]).toMatchObject({ dtype: "i8", shape: [32, 48] });
  expect(losses.f32).toHaveLength(24);
  const differences = losses.int8.map((loss, i) => loss - losses.f32[i]!);
  expect(Math.max(...differences.map(Math.abs))).toBeGreaterThan(1e-5);
  expect(Math.abs(mean(differences))).toBeLessThan(0.05);
});

test("each entry is the matrix over its channel's scale, within half a step", async () => {
  const { tuning, rounded } = await setUp();
  const name = "model.layers.1.mlp.linear_mlp";
  const values = (key: string) => rounded.frozen[key]!.data as Float32Array;
  const weight = tuning.frozen[`${name}.weight`]!.data as Float32Array;
  const [scale, steps] = [values("model.layers.1.post_attention_layernorm.int8_scale"), values(`${name}.int8_steps`)];
  const [levels, back, backSteps] = [
    values(`${name}.int8`),
    values(`${name}.int8_back`),
    values(`${name}.int8_back_steps`),
  ];
  for (let out = 0; out < 32; out++) {
    for (let i = 0; i < 32; i++) {
      const scaled = weight[out * 32 + i]! / scale[i]!;
      expect(Math.abs(levels[i * 32 + out]! * steps[out]! - scaled)).toBeLessThanOrEqual(0.501 * steps[out]!);
      expect(Math.abs(back[out * 32 + i]! * backSteps[i]! - scaled)).toBeLessThanOrEqual(0.501 * backSteps[i]!);
    }
  }
});

test("the gradient points where that of f32 does", async () => {
  const { tuning, packed, rounded } = await setUp();
  for (const tensor of Object.values(tuning.parameters.tensors)) {
    const data = tensor.data as Float32Array;
    for (let i = 0; i < data.length; i++) data[i]! += 0.1 * rng.normal();
  }
  const { feeds, weight } = await sampleBatches(samples, shape, { seed: 0 }).batches(0);
  const gradientOf = async (type: "f32" | "int8") => {
    const loss = packedLoss({ ...packed, frozen: type, shape, lossOf: sftLoss() });
    const program = await runtime.compile(buildStep(type, tuning.parameters, loss));
    const denominator = { dtype: "f32", shape: [], data: Float32Array.of(weight) } as const;
    const frozen = type === "f32" ? tuning.frozen : rounded.frozen;
    const results = await program.run({ ...tuning.parameters.tensors, ...frozen, ...feeds, denominator });
    const names = Object.keys(results).filter((name) => name.startsWith("gradient/"));
    return names.flatMap((name) => [...(results[name]!.data as Float32Array)]);
  };
  const [plain, rough] = [await gradientOf("f32"), await gradientOf("int8")];
  const dot = (a: number[], b: number[]) => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
  const cosine = dot(plain, rough) / Math.sqrt(dot(plain, plain) * dot(rough, rough));
  expect(cosine).toBeGreaterThan(0.99);
  expect(cosine).toBeLessThan(1 - 1e-7);
});

test("an adapter learns beside them, and what it learnt holds in f32", async () => {
  const { tuning, packed, rounded } = await setUp();
  const scorer = createSampleScorer(runtime, "scores", packed, shape);
  const lossOf = async () =>
    mean((await scorer(samples, tuning.weights())).map(({ logProbs }) => -mean([...logProbs])));
  const before = await lossOf();
  await train({
    ...{ runtime, stage: "int8", parameters: tuning.parameters, frozen: rounded.frozen },
    loss: packedLoss({ ...packed, frozen: "int8", shape, lossOf: sftLoss() }),
    batches: sampleBatches(samples, shape, { seed: 0 }).batches,
    ...{ optimiser: adamw(), steps: 40, learningRate: 0.02 },
  });
  expect(await lossOf()).toBeLessThan(0.5 * before);
});
