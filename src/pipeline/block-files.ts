/**
 * @module GGUF files whose only purpose is to be timed: many and few copies of one half of a block, with random weights
 * and a vocabulary that says nothing. What many takes more than few is the copies'; everything else cancels.
 */
import { createRng, sha256 } from "../base/index.js";
import { type BlockConfig, describeBlock, type Model, type ModelConfig, modelWeights } from "../models/index.js";
import { ggufBlockBytes, ggufBytes, type SubBlock, subBlockId, type WeightType } from "../plan/index.js";
import { f32Tensor, type Shape, sizeOf } from "../tensor/index.js";

/** Width of the feed-forward of zeros that GGUF files hold after an attention without one. */
export const fillerWidth = 32;

/** Tokens of the vocabulary where its size must not matter: the special ones and one for each byte. */
const smallVocabulary = 288;

/** llama.cpp takes no more than 512 layers. */
const mostLayers = 500;

/** Something to be timed: copies of a half, or a model as it stands. */
export interface Unit {
  /** Unique among the units of a parent: `ffn swiglu 384`, `whole`. */
  name: string;
  /** False where a token costs the same however many came before it. */
  readsCache: boolean;
  files: { name: string; config: ModelConfig }[];
  /** Copies by which the first file exceeds the second; 0 for a single file. */
  copies: number;
  /** Bytes of weights of all its files. */
  bytes: number;
}

export interface UnitOptions {
  type: WeightType;
  /** Bytes of the last level of cache. */
  cacheBytes: number;
}

const filler = { kind: "swiglu", width: fillerWidth } as const;

/**
 * Many copies of a half and few. Their bytes are chosen so that the weights come from where they come in the parent: in
 * a parent larger than the cache, even the few do not fit in it (each token reads all weights in turn, so nothing of them
 * stays), and in a parent that fits, the many do.
 */
export function halfUnit(parent: ModelConfig, half: SubBlock, options: UnitOptions): Unit {
  const copy: BlockConfig =
    half.part === "attention"
      ? { attention: half.config, ffn: filler }
      : { attention: { kind: "none" }, ffn: half.config };
  const { few, extra, ballast } = chooseCopies(parent, copy, options);
  const name = `${half.part} ${subBlockId(half)}`;
  const readsCache = half.config.kind === "gqa";
  const stack = (copies: number): BlockConfig[] => [
    { attention: firstAttention(parent), ffn: filler },
    ...repeat<BlockConfig>({ attention: { kind: "none" }, ffn: widestFfn(parent) }, ballast),
    ...repeat(copy, copies),
  ];
  const files = [
    { name: `${fileName(name)}-many`, config: smallConfig(parent, stack(few + extra)) },
    { name: `${fileName(name)}-few`, config: smallConfig(parent, stack(few)) },
  ];
  return { name, readsCache, files, copies: extra, bytes: bytesOf(files, options.type) };
}

/** A model as it stands, with its own vocabulary. */
export function wholeUnit(parent: ModelConfig, name: string, blocks: BlockConfig[], { type }: UnitOptions): Unit {
  const files = [{ name: fileName(name), config: { ...parent, blocks } }];
  return { name, readsCache: true, files, copies: 0, bytes: bytesOf(files, type) };
}

/** How many of the parent's blocks take more than the cache, at most all; the model from which `fixed` is measured. */
export function fewBlocks(parent: ModelConfig, { type, cacheBytes }: UnitOptions): number {
  const bytes = ggufBlockBytes(parent, parentBlock(parent), type);
  return Math.min(parent.blocks.length, Math.max(2, Math.ceil((1.25 * cacheBytes) / bytes)));
}

/** The block with both halves that most layers of a parent have; of parts of several where no layer has both. */
export function parentBlock(parent: ModelConfig): BlockConfig {
  const counts = new Map<string, { block: BlockConfig; count: number }>();
  for (const block of parent.blocks) {
    if (block.attention.kind !== "gqa" || block.ffn.kind !== "swiglu") continue;
    const key = describeBlock(block);
    counts.set(key, { block, count: (counts.get(key)?.count ?? 0) + 1 });
  }
  const [first, ...others] = counts.values();
  if (!first) return { attention: firstAttention(parent), ffn: widestFfn(parent) };
  return others.reduce((most, entry) => (entry.count > most.count ? entry : most), first).block;
}

function chooseCopies(parent: ModelConfig, copy: BlockConfig, { type, cacheBytes }: UnitOptions) {
  const [whole, each] = [ggufBytes(parent, type), ggufBlockBytes(parent, copy, type)];
  const fits = whole < cacheBytes;
  const wanted = fits ? { few: whole / 4, extra: whole / 2 } : { few: 1.25 * cacheBytes, extra: 1.5 * cacheBytes };
  const extra = Math.min(mostLayers / 2, Math.max(2, Math.ceil(wanted.extra / each)));
  const few = Math.min(mostLayers / 4, Math.max(1, Math.ceil(wanted.few / each)));
  // Too small to fill the cache with so many layers: wide feed-forwards beside them, in both files, do.
  const lacking = fits ? 0 : wanted.few - few * each;
  const ballastBytes = ggufBlockBytes(parent, { attention: { kind: "none" }, ffn: widestFfn(parent) }, type);
  return { few, extra, ballast: Math.max(0, Math.ceil(lacking / ballastBytes)) };
}

/** llama.cpp reads the size of a head from the first layer, which must have attention. */
function firstAttention(parent: ModelConfig): BlockConfig["attention"] {
  const found = parent.blocks.find(({ attention }) => attention.kind === "gqa");
  return found?.attention ?? { kind: "gqa", kvHeads: parent.heads };
}

function widestFfn({ blocks }: ModelConfig): BlockConfig["ffn"] {
  const widths = blocks.map(({ ffn }) => (ffn.kind === "swiglu" ? ffn.width : 0));
  return { kind: "swiglu", width: Math.max(fillerWidth, ...widths) };
}

function smallConfig(parent: ModelConfig, blocks: BlockConfig[]): ModelConfig {
  return { ...parent, vocabSize: smallVocabulary, tiedEmbeddings: true, blocks };
}

function bytesOf(files: Unit["files"], type: WeightType): number {
  return files.reduce((sum, { config }) => sum + ggufBytes(config, type), 0);
}

function fileName(name: string): string {
  return name.replaceAll(/[^a-z0-9]+/gi, "-");
}

function repeat<T>(value: T, count: number): T[] {
  return Array.from({ length: count }, () => value);
}

/** A model in memory with random weights, equal for equal configurations; only one tensor of a shape is ever made. */
export function randomModel(config: ModelConfig): Model {
  const shapes = new Map(modelWeights(config).map(({ name, shape }) => [name, shape]));
  return {
    path: "",
    format: "gguf",
    config,
    weights: {
      has: (name) => shapes.has(name),
      shapeOf: (name) => shapes.get(name)!,
      read: async (name) => randomTensor(shapes.get(name)!),
      readRows: async (name, from, to) => randomTensor([to - from, ...shapes.get(name)!.slice(1)]),
    },
    sidecars: {
      name: `random ${sha256(JSON.stringify(config)).slice(0, 8)}`,
      legal: [],
      tokenizer: { kind: "gguf", metadata: byteVocabulary(config.vocabSize) },
    },
    notices: [],
    close: async () => {},
  };
}

/** Small values around zero, or around one for norms: activations stay of the size that they have in a real model. */
function randomTensor(shape: Shape) {
  const values = new Float32Array(sizeOf(shape));
  if (shape.length === 1) return f32Tensor(shape, values.fill(1));
  for (let at = 0; at < values.length; at += pattern.length) {
    values.set(pattern.subarray(0, Math.min(pattern.length, values.length - at)), at);
  }
  return f32Tensor(shape, values);
}

const pattern = (() => {
  const rng = createRng("block files");
  return Float32Array.from({ length: 65_521 }, () => 0.02 * rng.normal());
})();

/** A vocabulary that llama.cpp loads: three special tokens, a token for each byte, and names for the rest. */
function byteVocabulary(size: number): Record<string, unknown> {
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
  const named = ["<unk>", "<s>", "</s>", ...bytes];
  const types = [2, 3, 3, ...bytes.map(() => 6)];
  return {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": Array.from({ length: size }, (_, id) => named[id] ?? `token${id}`),
    "tokenizer.ggml.scores": Float32Array.from({ length: size }, (_, id) => -id),
    "tokenizer.ggml.token_type": Int32Array.from({ length: size }, (_, id) => types[id] ?? 1),
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
  };
}
