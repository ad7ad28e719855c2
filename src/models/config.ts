/**
 * @module What a model is made of, as plain data: sizes, and one entry per block. A block is an attention choice
 * followed by a feed-forward choice, and every block may differ from its neighbours.
 *
 * Weights are named as Hugging Face names them whatever file they came from, with shapes [out, in] and the rotary
 * halves pairing, so that no later stage needs to know about checkpoint formats.
 */
import type { HostTensor, Shape } from "../tensor/index.js";
import type { TokenizerSource } from "../tokenizer/index.js";

export type { TokenizerSource };

/** `gqa`: grouped-query attention; `linear`: one [H, H] matrix after the norm; `none`: no attention sub-layer. */
export type AttentionConfig = { kind: "gqa"; kvHeads: number } | { kind: "linear" } | { kind: "none" };

/** `swiglu`: gated feed-forward of the given width; `linear`: one [H, H] matrix after the norm; `none`: no sub-layer. */
export type FfnConfig = { kind: "swiglu"; width: number } | { kind: "linear" } | { kind: "none" };

export interface BlockConfig {
  attention: AttentionConfig;
  ffn: FfnConfig;
}

/** Llama 3 frequency scaling (`rope_type: "llama3"`), or linear position interpolation. */
export type RopeScaling =
  | {
      type: "llama3";
      factor: number;
      lowFreqFactor: number;
      highFreqFactor: number;
      originalMaxPositions: number;
    }
  | { type: "linear"; factor: number };

export interface RopeConfig {
  /** Base of the rotary frequencies. */
  theta: number;
  scaling?: RopeScaling;
}

export interface ModelConfig {
  /** `llama`: every block alike; `deci`: blocks differ (DeciLM `block_configs`, llama.cpp `deci`). */
  family: "llama" | "deci";
  /** `model_type` of the file it was read from, such as `llama`, `mistral`, `qwen2`, `nemotron-nas`. */
  modelType: string;
  vocabSize: number;
  hiddenSize: number;
  /** Query heads, the same in every block that has attention. */
  heads: number;
  headDim: number;
  /** Epsilon of RMSNorm. */
  normEps: number;
  rope: RopeConfig;
  /** The output head is the embedding table; `lm_head.weight` does not exist. */
  tiedEmbeddings: boolean;
  /** Biases on q, k and v. */
  attentionBias: boolean;
  /** Bias on the attention's output projection. */
  attentionOutputBias: boolean;
  /** Biases on gate, up and down. */
  mlpBias: boolean;
  /** Longest context the model was made for, in tokens. */
  maxPositions: number;
  bosTokenId?: number;
  eosTokenIds: number[];
  padTokenId?: number;
  blocks: BlockConfig[];
}

/** Named weights, read when asked for. Values are always f32, shapes [out, in], rotary halves pairing. */
export interface WeightSource {
  has(name: string): boolean;
  /** Throws when the name is unknown. */
  shapeOf(name: string): Shape;
  /** Reads one tensor from its file; nothing is kept. Throws on NaN or infinite values. */
  read(name: string): Promise<HostTensor>;
  /**
   * Reads the rows (steps along the first axis) from `from` up to, not including, `to`, where that takes less than
   * reading the tensor. See {@link readWeightRows}.
   */
  readRows?(name: string, from: number, to: number): Promise<HostTensor>;
}

/** A file that travels with the weights unchanged, such as a licence. */
export interface SidecarFile {
  name: string;
  bytes: Uint8Array;
}

/** What belongs to a model besides configuration and weights. */
export interface Sidecars {
  tokenizer?: TokenizerSource;
  /** Jinja chat template. */
  chatTemplate?: string;
  /** Parsed `generation_config.json`. */
  generationConfig?: Record<string, unknown>;
  /** Licence and notice files, byte for byte. */
  legal: SidecarFile[];
  /** Text of the model card, `README.md`. */
  card?: string;
  /** What the model was made from, as a card or header says: `owner/name`, or a name alone. */
  parent?: string;
  /** Licence as stated by a card or header, such as `apache-2.0`. */
  licence?: string;
  /** Name of the model, from its card, header or folder. */
  name: string;
}

export interface Model {
  /** Hugging Face directory or `.gguf` file; empty for a model that exists in memory only. */
  path: string;
  format: "hf" | "gguf";
  config: ModelConfig;
  weights: WeightSource;
  sidecars: Sidecars;
  /** What the reader had to say: keys left aside, limits taken over. One sentence each. */
  notices: readonly string[];
  close(): Promise<void>;
}

/** Name and shape of one weight. */
export interface WeightInfo {
  name: string;
  shape: Shape;
}

/** `model.layers.N.` */
export function layerPrefix(layer: number): string {
  return `model.layers.${layer}.`;
}

/** The attention sub-layer's weights, names without the layer prefix. */
export function attentionWeights(config: ModelConfig, attention: AttentionConfig): WeightInfo[] {
  const H = config.hiddenSize;
  const norm = { name: "input_layernorm.weight", shape: [H] };
  switch (attention.kind) {
    case "none":
      return [];
    case "linear":
      return [norm, { name: "self_attn.linear_attn.weight", shape: [H, H] }];
    case "gqa": {
      const q = config.heads * config.headDim;
      const kv = attention.kvHeads * config.headDim;
      return [
        norm,
        ...linearWeights("self_attn.q_proj", q, H, config.attentionBias),
        ...linearWeights("self_attn.k_proj", kv, H, config.attentionBias),
        ...linearWeights("self_attn.v_proj", kv, H, config.attentionBias),
        ...linearWeights("self_attn.o_proj", H, q, config.attentionOutputBias),
      ];
    }
  }
}

/** The feed-forward sub-layer's weights, names without the layer prefix. */
export function ffnWeights(config: ModelConfig, ffn: FfnConfig): WeightInfo[] {
  const H = config.hiddenSize;
  const norm = { name: "post_attention_layernorm.weight", shape: [H] };
  switch (ffn.kind) {
    case "none":
      return [];
    case "linear":
      return [norm, { name: "mlp.linear_mlp.weight", shape: [H, H] }];
    case "swiglu":
      return [
        norm,
        ...linearWeights("mlp.gate_proj", ffn.width, H, config.mlpBias),
        ...linearWeights("mlp.up_proj", ffn.width, H, config.mlpBias),
        ...linearWeights("mlp.down_proj", H, ffn.width, config.mlpBias),
      ];
  }
}

function linearWeights(name: string, out: number, inner: number, bias: boolean): WeightInfo[] {
  const weight = { name: `${name}.weight`, shape: [out, inner] };
  return bias ? [weight, { name: `${name}.bias`, shape: [out] }] : [weight];
}

/** One block's weights, names without the layer prefix (`self_attn.q_proj.weight`). */
export function blockWeights(config: ModelConfig, block: BlockConfig): WeightInfo[] {
  return [...attentionWeights(config, block.attention), ...ffnWeights(config, block.ffn)];
}

/** Every weight of the model with its full name, in file order: embedding, blocks, norm, head. */
export function modelWeights(config: ModelConfig): WeightInfo[] {
  const { hiddenSize: H, vocabSize: V } = config;
  const blocks = config.blocks.flatMap((block, layer) =>
    blockWeights(config, block).map(({ name, shape }) => ({ name: layerPrefix(layer) + name, shape })),
  );
  const head = config.tiedEmbeddings ? [] : [{ name: "lm_head.weight", shape: [V, H] }];
  return [
    { name: "model.embed_tokens.weight", shape: [V, H] },
    ...blocks,
    { name: "model.norm.weight", shape: [H] },
    ...head,
  ];
}

function countElements(weights: readonly WeightInfo[]): number {
  return weights.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
}

/** Parameters of one block, norms and biases included. */
export function blockParameters(config: ModelConfig, block: BlockConfig): number {
  return countElements(blockWeights(config, block));
}

/** Parameters of the whole model; a tied embedding counts once. */
export function modelParameters(config: ModelConfig): number {
  return countElements(modelWeights(config));
}

/** Bytes of key and value cache that one token takes over all layers. `bytes`: size of one cached number, default f16. */
export function kvBytesPerToken(config: ModelConfig, bytes = 2): number {
  const heads = config.blocks.reduce(
    (sum, { attention }) => sum + (attention.kind === "gqa" ? attention.kvHeads : 0),
    0,
  );
  return 2 * heads * config.headDim * bytes;
}

/** True when all blocks are alike and have both sub-layers, so that plain Llama files can hold the model. */
export function isUniform(config: ModelConfig): boolean {
  const [first] = config.blocks;
  if (first?.attention.kind !== "gqa" || first.ffn.kind !== "swiglu") return false;
  return config.blocks.every((block) => sameBlock(block, first));
}

export function sameBlock(a: BlockConfig, b: BlockConfig): boolean {
  return describeBlock(a) === describeBlock(b);
}

/** A block in a few characters, such as `gqa:4+swiglu:172`. Equal text means equal shape. */
export function describeBlock({ attention, ffn }: BlockConfig): string {
  const left = attention.kind === "gqa" ? `gqa:${attention.kvHeads}` : attention.kind;
  return `${left}+${ffn.kind === "swiglu" ? `swiglu:${ffn.width}` : ffn.kind}`;
}
