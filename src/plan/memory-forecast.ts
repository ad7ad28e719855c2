/**
 * @module How much memory each stage of a run takes at its peak: resident set of the process tree, predicted from shapes.
 * Sums what is held at once; constants are measured, and said to be.
 */
import {
  type AttentionConfig,
  type BlockConfig,
  blockParameters,
  type FfnConfig,
  type ModelConfig,
  modelParameters,
} from "../models/index.js";
import { ggufBytes, largestBlockBytes, type WeightType } from "./sizes.js";

/** What of a run decides its memory. */
export interface MemoryWork {
  /** Tokens of a sequence. */
  length: number;
  /** Sequences of one forward pass. */
  batch: number;
  /** The blocks offered at each layer, the parent's own among them. */
  choices: readonly (readonly BlockConfig[])[];
  distilTokens: number;
  /** Of each distillation, where time bounds it. */
  distilSeconds?: number;
  /** Sequences of a training step. */
  distilBatch: number;
  /** Children that are realised and measured. */
  children: number;
  /** Share of the parent's parameters that a child keeps. */
  share: number;
  /** Largest type of GGUF that llama.cpp loads to compare it, mapping the whole file. Defaults to none. */
  exportType?: WeightType;
}

export interface MemoryForecast {
  stages: { name: string; bytes: number }[];
  /** The stage with the highest peak. */
  peak: string;
  bytes: number;
  /** Of the peak: Node and ONNX Runtime, and weights that are held all the time. */
  processBytes: number;
  weightsBytes: number;
}

const MiB = 2 ** 20;
/** Node with ONNX Runtime and a tokenizer, before any model: measured. */
export const baseBytes = 165 * MiB;
/** llama.cpp's own process without the file that it maps: measured. */
const llamaBytes = 180 * MiB;
/**
 * What stays of each further child: blocks freed by native code that glibc keeps for itself. Measured; no block that it
 * keeps is larger than 32 MiB.
 */
const keptByChild = 30 * MiB;
/** A model up to this size as f32 stays in memory; see the engine's `defaultCacheBytes`. */
const smallModelBytes = 2 ** 30;
/** Bytes of a head that is not kept, and logits that are in memory at once. */
const [headBytes, logitBytes] = [64 * MiB, 32 * MiB];
/** Sums from this width on are f32, and are solved in ONNX Runtime; see puzzle's `refit.ts`. */
export const wideInputs = 1024;

/** What the assembled candidates leave that are measured beside the children. */
const keptByCandidates = 3 * keptByChild;

/** Predicts the peak of every stage of `reshape`. */
export function forecastMemory(config: ModelConfig, work: MemoryWork): MemoryForecast {
  const { distilTokens, distilSeconds = 0, children, share, exportType } = work;
  const cost = createStageCosts(config, work);
  const kept = (count: number) => keptByChild * Math.max(0, count);
  const whole = baseBytes + cost.weights;
  const mapped = exportType === undefined ? 0 : llamaBytes + share * ggufBytes(config, exportType);
  const late = kept(children - 1) + (children > 1 ? keptByCandidates : 0);
  const scored = cost.score();
  const own: [string, number][] = [
    ["calibrate", cost.calibrate()],
    ["variants", cost.variants()],
    ["score", scored],
    ["realise", kept(children - 1) + cost.realise()],
    // What scoring left is still there while a child is trained.
    ["distil", distilTokens === 0 && distilSeconds === 0 ? 0 : kept(children - 1) + scored + cost.distil()],
    ["evaluate", late + cost.compare()],
    ["export", late + (children > 1 ? scored : 0) + cost.child() + mapped],
  ];
  const stages = own.map(([name, bytes]) => ({ name, bytes: Math.round(whole + bytes) }));
  const peak = stages.reduce((most, stage) => (stage.bytes > most.bytes ? stage : most));
  return { stages, peak: peak.name, bytes: peak.bytes, processBytes: baseBytes, weightsBytes: cost.weights };
}

function createStageCosts(config: ModelConfig, { length, batch, choices, share, distilBatch }: MemoryWork) {
  const { hiddenSize: H, heads, headDim } = config;
  const f32 = 4 * modelParameters(config);
  const isKept = f32 <= smallModelBytes;
  const block = largestBlockBytes(config);
  // The layer before is not collected yet when the next is read.
  const streamed = isKept ? 0 : 2 * block;
  const n = widestOf(config);
  const a = heads * headDim;
  const rows = batch * length;
  const halves = distinctHalves(choices);
  const head = logitBytes * 3 + (isKept ? 0 : headBytes);
  const sums = (inputs: number, outputs: number) => (inputs < wideInputs ? 12 : 4) * inputs * (inputs + outputs);
  /** What a session of each kind keeps from its last run: scores of all heads, and the rows that go in and out. */
  const attentionRun = (count = rows) => 4 * count * (heads * Math.min(length, 512) + 4 * H + 2 * a);
  const ffnRun = (width: number, count = rows) => 4 * count * (3 * width + 2 * H);
  const blockRun = attentionRun() + ffnRun(n);
  const fewer = halves.attention.filter(({ kind }) => kind === "gqa").length - 1;

  return {
    weights: isKept ? f32 : 0,
    calibrate: () => {
      const taps = 4 * rows * (3 * H + a + n);
      const wide = sums(n, 0) + Math.max(0, fewer) * (sums(a, H) + attentionRun());
      return streamed + blockRun + 2 * taps + wide + attentionBytes(config) + head / 3;
    },
    variants: () => {
      const weights = 4 * (3 * n * H) + attentionBytes(config);
      // The Gram matrix, its factor, the inverse; the output matrix, its transpose and its products.
      const matrices = n < wideInputs ? 5 * 8 * n * n : (4 + 2 + 4) * n * n;
      return weights + matrices + 4 * 4 * n * H + streamed / 2;
    },
    score: () => {
      const held = variantBytes(config, choices);
      const runs =
        halves.attention.filter(({ kind }) => kind !== "none").length * attentionRun() +
        halves.ffn.reduce((sum, ffn) => sum + (ffn.kind === "swiglu" ? ffnRun(ffn.width) : 0), 0);
      return streamed / 2 + held + runs + blockRun + head;
    },
    realise: () => {
      const solving = n < wideInputs ? 4 * 8 * n * n : 2 * n * n + 3 * 4 * n * H;
      return streamed + block + 2 * blockRun + sums(n, H) + solving;
    },
    /** Weights, gradients and two moments of the child, the parent's weights, and all activations for the way back. */
    distil: () => {
      const layers = config.blocks.length * share;
      const step = 4 * distilBatch * length;
      const activations = layers * step * (8 * H + 4 * n + heads * Math.min(length, 512)) + 2 * head;
      return (4 * share + (isKept ? 0 : 1)) * f32 + activations;
    },
    /** A child and its parent run side by side. */
    compare: () => 2 * blockRun + head + (isKept ? share * f32 : 2 * streamed + headBytes),
    /** A child beside its parent. */
    child: () => (isKept ? share * f32 : streamed) + (isKept ? 0 : 2 * headBytes),
  };
}

function distinctHalves(choices: readonly (readonly BlockConfig[])[]): {
  attention: AttentionConfig[];
  ffn: FfnConfig[];
} {
  const attention = new Map<string, AttentionConfig>();
  const ffn = new Map<string, FfnConfig>();
  for (const block of choices.flat()) {
    attention.set(JSON.stringify(block.attention), block.attention);
    ffn.set(JSON.stringify(block.ffn), block.ffn);
  }
  return { attention: [...attention.values()], ffn: [...ffn.values()] };
}

/** Weights of all variants of the layer that has most, the parent's own among them. */
function variantBytes(config: ModelConfig, choices: readonly (readonly BlockConfig[])[]): number {
  const of = (blocks: readonly BlockConfig[]) => {
    const { attention, ffn } = distinctHalves([blocks]);
    const parts: BlockConfig[] = [
      ...attention.map((kind): BlockConfig => ({ attention: kind, ffn: { kind: "none" } })),
      ...ffn.map((kind): BlockConfig => ({ attention: { kind: "none" }, ffn: kind })),
    ];
    return parts.reduce((sum, part) => sum + 4 * blockParameters(config, part), 0);
  };
  return Math.max(0, ...choices.map(of));
}

function attentionBytes(config: ModelConfig): number {
  return Math.max(
    0,
    ...config.blocks.map(({ attention }) => 4 * blockParameters(config, { attention, ffn: { kind: "none" } })),
  );
}

function widestOf(config: ModelConfig): number {
  return Math.max(config.hiddenSize, ...config.blocks.map(({ ffn }) => (ffn.kind === "swiglu" ? ffn.width : 0)));
}
