/**
 * @module Batched sampling for rollouts: tokens a second of many sequences together against the engine's one, and the
 * share of the rate of a square matrix product that the multiplications of a step reach.
 *
 * `npm run bench -- rollout [MODEL] [SEQUENCES] [TOKENS]`: SmolLM2-135M of the optional test data, 32 x 64.
 */
import { createRng } from "../src/base/index.js";
import { repositoryPath, sharedPath } from "../src/base/testing.js";
import { createBatchGenerator, createEngine, generate, readAllWeights } from "../src/engine/index.js";
import { createGraph } from "../src/graph/index.js";
import { type Model, modelParameters, openModel } from "../src/models/index.js";
import { createRuntime, measure, type Runtime, timeMs } from "../src/runtime/index.js";
import { f32Tensor } from "../src/tensor/index.js";
import type { Bench } from "./main.js";

const [rounds, promptTokens, samplesPerPrompt] = [3, 64, 8];

interface Result {
  model: string;
  sequences: number;
  tokens: number;
  /** New tokens a second of all sequences, prompts included; the best of the rounds. */
  batched: number;
  /** New tokens a second of one sequence after its first. */
  single: number;
  /** Multiplications of the new tokens a second, over those of a square product. */
  shareOfMatrixRate: number;
  matrixGigaflops: number;
}

export const rollout: Bench = async ({ json, args }) => {
  const path =
    args[0] ??
    sharedPath("models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf") ??
    repositoryPath("models/stories260K");
  const [sequences, tokens] = [Number(args[1] ?? 32), Number(args[2] ?? 64)];
  const runtime = await createRuntime();
  const model = await openModel(path);
  const single = await measureSingle(runtime, model, tokens);
  const batched = await measureBatched(runtime, model, sequences, tokens);
  const matrix = await matrixRate(runtime);
  const flops = 2 * modelParameters(model.config) * batched;
  const result: Result = {
    model: model.sidecars.name,
    sequences,
    tokens,
    batched,
    single,
    shareOfMatrixRate: flops / matrix,
    matrixGigaflops: matrix / 1e9,
  };
  process.stdout.write(json ? `${JSON.stringify(result, null, 2)}\n` : render(result));
  await model.close();
  await runtime.dispose();
};

function promptOf(model: Model, name: string): number[] {
  const rng = createRng(name);
  return Array.from({ length: promptTokens }, () => rng.int(model.config.vocabSize));
}

async function measureSingle(runtime: Runtime, model: Model, tokens: number): Promise<number> {
  const engine = createEngine(runtime, model);
  const rates: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const options = { maxTokens: tokens, stop: [], temperature: 1 };
    rates.push((await generate(engine, promptOf(model, "single"), options)).tokensPerSecond);
  }
  return Math.max(...rates);
}

async function measureBatched(runtime: Runtime, model: Model, sequences: number, tokens: number): Promise<number> {
  const weights = await readAllWeights(model.config, model.weights);
  const sampler = createBatchGenerator(runtime, model.config, weights, { width: sequences });
  const samples = Math.min(samplesPerPrompt, sequences);
  const prompts = Array.from({ length: Math.ceil(sequences / samples) }, (_, i) => ({
    ids: promptOf(model, `batch ${i}`),
    samples,
  }));
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    times.push(await timeMs(() => sampler.generate(prompts, { maxTokens: tokens, stop: [], seed: round })));
    process.stderr.write(`round ${round + 1} of ${rounds}: ${(times.at(-1)! / 1000).toFixed(2)} s\n`);
  }
  return (prompts.length * samples * tokens * 1000) / Math.min(...times);
}

/** Multiplications and additions a second of a product of two square matrices. */
async function matrixRate(runtime: Runtime): Promise<number> {
  const n = 1536;
  const g = createGraph("square");
  g.output("c", g.matmul(g.input("a", [n, n]), g.input("b", [n, n])));
  const program = await runtime.compile(g);
  const values = f32Tensor(
    [n, n],
    Float32Array.from({ length: n * n }, (_, i) => Math.sin(i)),
  );
  const { bestMs } = await measure(() => program.run({ a: values, b: values }));
  return (2 * n ** 3 * 1000) / bestMs;
}

function render({ model, sequences, tokens, batched, single, shareOfMatrixRate, matrixGigaflops }: Result): string {
  return [
    `${model}, ${sequences} sequences of ${tokens} new tokens, ${promptTokens} of prompt`,
    `together        ${batched.toFixed(1).padStart(8)} tokens/s`,
    `one at a time   ${single.toFixed(1).padStart(8)} tokens/s`,
    `ratio           ${(batched / single).toFixed(2).padStart(8)}`,
    `of the matrix rate, ${matrixGigaflops.toFixed(0)} GFLOP/s: ${(100 * shareOfMatrixRate).toFixed(0)} %`,
    "",
  ].join("\n");
}
