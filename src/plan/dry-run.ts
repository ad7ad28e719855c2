/**
 * @module What a reshaping run will take, from the parent's shapes, the numbers of tokens, and two measured rates: how
 * fast this machine runs a block of the parent, and how fast it solves linear systems. Meant to be right within a factor
 * of two, memory (`memory-forecast.ts`) within a fifth.
 */
import { type BlockConfig, blockParameters, type ModelConfig } from "../models/index.js";
import { forecastMemory, type MemoryForecast, wideInputs } from "./memory-forecast.js";
import { ggufBlockBytes, ggufBytes, hubBytes, type WeightType } from "./sizes.js";

/** Rates in 1e9 operations a second; `measureMachine` measures both. */
export interface Machine {
  /** Operations of one forward pass of a block, all overheads in it, over the time that it takes. */
  gflops: number;
  /** Float64 Cholesky factorisations and solves. */
  solveGflops: number;
  /** Rate of a training step, as a share of a forward pass's. Defaults to 0.8: what surrounds the matrix products weighs more. */
  trainShare?: number;
}

/** What a run does, in tokens and counts. */
export interface ReshapeWork {
  /** Tokens of a sequence. */
  length: number;
  /** Sequences of one forward pass. */
  batch: number;
  calibrateTokens: number;
  /** The blocks offered at each layer, the parent's own among them. */
  choices: readonly (readonly BlockConfig[])[];
  /** Replaced blocks that are scored, over all layers. */
  scored: number;
  /** Whether starts are refitted in closed form. */
  refit: boolean;
  /** Tokens of block-wise distillation for each variant. */
  blockTokens: number;
  scoreTokens: number;
  distilTokens: number;
  /** Of each distillation, where time bounds it. */
  distilSeconds?: number;
  /** Candidates that are put together and measured whole. Defaults to none. */
  candidates?: number;
  /** Sequences of a training step. */
  distilBatch: number;
  /** Children that are realised, distilled and measured: the chosen one and the baselines. */
  children: number;
  /** How many of them are distilled. Defaults to all. */
  distilled?: number;
  /** Share of the parent's parameters that a child keeps. */
  share: number;
  evaluateTokens: number;
  /** Largest type of GGUF that llama.cpp loads to compare it. Defaults to none. */
  exportType?: WeightType;
  /** Seconds of measuring in llama.cpp for each model. Defaults to 4. */
  measureSeconds?: number;
}

export interface Forecast {
  stages: { name: string; seconds: number }[];
  seconds: number;
  /** Peak resident memory of the process tree, in bytes. */
  memoryBytes: number;
  /** The same of every stage, and which of them has the peak. */
  memory: MemoryForecast;
  /** What the run writes to the store and the output directory. */
  diskBytes: number;
}

/** Predicts a run of the `reshape` pipeline from an empty store. */
export function forecastReshape(config: ModelConfig, work: ReshapeWork, machine: Machine): Forecast {
  const cost = createCostModel(config, work, machine);
  const { children, distilled = children, measureSeconds = 4 } = work;
  const memory = forecastMemory(config, work);
  const stages = [
    { name: "calibrate", seconds: cost.calibrate() },
    { name: "variants", seconds: work.refit ? cost.refits() : 0 },
    { name: "blocks", seconds: cost.blockDistillation() },
    { name: "score", seconds: cost.scores() },
    { name: "search", seconds: 1 },
    { name: "candidates", seconds: (work.candidates ?? 0) * cost.forward(work.scoreTokens, work.share, 1) },
    { name: "realise", seconds: work.refit ? children * cost.realise() : 0 },
    { name: "distil", seconds: distilled * (work.distilSeconds ?? cost.distil()) },
    // Each child, and again what was distilled; the parent's outputs are kept.
    {
      name: "evaluate",
      seconds: (children + distilled) * cost.forward(work.evaluateTokens, work.share, 1),
    },
    { name: "speed", seconds: (children + 1) * measureSeconds },
  ];
  return {
    stages,
    seconds: stages.reduce((sum, { seconds }) => sum + seconds, 0),
    memoryBytes: memory.bytes,
    memory,
    diskBytes: forecastDisk(config, work),
  };
}

function createCostModel(config: ModelConfig, work: ReshapeWork, machine: Machine) {
  const { gflops, solveGflops, trainShare = 0.8 } = machine;
  const { length, share, choices } = work;
  const layers = config.blocks.length;
  const head = 2 * config.vocabSize * config.hiddenSize;
  const blocks = config.blocks.reduce((sum, block) => sum + blockFlops(config, block, length), 0);
  const seconds = (flops: number) => flops / (gflops * 1e9);
  /** A ridge system with so many inputs; wide ones go through ONNX Runtime, at half the rate of a block. */
  const solve = (n: number, columns: number) =>
    solveFlops(n, columns) / (n < wideInputs ? solveGflops * 1e9 : 0.5 * gflops * 1e9);
  /** `part` of the blocks, and `heads` outputs over the vocabulary. */
  const forward = (tokens: number, part = 1, heads = 0) => seconds(tokens * (part * blocks + heads * head));
  const heads = (blocks: readonly BlockConfig[]) => countOf(blocks, ({ attention }) => attention) - 1;
  const widths = (blocks: readonly BlockConfig[]) => countOf(blocks, ({ ffn }) => ffn) - 1;

  return {
    forward,
    /** The parent, again each attention with fewer heads, and sums of products of what each refit reads. */
    calibrate: () => {
      const sums = sumOver(config, ({ ffn, attention, hidden }, layer) => {
        const products = heads(choices[layer]!) * attention * (attention + hidden) + 4 * hidden ** 2;
        return (
          2 * (ffn ** 2 + products) + heads(choices[layer]!) * attentionFlops(config, config.blocks[layer]!, length)
        );
      });
      return forward(work.calibrateTokens) + seconds(work.calibrateTokens * sums);
    },
    /** One system for each narrowed width (half the width on average), each head count and each linear map. */
    refits: () =>
      sumOver(
        config,
        ({ ffn, attention, hidden }, layer) =>
          widths(choices[layer]!) * solve(ffn / 2, hidden) + heads(choices[layer]!) * solve(attention, hidden),
      ),
    blockDistillation: () => {
      const variants = choices.reduce((sum, offered) => sum + heads(offered) + widths(offered), 0);
      return (3 * variants * forward(work.blockTokens)) / layers / trainShare;
    },
    /** A replaced block starts from stored inputs: it costs itself and the blocks after it, half the model on average. */
    scores: () => forward(work.scoreTokens) + work.scored * forward(work.scoreTokens, 0.5 * (1 + 1 / layers), 2),
    /** The child walks over the text, its feed-forwards twice; each one's last matrix is fitted anew. */
    realise: () =>
      1.8 * forward(work.calibrateTokens, share) +
      seconds(work.calibrateTokens * sumOver(config, ({ ffn, hidden }) => 2 * share * ffn * (share * ffn + hidden))) +
      sumOver(config, ({ ffn, hidden }) => solve(share * ffn, hidden)),
    /** Forward and backward of the child, three forwards, and one forward of the parent. */
    distil: () => (3 * forward(work.distilTokens, share, 1) + forward(work.distilTokens, 1, 1)) / trainShare,
  };
}

/** Operations of one token: two for each weight, and scores and values over the whole sequence. */
export function blockFlops(config: ModelConfig, block: BlockConfig, length: number): number {
  const attends = block.attention.kind === "gqa" ? 4 * length * config.heads * config.headDim : 0;
  return 2 * blockParameters(config, block) + attends;
}

function attentionFlops(config: ModelConfig, { attention }: BlockConfig, length: number): number {
  return blockFlops(config, { attention, ffn: { kind: "none" } }, length);
}

interface Widths {
  ffn: number;
  attention: number;
  hidden: number;
}

function sumOver(config: ModelConfig, value: (widths: Widths, layer: number) => number): number {
  return config.blocks.reduce((sum, { attention, ffn }, layer) => {
    const widths = {
      ffn: ffn.kind === "swiglu" ? ffn.width : 0,
      attention: attention.kind === "gqa" ? config.heads * config.headDim : 0,
      hidden: config.hiddenSize,
    };
    return sum + value(widths, layer);
  }, 0);
}

function countOf(blocks: readonly BlockConfig[], half: (block: BlockConfig) => unknown): number {
  return new Set(blocks.map((block) => JSON.stringify(half(block)))).size;
}

/** Cholesky of [n, n] and two triangular solves for each of `columns` right-hand sides. */
function solveFlops(n: number, columns: number): number {
  return n ** 3 / 3 + 2 * n ** 2 * columns;
}

/** Bytes that a run writes to the store and the output directory. */
export function forecastDisk(config: ModelConfig, work: ReshapeWork): number {
  const { calibrateTokens, scoreTokens, share, children, choices } = work;
  const layers = config.blocks.length;
  // Block inputs of both texts, covariances, starts of every variant.
  const captures = 4 * (calibrateTokens + scoreTokens) * (layers + 1) * config.hiddenSize;
  const covariances = sumOver(
    config,
    ({ ffn, attention, hidden }) => 4 * (ffn ** 2 + 2 * attention ** 2 + 2 * hidden ** 2),
  );
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
