/**
 * @module What a reshaping run will take, from the parent's shapes, the numbers of tokens, and the machine's
 * matrix-product rate. Time is floating-point operations over rate, plus a cost for every program call (tiny models
 * are all calls). The forecast is meant to be right within a factor of two.
 */
import { type BlockConfig, blockParameters, type ModelConfig, modelParameters } from "../models/index.js";
import { ggufBlockBytes, ggufBytes, hubBytes, largestBlockBytes } from "./sizes.js";

export interface Machine {
  /** Measured rate of f32 matrix products at the model's own sizes, in 1e9 operations a second. */
  gflops: number;
  /** Seconds that one program call costs apart from its arithmetic. Defaults to 150e-6. */
  callSeconds?: number;
  /** Share of the matrix rate that a forward pass reaches. Defaults to 0.6. */
  forwardShare?: number;
  /** Share of it that a training step reaches. Defaults to 0.7. */
  trainShare?: number;
  /** Rate of float64 solves (one thread of JavaScript), in 1e9 operations a second. Defaults to 0.8. */
  solveGflops?: number;
}

/** What a run does, in tokens and counts. */
export interface ReshapeWork {
  /** Tokens of a sequence. */
  length: number;
  /** Sequences of one program call. Defaults to 4. */
  batch?: number;
  calibrateTokens: number;
  /** The blocks offered at each layer, the parent's own among them. */
  choices: readonly (readonly BlockConfig[])[];
  /** Replaced blocks that are scored at each layer. Defaults to all pairs of the choices. */
  scoredPerLayer?: number;
  /** Whether starts are refitted in closed form. */
  refit: boolean;
  /** Tokens of block-wise distillation for each variant. */
  blockTokens: number;
  scoreTokens: number;
  distilTokens: number;
  /** Children that are realised, distilled and measured: the chosen one and the baselines. */
  children: number;
  /** Share of the parent's parameters that a child keeps. */
  share: number;
  evaluateTokens: number;
  /** Seconds of measuring in llama.cpp for each model. Defaults to 5. */
  measureSeconds?: number;
}

export interface Forecast {
  stages: { name: string; seconds: number }[];
  seconds: number;
  /** Peak resident memory of the process tree, in bytes. */
  memoryBytes: number;
  /** What the run writes to the store and the output directory. */
  diskBytes: number;
}

/** Predicts a run of the `reshape` pipeline. */
export function forecastReshape(config: ModelConfig, work: ReshapeWork, machine: Machine): Forecast {
  const cost = createCostModel(config, work, machine);
  const stages = [
    { name: "calibrate", seconds: cost.forward(work.calibrateTokens) + cost.covariances(work.calibrateTokens) },
    { name: "variants", seconds: work.refit ? cost.refits() : 0 },
    { name: "blocks", seconds: cost.blockDistillation() },
    { name: "score", seconds: cost.scores() },
    { name: "search", seconds: 1 },
    { name: "realise", seconds: work.children * cost.realise() },
    { name: "distil", seconds: work.children * cost.distil() },
    { name: "evaluate", seconds: (work.children + 1) * cost.forward(2 * work.evaluateTokens) },
    { name: "measure", seconds: (work.children + 1) * (work.measureSeconds ?? 5) },
  ];
  return {
    stages,
    seconds: stages.reduce((sum, { seconds }) => sum + seconds, 0),
    memoryBytes: forecastMemory(config, work),
    diskBytes: forecastDisk(config, work),
  };
}

function createCostModel(config: ModelConfig, work: ReshapeWork, machine: Machine) {
  const { callSeconds = 150e-6, forwardShare = 0.6, trainShare = 0.7, solveGflops = 0.8 } = machine;
  const { length, batch = 4, share } = work;
  const layers = config.blocks.length;
  const tokensPerCall = length * batch;
  const headFlops = 2 * config.vocabSize * config.hiddenSize;
  const blocksFlops = config.blocks.reduce((sum, block) => sum + blockFlops(config, block, length), 0);
  const run = (flops: number, calls: number, rateShare: number) =>
    flops / (machine.gflops * 1e9 * rateShare) + calls * callSeconds;
  const forward = (tokens: number, part = 1, heads = 1) =>
    run(
      tokens * (part * blocksFlops + heads * headFlops),
      Math.ceil(tokens / tokensPerCall) * (part * layers + heads),
      forwardShare,
    );

  return {
    forward,
    /** X^T X of the input of every matrix that is refitted. */
    covariances: (tokens: number) =>
      run(
        tokens * sumOver(config, ({ ffn, heads, hidden }) => 2 * (ffn ** 2 + heads ** 2 + hidden ** 2)),
        0,
        forwardShare,
      ),
    /** A Cholesky factor and its solves for every narrowed width, every merged head count and every linear map. */
    refits: () =>
      (variantsOf(work) * sumOver(config, ({ ffn, hidden }) => solveFlops(ffn / 2, hidden))) / (solveGflops * 1e9),
    blockDistillation: () =>
      work.blockTokens === 0
        ? 0
        : run(3 * work.blockTokens * variantsOf(work) * blocksFlops, variantsOf(work) * layers, trainShare),
    /** Each replaced block is run on cached inputs, then every block after it, then the head: half the model. */
    scores: () => {
      const scored = work.scoredPerLayer ?? pairsOf(work);
      return forward(work.scoreTokens) + scored * layers * forward(work.scoreTokens, 0.5 * (1 + 1 / layers), 1);
    },
    /** The child's own inputs, one layer after the other, with a refit of each. */
    realise: () =>
      2 * forward(work.calibrateTokens) +
      (work.refit ? sumOver(config, ({ ffn, hidden }) => solveFlops(share * ffn, hidden)) / (solveGflops * 1e9) : 0),
    /** Forward and backward of the child (three forwards) and one forward of the parent. */
    distil: () =>
      run(
        3 * work.distilTokens * (share * blocksFlops + headFlops),
        2 * (work.distilTokens / tokensPerCall),
        trainShare,
      ) + forward(work.distilTokens),
  };
}

/** Operations of one token: two for each weight, and scores and values over the whole sequence. */
function blockFlops(config: ModelConfig, block: BlockConfig, length: number): number {
  const attends = block.attention.kind === "gqa" ? 4 * length * config.heads * config.headDim : 0;
  return 2 * blockParameters(config, block) + attends;
}

interface Widths {
  ffn: number;
  heads: number;
  hidden: number;
}

function sumOver(config: ModelConfig, value: (widths: Widths) => number): number {
  return config.blocks.reduce(
    (sum, { attention, ffn }) =>
      sum +
      value({
        ffn: ffn.kind === "swiglu" ? ffn.width : 0,
        heads: attention.kind === "gqa" ? config.heads * config.headDim : 0,
        hidden: config.hiddenSize,
      }),
    0,
  );
}

/** Cholesky of [n, n] and two triangular solves for each of `columns` right-hand sides. */
function solveFlops(n: number, columns: number): number {
  return n ** 3 / 3 + 2 * n ** 2 * columns;
}

/** Variants of a layer that are not the parent's own: the two halves of a block vary on their own. */
function variantsOf({ choices }: ReshapeWork): number {
  const counts = choices.map((blocks) => {
    const attentions = new Set(blocks.map(({ attention }) => JSON.stringify(attention)));
    const ffns = new Set(blocks.map(({ ffn }) => JSON.stringify(ffn)));
    return attentions.size + ffns.size - 2;
  });
  return Math.max(0, ...counts);
}

function pairsOf({ choices }: ReshapeWork): number {
  return Math.max(0, ...choices.map((blocks) => blocks.length - 1));
}

/** Node, ONNX Runtime and llama.cpp before any model. */
const baseBytes = 220 * 2 ** 20;

function forecastMemory(config: ModelConfig, work: ReshapeWork): number {
  const { length, batch = 4, share, distilTokens } = work;
  const rows = length * batch;
  const widest = widestOf(config);
  // A block's weights and its covariance while it is refitted, in float64.
  const blockwise = 2 * largestBlockBytes(config) + 8 * widest ** 2;
  const activations = 4 * rows * (8 * config.hiddenSize + 4 * widest + config.heads * length);
  // Logits are made for a slice of the positions at a time, for parent and child.
  const logits = 2 * 4 * Math.min(rows, 256) * config.vocabSize;
  const embeddings = 4 * config.vocabSize * config.hiddenSize;
  const forward = blockwise + activations + logits + embeddings;
  // Weights, gradients, two moments; the activations of every layer wait for the backward pass.
  const child = 4 * share * modelParameters(config);
  const training = distilTokens === 0 ? 0 : 4 * child + config.blocks.length * activations + logits + embeddings;
  return Math.round(baseBytes + Math.max(forward, training));
}

function forecastDisk(config: ModelConfig, work: ReshapeWork): number {
  const { calibrateTokens, scoreTokens, share, children, choices } = work;
  const layers = config.blocks.length;
  // Block inputs of the scoring text, covariances, starts of every variant.
  const captures = 4 * Math.max(calibrateTokens, scoreTokens) * (layers + 1) * config.hiddenSize;
  const covariances = sumOver(config, ({ ffn, heads, hidden }) => 8 * (ffn ** 2 + heads ** 2 + hidden ** 2));
  const starts = choices.reduce((sum, blocks) => sum + startBytes(config, blocks), 0);
  // In the store before and after distillation, then the chosen child's exports.
  const childBytes = share * hubBytes(config, "f32");
  const exports = 2 * childBytes + share * (ggufBytes(config, "f16") + ggufBytes(config, "q8_0"));
  return Math.round(captures + covariances + starts + 2 * children * childBytes + exports);
}

/** Attention variants and feed-forward variants are stored once each, not once a pair. */
function startBytes(config: ModelConfig, blocks: readonly BlockConfig[]): number {
  const attentions = new Map(blocks.map(({ attention }) => [JSON.stringify(attention), attention]));
  const ffns = new Map(blocks.map(({ ffn }) => [JSON.stringify(ffn), ffn]));
  const halves: BlockConfig[] = [
    ...[...attentions.values()].map((attention): BlockConfig => ({ attention, ffn: { kind: "none" } })),
    ...[...ffns.values()].map((ffn): BlockConfig => ({ attention: { kind: "none" }, ffn })),
  ];
  return halves.reduce((sum, block) => sum + ggufBlockBytes(config, block, "f32"), 0);
}

function widestOf(config: ModelConfig): number {
  return Math.max(config.hiddenSize, ...config.blocks.map(({ ffn }) => (ffn.kind === "swiglu" ? ffn.width : 0)));
}
