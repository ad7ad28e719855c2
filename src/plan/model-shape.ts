/** @module A model as its shapes alone, also one that this program cannot run: mixture of experts, squared ReLU. */
import type { BlockConfig, ModelConfig } from "../models/index.js";

/** Sizes of a model, from its configuration or from a catalogue. */
export interface ModelShape
  extends Pick<
    ModelConfig,
    | "vocabSize"
    | "hiddenSize"
    | "heads"
    | "headDim"
    | "tiedEmbeddings"
    | "attentionBias"
    | "attentionOutputBias"
    | "mlpBias"
    | "maxPositions"
    | "blocks"
  > {
  /**
   * llama.cpp's name: `llama` (all blocks alike), `deci` (blocks differ), `nemotron` (LayerNorm, squared ReLU), `qwen3`
   * (norms of each head).
   */
  architecture: "llama" | "deci" | "nemotron" | "qwen3";
  /** The feed-forward has a gate beside up and down. */
  gated: boolean;
  /** Norms have a bias. */
  normBias: boolean;
  /** Queries and keys of each head are normalised. */
  headNorms: boolean;
  /** Divisors of the rotary angles are stored, one for each pair (Llama 3 scaling). */
  rotaryFactors: boolean;
  /** Feed-forwards of one layer, and how many of them a token goes through. */
  experts?: { count: number; used: number };
}

/** What a tensor does; quantisers decide by it. */
export type TensorRole =
  | "embedding"
  | "head"
  | "attn_q"
  | "attn_k"
  | "attn_v"
  | "attn_output"
  | "ffn_gate"
  | "ffn_up"
  | "ffn_down"
  /** Never quantised: norms, biases, rotary divisors, the router of experts. */
  | "kept";

/** A tensor of a GGUF file. */
export interface PlannedTensor {
  name: string;
  role: TensorRole;
  /** Undefined outside the blocks. */
  layer?: number;
  /** [out, in], [experts, out, in] or [n]. */
  shape: readonly number[];
}

/** Every tensor of the GGUF file, by layer. Blocks are taken as they are; see `canonicalise` for what GGUF cannot hold. */
export function ggufTensors(shape: ModelShape): PlannedTensor[] {
  const { vocabSize: V, hiddenSize: H, headDim, tiedEmbeddings, rotaryFactors } = shape;
  const outside: PlannedTensor[] = [
    { name: "token_embd.weight", role: "embedding", shape: [V, H] },
    ...norm(shape, "output_norm"),
    ...(tiedEmbeddings ? [] : [{ name: "output.weight", role: "head", shape: [V, H] } as const]),
    ...(rotaryFactors ? [{ name: "rope_freqs.weight", role: "kept", shape: [headDim / 2] } as const] : []),
  ];
  const blocks = shape.blocks.flatMap((block, layer) =>
    [...attentionTensors(shape, block), ...ffnTensors(shape, block)].map((tensor) => ({
      ...tensor,
      name: `blk.${layer}.${tensor.name}`,
      layer,
    })),
  );
  return [...outside, ...blocks];
}

function attentionTensors(shape: ModelShape, { attention }: BlockConfig): PlannedTensor[] {
  const { hiddenSize: H, headDim } = shape;
  if (attention.kind === "none") return [];
  if (attention.kind === "linear") return [...norm(shape, "attn_norm"), ...matrix("attn_output", [H, H], false)];
  const q = shape.heads * headDim;
  const kv = attention.kvHeads * headDim;
  return [
    ...norm(shape, "attn_norm"),
    ...(shape.headNorms ? headNorms(headDim) : []),
    ...matrix("attn_q", [q, H], shape.attentionBias),
    ...matrix("attn_k", [kv, H], shape.attentionBias),
    ...matrix("attn_v", [kv, H], shape.attentionBias),
    ...matrix("attn_output", [H, q], shape.attentionOutputBias),
  ];
}

function ffnTensors(shape: ModelShape, { ffn }: BlockConfig): PlannedTensor[] {
  if (ffn.kind !== "swiglu") return [];
  const { hiddenSize: H, experts, mlpBias } = shape;
  const out = (role: MatrixRole, sizes: [number, number]): PlannedTensor[] =>
    experts ? [{ name: `${role}_exps.weight`, role, shape: [experts.count, ...sizes] }] : matrix(role, sizes, mlpBias);
  return [
    ...norm(shape, "ffn_norm"),
    ...(experts ? [{ name: "ffn_gate_inp.weight", role: "kept", shape: [experts.count, H] } as const] : []),
    ...(shape.gated ? out("ffn_gate", [ffn.width, H]) : []),
    ...out("ffn_up", [ffn.width, H]),
    ...out("ffn_down", [H, ffn.width]),
  ];
}

type MatrixRole = Exclude<TensorRole, "embedding" | "head" | "kept">;

function matrix(role: MatrixRole, shape: [number, number], bias: boolean): PlannedTensor[] {
  const weight: PlannedTensor = { name: `${role}.weight`, role, shape };
  return bias ? [weight, { name: `${role}.bias`, role: "kept", shape: [shape[0]] }] : [weight];
}

function headNorms(headDim: number): PlannedTensor[] {
  return ["attn_q_norm", "attn_k_norm"].map((name) => ({ name: `${name}.weight`, role: "kept", shape: [headDim] }));
}

function norm({ hiddenSize, normBias }: ModelShape, name: string): PlannedTensor[] {
  const weight: PlannedTensor = { name: `${name}.weight`, role: "kept", shape: [hiddenSize] };
  return normBias ? [weight, { name: `${name}.bias`, role: "kept", shape: [hiddenSize] }] : [weight];
}

/** Parameters, every expert counted. Divisors of rotary angles are none. */
export function shapeParameters(shape: ModelShape): number {
  return ggufTensors({ ...shape, rotaryFactors: false }).reduce(
    (sum, tensor) => sum + tensor.shape.reduce((a, b) => a * b, 1),
    0,
  );
}
