/**
 * @module What the processor of this machine does with a file type in llama.cpp: three layers of random weights, larger than
 * the cache, are written, quantised and timed. Takes up to half a minute.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { freemem, tmpdir } from "node:os";
import { join } from "node:path";
import { fileTypeNumbers } from "../formats/index.js";
import { createLlamaCpp, createLlamaCppTools } from "../llamacpp/index.js";
import { type ModelConfig, writeGguf } from "../models/index.js";
import {
  activeParameters,
  bytesReadPerStep,
  type FileType,
  type LlamaCppUse,
  llamaCppMemory,
  type ModelShape,
  needsImatrix,
  type SpeedBand,
  shapeOf,
  typeEfficiency,
} from "../plan/index.js";
import { randomModel } from "./block-files.js";
import { type MachineFacts, machineFacts } from "./machine-facts.js";

export interface MeasuredMachine extends MachineFacts {
  freeBytes: number;
  threads: number;
  /** What was timed; types that take long to make are stood for by another one. */
  type: FileType;
  /** Bytes of weights a second that steps read, with the ends of the 95 % interval. */
  bandwidth: { low: number; mean: number; high: number };
  /** Operations a second of prompts. */
  promptFlops: number;
  seconds: number;
}

export interface MachineOptions {
  threads: number;
  signal?: AbortSignal;
  /** What is timed. Defaults to three layers of the shape of Llama 3.2 1B. */
  config?: ModelConfig;
}

const threeLayers: ModelConfig = {
  family: "llama",
  modelType: "llama",
  vocabSize: 288,
  hiddenSize: 2048,
  heads: 32,
  headDim: 64,
  normEps: 1e-5,
  rope: { theta: 10000 },
  tiedEmbeddings: true,
  attentionBias: false,
  attentionOutputBias: false,
  mlpBias: false,
  maxPositions: 2048,
  eosTokenIds: [2],
  blocks: Array.from({ length: 3 }, () => ({
    attention: { kind: "gqa", kvHeads: 8 },
    ffn: { kind: "swiglu", width: 8192 },
  })),
};

const promptTokens = 128;
const generateTokens = 16;

/** Files of the IQ kinds take minutes to make, and some types are not made without an importance matrix. */
const standsFor = (type: FileType): FileType =>
  type.startsWith("IQ") || needsImatrix.includes(type) ? "Q4_K_M" : type;

export async function measureThisMachine(asked: FileType, options: MachineOptions): Promise<MeasuredMachine> {
  const { threads, signal, config = threeLayers } = options;
  const started = performance.now();
  const type = standsFor(asked);
  const facts = { ...(await machineFacts()), freeBytes: freemem(), threads, type };
  const folder = await mkdtemp(join(tmpdir(), "espalier-machine-"));
  const llama = createLlamaCpp({ threads });
  try {
    const gguf = await writeTyped(config, type, folder, { threads, ...(signal && { signal }) });
    const speed = await llama.measure(gguf, { promptTokens, generateTokens, repeats: 3, ...(signal && { signal }) });
    const shape = shapeOf(config);
    const step = bytesReadPerStep(shape, { type, context: promptTokens });
    const { low, mean, high } = speed.decode;
    const bytes = (rate: number) => rate * (step.weights + step.kvCache);
    return {
      ...facts,
      bandwidth: { low: bytes(Math.max(0, low)), mean: bytes(mean), high: bytes(high) },
      promptFlops: 2 * activeParameters(shape) * speed.prefill.mean,
      seconds: (performance.now() - started) / 1000,
    };
  } finally {
    await llama.dispose();
    await rm(folder, { recursive: true, force: true });
  }
}

async function writeTyped(
  config: ModelConfig,
  type: FileType,
  folder: string,
  { threads, signal }: Pick<MachineOptions, "threads" | "signal">,
): Promise<string> {
  const [source, target] = [join(folder, "source.gguf"), join(folder, "typed.gguf")];
  await writeGguf(randomModel(config), source, { type: "f16", ...(signal && { signal }) });
  const tools = createLlamaCppTools({ threads });
  try {
    await tools.quantise({ source, target, fileType: fileTypeNumbers[type] }, signal ? { signal } : {});
    return target;
  } finally {
    await tools.dispose();
  }
}

export interface MachineFit {
  /** Bytes of memory that the model needs in use. */
  neededBytes: number;
  /** Of all memory, and of what was free. */
  fits: boolean;
  fitsNow: boolean;
  /** Tokens a second of one sequence with a full context; `bound` is the upper end of what was measured. */
  tokensPerSecond: SpeedBand;
  promptTokensPerSecond: number;
}

/** What is left to other programs. */
const marginBytes = 2 ** 30;

/** The measured bandwidth over what the model reads, for another type by what types keep of it. */
export function fitMachine(shape: ModelShape, use: LlamaCppUse, machine: MeasuredMachine): MachineFit {
  const { weights, kvCache } = bytesReadPerStep(shape, use);
  const share = typeEfficiency(use.type) / typeEfficiency(machine.type);
  const rate = (bandwidth: number) => (share * bandwidth) / (weights + kvCache);
  const neededBytes = llamaCppMemory(shape, { ...use, gpuLayers: 0 }).ram.total;
  const { low, mean, high } = machine.bandwidth;
  return {
    neededBytes,
    fits: neededBytes + marginBytes <= machine.memoryBytes,
    fitsNow: neededBytes <= machine.freeBytes,
    tokensPerSecond: { low: rate(low), expected: rate(mean), bound: rate(high) },
    promptTokensPerSecond: machine.promptFlops / (2 * activeParameters(shape)),
  };
}
