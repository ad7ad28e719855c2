/** @module Shapes from a `config.json`: of every family that can be loaded, and of some that can only be planned for. */
import { checkSchema, EspalierError, z } from "../base/index.js";
import { configFromHub, isUniform, type ModelConfig } from "../models/index.js";
import type { ModelShape } from "./model-shape.js";

/** The shape of a model that can be loaded. */
export function shapeOf(config: ModelConfig): ModelShape {
  return {
    ...config,
    architecture: isUniform(config) ? "llama" : "deci",
    gated: true,
    normBias: false,
    headNorms: false,
    rotaryFactors: config.rope.scaling?.type === "llama3",
  };
}

/** A parsed `config.json`. Throws an EspalierError that names what of it is not understood. */
export function shapeFromHub(json: unknown, where: string): ModelShape {
  const { model_type: type } = (json ?? {}) as { model_type?: unknown };
  if (type === "nemotron") return nemotronShape(json, where);
  if (type === "mixtral") return mixtralShape(json, where);
  if (type === "qwen3") return qwen3Shape(json, where);
  const experts = Object.keys((json ?? {}) as object).find((key) => /expert/.test(key));
  if (experts !== undefined) {
    throw new EspalierError({
      where: `${where} ${experts}`,
      expected: "a model without experts, or Mixtral",
      found: `model_type ${String(type)}`,
      fix: "its experts are laid out in a way that is not known here",
      exitCode: 2,
    });
  }
  return shapeOf(configFromHub(json, where).config);
}

const size = z.number().int().positive();
const common = {
  hidden_size: size,
  intermediate_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  num_key_value_heads: size.nullish(),
  head_dim: size.nullish(),
  vocab_size: size,
  max_position_embeddings: size,
  tie_word_embeddings: z.boolean().default(false),
};
const nemotronSchema = z.object({
  ...common,
  hidden_act: z.literal("relu2").default("relu2"),
  attention_bias: z.boolean().default(false),
  mlp_bias: z.boolean().default(false),
});
const qwen3Schema = z.object(common);
const mixtralSchema = z.object({ ...common, num_local_experts: size, num_experts_per_tok: size });

/** Nemotron (arXiv:2406.11704): LayerNorm with bias, squared ReLU between two matrices, part of each head rotated. */
function nemotronShape(json: unknown, where: string): ModelShape {
  const hub = checkSchema(nemotronSchema, json, where);
  const biases = { attentionBias: hub.attention_bias, attentionOutputBias: hub.attention_bias, mlpBias: hub.mlp_bias };
  return { ...uniformShape(hub), ...biases, architecture: "nemotron", gated: false, normBias: true };
}

/** Mixtral (arXiv:2401.04088); llama.cpp calls it `llama`, with all experts of a layer in one tensor. */
function mixtralShape(json: unknown, where: string): ModelShape {
  const hub = checkSchema(mixtralSchema, json, where);
  const experts = { count: hub.num_local_experts, used: hub.num_experts_per_tok };
  return { ...uniformShape(hub), experts };
}

/** Qwen3 (arXiv:2505.09388): no biases, and a norm for the queries and one for the keys of a head. */
function qwen3Shape(json: unknown, where: string): ModelShape {
  const hub = checkSchema(qwen3Schema, json, where);
  return { ...uniformShape(hub), architecture: "qwen3", headNorms: true };
}

function uniformShape(hub: z.output<typeof qwen3Schema>): ModelShape {
  const heads = hub.num_attention_heads;
  return {
    architecture: "llama",
    vocabSize: hub.vocab_size,
    hiddenSize: hub.hidden_size,
    heads,
    headDim: hub.head_dim ?? hub.hidden_size / heads,
    tiedEmbeddings: hub.tie_word_embeddings,
    attentionBias: false,
    attentionOutputBias: false,
    mlpBias: false,
    maxPositions: hub.max_position_embeddings,
    blocks: Array.from({ length: hub.num_hidden_layers }, () => ({
      attention: { kind: "gqa", kvHeads: hub.num_key_value_heads ?? heads },
      ffn: { kind: "swiglu", width: hub.intermediate_size },
    })),
    gated: true,
    normBias: false,
    headNorms: false,
    rotaryFactors: false,
  };
}
