/**
 * @module One distillation step at the shape of SmolLM2-135M and a child of 80 % (uniform width 992): seconds for 1000
 * tokens and peak memory by the number of sequences of a step, parent included, as the pipeline runs it.
 */
import { createRng, createRssMeter, formatBytes } from "../src/base/index.js";
import { createEngine } from "../src/engine/index.js";
import { type Model, type ModelConfig, modelWeights } from "../src/models/index.js";
import { teacherOf } from "../src/pipeline/stages/distil.js";
import { createRuntime } from "../src/runtime/index.js";
import {
  adamw,
  clipFactor,
  createNorm,
  distillationBatch,
  layeredDistillation,
  type Parameters,
} from "../src/train/index.js";
import { configOf, randomParameters, type StepShape } from "./train-step.js";

export interface DistilStepResult {
  sequences: number;
  secondsPer1000Tokens: number;
  parts: { gradient: number; norm: number; adamw: number };
  peakRssBytes: number;
}

const threads = 2;
const length = 256;
const childWidth = 992;
/** Sequences of one pass of the gradient, as many as the pipeline takes. */
const passSequences = 2;
const stepSizes = [2, 4, 8];
const rounds = 3;

export async function measureDistilSteps(shape: StepShape): Promise<DistilStepResult[]> {
  const meter = createRssMeter({ intervalMs: 20 });
  const runtime = await createRuntime({ threads, maxSessions: 256, arena: false });
  const parent = { ...configOf(shape), maxPositions: length };
  const child = withWidth(parent, childWidth);
  const parameters = randomParameters(child);
  const gradients = new Float32Array(parameters.layout.size);
  const engine = createEngine(runtime, inMemory(parent, randomParameters(parent)));
  const source = layeredDistillation(teacherOf(engine), child, { batch: passSequences, length });
  const program = source.create(runtime, "distil", parameters, gradients);
  const norm = createNorm(runtime);
  const optimiser = adamw();
  const [state, update] = [optimiser.init(parameters.layout), optimiser.createUpdate(runtime)];
  const rng = createRng("ids");
  const passTokens = passSequences * length;

  const step = async (sequences: number) => {
    const passes = sequences / passSequences;
    const start = performance.now();
    for (let pass = 0; pass < passes; pass++) {
      const ids = Int32Array.from({ length: passTokens }, () => rng.int(parent.vocabSize));
      const { feeds, weight } = distillationBatch({ ids, batchSize: passSequences, length });
      await program.run(feeds, weight * passes, pass === 0);
    }
    const gradient = performance.now();
    const gradientScale = clipFactor(await norm(gradients), 1);
    const clipped = performance.now();
    const { layout, flat } = parameters;
    await update({ layout, parameters: flat, gradients, state, learningRate: 1e-6, gradientScale });
    const end = performance.now();
    return { total: end - start, gradient: gradient - start, norm: clipped - gradient, adamw: end - clipped };
  };

  const results: DistilStepResult[] = [];
  for (const sequences of stepSizes) {
    await step(sequences);
    meter.reset();
    const times: Awaited<ReturnType<typeof step>>[] = [];
    for (let round = 0; round < rounds; round++) times.push(await step(sequences));
    const { total, ...parts } = times.reduce((a, b) => (b.total < a.total ? b : a));
    const secondsPer1000Tokens = total / (sequences * length);
    results.push({ sequences, secondsPer1000Tokens, parts, peakRssBytes: meter.peakBytes() });
  }
  meter.stop();
  await runtime.dispose();
  return results;
}

export function renderDistilSteps(results: readonly DistilStepResult[]): string {
  const lines = results.map(({ sequences, secondsPer1000Tokens, parts, peakRssBytes }) => {
    const own = Object.entries(parts).map(([part, milliseconds]) => `${part} ${milliseconds.toFixed(0)} ms`);
    return `  ${sequences} x ${length} tokens: ${secondsPer1000Tokens.toFixed(2)} s for 1000 (${own.join(", ")}), peak memory ${formatBytes(peakRssBytes)}`;
  });
  return `distillation of a child of width ${childWidth}\n${lines.join("\n")}\n`;
}

function withWidth(config: ModelConfig, width: number): ModelConfig {
  const narrow = { kind: "swiglu", width } as const;
  return { ...config, blocks: config.blocks.map((block) => ({ ...block, ffn: narrow })) };
}

function inMemory(config: ModelConfig, { tensors }: Parameters): Model {
  const shapes = new Map(modelWeights(config).map(({ name, shape }) => [name, shape]));
  return {
    path: "",
    format: "hf",
    config,
    weights: {
      has: (name) => shapes.has(name),
      shapeOf: (name) => shapes.get(name)!,
      read: async (name) => tensors[name]!,
    },
    sidecars: { name: "bench", legal: [] },
    notices: [],
    close: async () => {},
  };
}
