/**
 * @module One training step (forward, backward, clipping by global norm, AdamW) of two Llama shapes: milliseconds, share
 * of the f32 matrix-product rate that ONNX Runtime reaches in the same run, and PyTorch beside it.
 *
 * FLOPs are counted as 6 x parameters x tokens + 12 x layers x batch x T x T x hidden, the whole square of attention
 * scores, for everybody alike. Query heads are not grouped, as in the peers' script. Measurements take turns and the
 * best of each is compared with the best of the others, because a shared machine slows all of them now and then.
 */
import { createRng, createRssMeter, formatBytes } from "../src/base/index.js";
import { createGraph } from "../src/graph/index.js";
import { type ModelConfig, modelParameters, modelWeights } from "../src/models/index.js";
import { createRuntime, profileProgram, type Runtime, timeMs } from "../src/runtime/index.js";
import { f32Tensor } from "../src/tensor/index.js";
import {
  adamw,
  buildStep,
  clipFactor,
  createNorm,
  createParameters,
  createStep,
  deferScatters,
  languageModelLoss,
  nextTokenBatch,
  type Parameters,
} from "../src/train/index.js";
import type { Bench } from "./main.js";
import { findPeers, type Peers, runPeer } from "./peers.js";
import { measureDistilSteps, renderDistilSteps } from "./train-step-distil.js";

export interface StepShape {
  name: string;
  /** Sequences. */
  B: number;
  /** Tokens of a sequence. */
  T: number;
  /** Hidden size. */
  D: number;
  /** Layers. */
  L: number;
  /** Heads. */
  H: number;
  /** Feed-forward width. */
  F: number;
  /** Vocabulary, tied. */
  V: number;
}

export const shapes: readonly StepShape[] = [
  { name: "15M", B: 4, T: 256, D: 288, L: 6, H: 6, F: 768, V: 32000 },
  { name: "SmolLM2-135M", B: 2, T: 256, D: 576, L: 30, H: 9, F: 1536, V: 49152 },
];

interface PeerResult {
  name: string;
  milliseconds: number;
  /** Peer's time over ours: above 1, ours is faster. */
  ratio: number;
}

interface StepResult {
  shape: StepShape;
  parameters: number;
  milliseconds: number;
  gflops: number;
  gemmGflops: number;
  shareOfGemm: number;
  /** What the step is made of, from its best run. */
  parts: { forwardBackward: number; norm: number; adamw: number };
  peers: PeerResult[];
  peakRssBytes: number;
  profile: { op: string; milliseconds: number }[];
  note?: string;
}

const distilledShape = "SmolLM2-135M";
const threads = 2;
const rounds = 3;
const stepsPerRound = 4;
const peerModes = ["eager", "compile", "bf16", "compile-bf16"];

export const trainStep: Bench = async ({ json, args }) => {
  const say = (text: string) => process.stderr.write(`${text}\n`);
  const peers = await findPeers();
  if (typeof peers === "string") say(`no peers: ${peers}`);
  const results: StepResult[] = [];
  for (const shape of shapes.filter(({ name }) => args.length === 0 || args.includes(name))) {
    say(`${shape.name}: ${shape.B} x ${shape.T} tokens`);
    results.push(await measureShape(shape, peers, say));
  }
  process.stdout.write(json ? `${JSON.stringify(results, null, 2)}\n` : results.map(render).join("\n"));
};

/** Seconds of a distillation step of the same shape, parent included. */
export const distilStep: Bench = async ({ json }) => {
  const results = await measureDistilSteps(shapes.find(({ name }) => name === distilledShape)!);
  process.stdout.write(json ? `${JSON.stringify(results, null, 2)}\n` : renderDistilSteps(results));
};

async function measureShape(shape: StepShape, peers: Peers | string, say: (text: string) => void): Promise<StepResult> {
  const rss = createRssMeter();
  const runtime = await createRuntime({ threads });
  const step = createBenchStep(runtime, shape);
  const gemm = await createGemm(runtime);
  await step.run();
  await gemm.run();
  const peerBest = new Map<string, number>();
  let best = { total: Number.POSITIVE_INFINITY, forwardBackward: 0, norm: 0, adamw: 0 };
  let gemmBest = Number.POSITIVE_INFINITY;
  let peakRssBytes = 0;
  for (let round = 0; round < rounds; round++) {
    rss.reset();
    for (let i = 0; i < stepsPerRound; i++) {
      gemmBest = Math.min(gemmBest, await timeMs(gemm.run));
      const times = await step.run();
      if (times.total < best.total) best = times;
    }
    peakRssBytes = Math.max(peakRssBytes, rss.peakBytes());
    const rate = (step.flops / best.total / 1e6).toFixed(1);
    say(
      `  round ${round + 1}: best step ${best.total.toFixed(0)} ms (${rate} GFLOP/s), product ${gemm.rate(gemmBest).toFixed(1)} GFLOP/s`,
    );
    if (typeof peers !== "string") await runPeers(peers, shape, peerBest, say);
  }
  rss.stop();
  const profile = await step.profile();
  await runtime.dispose();
  const gflops = step.flops / best.total / 1e6;
  return {
    shape,
    parameters: step.parameters,
    milliseconds: best.total,
    gflops,
    gemmGflops: gemm.rate(gemmBest),
    shareOfGemm: gflops / gemm.rate(gemmBest),
    parts: { forwardBackward: best.forwardBackward, norm: best.norm, adamw: best.adamw },
    peers: [...peerBest].map(([name, milliseconds]) => ({ name, milliseconds, ratio: milliseconds / best.total })),
    peakRssBytes,
    profile,
    ...(typeof peers === "string" && { note: `no peers: ${peers}` }),
  };
}

export function createBenchStep(runtime: Runtime, shape: StepShape) {
  const config = configOf(shape);
  const parameters = randomParameters(config);
  const gradients = new Float32Array(parameters.layout.size);
  const size = { batch: shape.B, length: shape.T };
  const loss = languageModelLoss(config, size);
  const rng = createRng("ids");
  const ids = Int32Array.from({ length: shape.B * shape.T }, () => rng.int(shape.V));
  const batch = nextTokenBatch({ ids, batchSize: shape.B, length: shape.T });
  const program = createStep(runtime, `step_${shape.name}`, parameters, gradients, loss);
  const norm = createNorm(runtime);
  const optimiser = adamw({ weightDecay: 0.01 });
  const state = optimiser.init(parameters.layout);
  const update = optimiser.createUpdate(runtime);
  const tokens = shape.B * shape.T;

  return {
    parameters: modelParameters(config),
    flops: 6 * modelParameters(config) * tokens + 12 * shape.L * shape.B * shape.T ** 2 * shape.D,
    async run() {
      const start = performance.now();
      await program.run(batch.feeds, batch.weight, true);
      const afterStep = performance.now();
      const gradientScale = clipFactor(await norm(gradients), 1);
      const afterNorm = performance.now();
      const { layout, flat } = parameters;
      await update({ layout, parameters: flat, gradients, state, learningRate: 1e-4, gradientScale });
      const end = performance.now();
      return {
        total: end - start,
        forwardBackward: afterStep - start,
        norm: afterNorm - afterStep,
        adamw: end - afterNorm,
      };
    },
    async profile() {
      const graph = deferScatters(buildStep("profiled", parameters, loss));
      const feeds = { ...parameters.tensors, ...batch.feeds, denominator: f32Tensor([], [batch.weight]) };
      const { operators } = await profileProgram(runtime, graph, feeds, { runs: 2 });
      return operators.map(({ op, milliseconds }) => ({ op, milliseconds }));
    },
  };
}

/** 2048 x 512 x 2048, f32, twenty times in a row: the rate that ONNX Runtime keeps up on this machine. */
export async function createGemm(runtime: Runtime) {
  const [rows, inner, columns, times] = [2048, 512, 2048, 20];
  const g = createGraph("product");
  g.output("c", g.matmul(g.input("a", [rows, inner]), g.input("b", [inner, columns])));
  const program = await runtime.compile(g);
  const rng = createRng("product");
  const random = (shape: number[]) =>
    f32Tensor(
      shape,
      Float32Array.from({ length: shape[0]! * shape[1]! }, () => rng.next() - 0.5),
    );
  const feeds = { a: random([rows, inner]), b: random([inner, columns]) };
  const into = { c: f32Tensor([rows, columns]) };
  return {
    async run() {
      for (let i = 0; i < times; i++) await program.run(feeds, into);
    },
    rate: (milliseconds: number) => (2 * rows * inner * columns * times) / milliseconds / 1e6,
  };
}

async function runPeers(
  peers: Peers,
  { name: _, ...shape }: StepShape,
  best: Map<string, number>,
  say: (text: string) => void,
) {
  for (const mode of peerModes) {
    const result = (await runPeer(peers, "train_step.py", [JSON.stringify(shape), mode])) as {
      torch: string;
      milliseconds: number;
    };
    const name = `PyTorch ${result.torch} ${mode}`;
    best.set(name, Math.min(best.get(name) ?? Number.POSITIVE_INFINITY, result.milliseconds));
    say(`  ${name}: ${result.milliseconds} ms`);
  }
}

export function configOf({ D, L, H, F, V, T }: StepShape): ModelConfig {
  return {
    family: "llama",
    modelType: "llama",
    vocabSize: V,
    hiddenSize: D,
    heads: H,
    headDim: D / H,
    normEps: 1e-5,
    rope: { theta: 10000 },
    tiedEmbeddings: true,
    attentionBias: false,
    attentionOutputBias: false,
    mlpBias: false,
    maxPositions: T,
    eosTokenIds: [],
    blocks: Array.from({ length: L }, () => ({
      attention: { kind: "gqa", kvHeads: H },
      ffn: { kind: "swiglu", width: F },
    })),
  };
}

export function randomParameters(config: ModelConfig): Parameters {
  const parameters = createParameters(modelWeights(config));
  const { flat, layout } = parameters;
  const rng = createRng("weights");
  for (let i = 0; i < layout.matrixSize; i++) flat[i] = (rng.next() - 0.5) * 0.08;
  flat.fill(1, layout.matrixSize);
  return parameters;
}

function render(result: StepResult): string {
  const ms = (value: number) => `${value.toFixed(1)} ms`;
  const { forwardBackward, norm, adamw: update } = result.parts;
  const lines = [
    `${result.shape.name}: ${ms(result.milliseconds)} (forward + backward ${ms(forwardBackward)}, norm ${ms(norm)}, AdamW ${ms(update)})`,
    `  ${result.gflops.toFixed(1)} GFLOP/s, ${(100 * result.shareOfGemm).toFixed(1)} % of ONNX Runtime's product rate of ${result.gemmGflops.toFixed(1)}`,
    ...result.peers.map(({ name, milliseconds, ratio }) => `  ${name}: ${ms(milliseconds)}, ratio ${ratio.toFixed(2)}`),
    ...(result.note ? [`  ${result.note}`] : []),
    `  peak memory ${formatBytes(result.peakRssBytes)}`,
    ...result.profile.slice(0, 12).map(({ op, milliseconds }) => `    ${op.padEnd(34)} ${ms(milliseconds)}`),
  ];
  return `${lines.join("\n")}\n`;
}
