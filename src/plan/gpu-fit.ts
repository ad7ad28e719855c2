/** @module Which GPUs run a model in llama.cpp, how fast, and at what price. */
import { decodeSpeed, type SpeedBand } from "./decode-speed.js";
import { type FileType, needsImatrix } from "./file-types.js";
import { type Gpu, listGpus } from "./gpus.js";
import {
  divideMemory,
  type LlamaCppMemory,
  type LlamaCppUse,
  type MemoryParts,
  memoryParts,
} from "./llamacpp-memory.js";
import type { ModelShape } from "./model-shape.js";

export interface GpuFit {
  gpu: Gpu;
  /** With the memory where a machine is sold with several. */
  name: string;
  /** Alike, each holding some of the layers. */
  count: number;
  /** Of all of them. */
  memoryBytes: number;
  /** Of that, what a model may take. */
  usableBytes: number;
  fits: boolean;
  /** Layers that fit; the rest stays on the CPU. */
  gpuLayers: number;
  memory: LlamaCppMemory;
  /** Of one sequence with a full context; absent where not all layers fit, for then the processor decides. */
  tokensPerSecond?: SpeedBand;
  /** US dollars at the expected rate and the rent on demand. */
  costPerMillionTokens?: number;
}

/** What llama.cpp leaves free on each device when it fits a model itself (`--fit-target`). */
export const marginBytes = 2 ** 30;
/** Of a Mac's memory, what Metal lets a program keep on the GPU. */
const metalShare = 0.75;

/** A GPU, or `count` of them. */
export function fitGpu(shape: ModelShape, use: LlamaCppUse, gpu: Gpu, option: Partial<Option> = {}): GpuFit {
  return fitOption(
    { parts: memoryParts(shape, use), speed: decodeSpeed(shape, use), gpu },
    { count: 1, ...gpu, ...option },
  );
}

interface Option {
  count: number;
  /** Of one. */
  memoryBytes: number;
}

interface Fitting {
  parts: MemoryParts;
  speed: (bandwidth: number) => SpeedBand;
  gpu: Gpu;
}

function fitOption({ parts, speed, gpu }: Fitting, { count, memoryBytes }: Option): GpuFit {
  const usable = (gpu.vendor === "apple" ? metalShare * memoryBytes : memoryBytes) - marginBytes;
  const usableBytes = count * Math.max(0, usable);
  const memory = mostLayers(parts, usableBytes);
  const { gpuLayers } = memory;
  const fits = gpuLayers === parts.layers.length;
  const name = gpu.memoryChoices ? `${gpu.name} ${Math.round(memoryBytes / 2 ** 30)} GB` : gpu.name;
  const found = { gpu, name, count, memoryBytes: count * memoryBytes, usableBytes, fits, gpuLayers, memory };
  if (!fits) return found;
  const tokensPerSecond = speed(gpu.bandwidth);
  const rent = gpu.hourly && (count * gpu.hourly.usd) / (tokensPerSecond.expected * 3600e-6);
  return { ...found, tokensPerSecond, ...(rent !== undefined && { costPerMillionTokens: rent }) };
}

/** The division with as many layers on the GPU as it holds. */
function mostLayers(parts: MemoryParts, bytes: number): LlamaCppMemory {
  for (let gpuLayers = parts.layers.length; gpuLayers > 0; gpuLayers--) {
    const memory = divideMemory(parts, gpuLayers);
    if (memory.gpu.total <= bytes) return memory;
  }
  return divideMemory(parts, 0);
}

/** Every GPU, pair of GPUs and size of machine that holds all layers, the smallest memory first. */
export function listFits(shape: ModelShape, use: LlamaCppUse): GpuFit[] {
  const parts = memoryParts(shape, use);
  const speed = decodeSpeed(shape, use);
  const needed = divideMemory(parts).gpu.total;
  return listGpus()
    .flatMap((gpu) => optionsOf(gpu).map((option) => ({ gpu, option })))
    .filter(({ option: { count, memoryBytes } }) => count * memoryBytes > needed)
    .map(({ gpu, option }) => fitOption({ parts, speed, gpu }, option))
    .filter(({ fits }) => fits)
    .sort((a, b) => a.memoryBytes - b.memoryBytes || b.tokensPerSecond!.expected - a.tokensPerSecond!.expected);
}

export interface BestFit extends GpuFit {
  type: FileType;
  /** US dollars for all of them; of a Mac or another whole system, for the whole of it. */
  priceUsd: number;
}

/** File types that are worth choosing between, the nearest to the weights as they were trained first. */
const ladder: readonly FileType[] = [
  "F16",
  "Q8_0",
  "Q6_K",
  "Q5_K_M",
  "Q4_K_M",
  "IQ4_XS",
  "Q3_K_M",
  "IQ3_M",
  "Q2_K",
  "IQ2_M",
];

/** For each file type the fastest GPU, pair or machine at up to `maxUsd` that holds the model in it. */
export function findBest(shape: ModelShape, use: Omit<LlamaCppUse, "type">, maxUsd: number): BestFit[] {
  return ladder.flatMap((type) => {
    const affordable = listFits(shape, { ...use, type, imatrix: needsImatrix.includes(type) })
      .flatMap((fit) => (fit.gpu.price ? [{ ...fit, type, priceUsd: fit.count * fit.gpu.price.usd }] : []))
      .filter(({ priceUsd }) => priceUsd <= maxUsd);
    return affordable.sort((a, b) => b.tokensPerSecond!.expected - a.tokensPerSecond!.expected).slice(0, 1);
  });
}

function optionsOf(gpu: Gpu): Option[] {
  if (gpu.memoryChoices) return gpu.memoryChoices.map((memoryBytes) => ({ count: 1, memoryBytes }));
  const { memoryBytes } = gpu;
  const alone = { count: 1, memoryBytes };
  const single = gpu.unified || gpu.kind === "laptop";
  return single ? [alone] : [alone, { count: 2, memoryBytes }];
}
