/**
 * @module `config.json` to and from our configuration, for every architecture of the Llama family: the same function of
 * the weights, written down with small differences.
 */
import { EspalierError } from "../../base/index.js";
import { type FloatType, type HubConfig, parseHubConfig } from "../../formats/index.js";
import { isUniform, type ModelConfig } from "../config.js";
import { blocksFromDeci, blocksToDeci } from "./deci.js";
import { ropeFromHub, ropeToHub } from "./rope.js";

interface Architecture {
  family: ModelConfig["family"];
  modelTypes: readonly string[];
  /** Which biases the architecture has, given the file's `attention_bias` and `mlp_bias`. */
  biases: (hub: HubConfig) => Pick<ModelConfig, "attentionBias" | "attentionOutputBias" | "mlpBias">;
  /** Window of attention, in tokens, or undefined for all. */
  window?: (hub: HubConfig) => number | undefined;
}

const statedBiases = (hub: HubConfig) => ({
  attentionBias: hub.attention_bias,
  attentionOutputBias: hub.attention_bias,
  mlpBias: hub.mlp_bias,
});
const noBiases = () => ({ attentionBias: false, attentionOutputBias: false, mlpBias: false });

const architectures: Readonly<Record<string, Architecture>> = {
  LlamaForCausalLM: { family: "llama", modelTypes: ["llama"], biases: statedBiases },
  MistralForCausalLM: {
    family: "llama",
    modelTypes: ["mistral"],
    biases: noBiases,
    window: (hub) => hub.sliding_window ?? undefined,
  },
  Qwen2ForCausalLM: {
    family: "llama",
    modelTypes: ["qwen2"],
    biases: () => ({ attentionBias: true, attentionOutputBias: false, mlpBias: false }),
    window: (hub) => (hub.use_sliding_window ? (hub.sliding_window ?? undefined) : undefined),
  },
  DeciLMForCausalLM: { family: "deci", modelTypes: ["nemotron-nas", "deci"], biases: statedBiases },
};

/** Reads a parsed `config.json`. Throws with every problem listed; unknown keys come back as notices. */
export function configFromHub(json: unknown, where: string): { config: ModelConfig; notices: string[] } {
  const architecture = findArchitecture(json, where);
  const { config: hub, notices } = parseHubConfig(json, where);
  const rope = ropeFromHub(hub, where);
  const positions = limitToWindow(hub, architecture, where);
  const config: ModelConfig = {
    family: architecture.family,
    modelType: hub.model_type,
    vocabSize: hub.vocab_size,
    hiddenSize: hub.hidden_size,
    heads: hub.num_attention_heads,
    headDim: hub.head_dim ?? hub.hidden_size / hub.num_attention_heads,
    normEps: hub.rms_norm_eps,
    rope,
    tiedEmbeddings: hub.tie_word_embeddings,
    ...architecture.biases(hub),
    maxPositions: positions.max,
    ...tokenIds(hub),
    blocks: architecture.family === "deci" ? blocksFromDeci(hub, where) : uniformBlocks(hub, where),
  };
  return { config, notices: [...notices, ...positions.notices] };
}

function findArchitecture(json: unknown, where: string): Architecture {
  const { architectures: stated, model_type: type } = (json ?? {}) as { architectures?: unknown; model_type?: unknown };
  const name = Array.isArray(stated) ? stated[0] : undefined;
  const found =
    typeof name === "string"
      ? Object.entries(architectures).find(([key]) => key === name)?.[1]
      : Object.values(architectures).find(({ modelTypes }) => modelTypes.includes(String(type)));
  if (found) return found;
  throw new EspalierError({
    where: `${where} architectures`,
    expected: `one of ${Object.keys(architectures).join(", ")}`,
    found: typeof name === "string" ? name : `none, and model_type ${String(type)}`,
    fix: "only models of the Llama family can be read",
    exitCode: 2,
  });
}

/** Attention over a sliding window equals full attention as long as the text fits the window: the limit is taken over. */
function limitToWindow(hub: HubConfig, { window }: Architecture, where: string): { max: number; notices: string[] } {
  const size = window?.(hub);
  const max = hub.max_position_embeddings;
  if (size === undefined || size >= max) return { max, notices: [] };
  const notice = `${where}: sliding window of ${size} tokens: the context is limited to it (the file allows ${max})`;
  return { max: size, notices: [notice] };
}

function uniformBlocks(hub: HubConfig, where: string): ModelConfig["blocks"] {
  const width = hub.intermediate_size;
  if (!width) {
    throw new EspalierError({
      where: `${where} intermediate_size`,
      expected: "a positive integer",
      found: `${width}`,
      exitCode: 2,
    });
  }
  const kvHeads = hub.num_key_value_heads ?? hub.num_attention_heads;
  return Array.from({ length: hub.num_hidden_layers }, () => ({
    attention: { kind: "gqa", kvHeads },
    ffn: { kind: "swiglu", width },
  }));
}

function tokenIds(hub: HubConfig): Pick<ModelConfig, "bosTokenId" | "eosTokenIds" | "padTokenId"> {
  const { bos_token_id: bos, eos_token_id: eos, pad_token_id: pad } = hub;
  const known = (id: number | null | undefined): id is number => id != null && id >= 0;
  return {
    ...(known(bos) && { bosTokenId: bos }),
    eosTokenIds: [eos].flat().filter(known),
    ...(known(pad) && { padTokenId: pad }),
  };
}

/** True when no published plain architecture has exactly this set of biases, so that zeros must be written for some. */
export function needsBothAttentionBiases(config: ModelConfig): boolean {
  const { attentionBias, attentionOutputBias } = config;
  return attentionBias !== attentionOutputBias && !isQwen2(config);
}

function isQwen2(config: ModelConfig): boolean {
  return isUniform(config) && config.attentionBias && !config.attentionOutputBias && !config.mlpBias;
}

const torchTypes = { f32: "float32", f16: "float16", bf16: "bfloat16" } as const satisfies Record<FloatType, string>;

/** The `config.json` of a model: plain Llama (or Qwen2) where its blocks are alike, DeciLM where they are not. */
export function configToHub(config: ModelConfig, type: FloatType): Record<string, unknown> {
  const { bosTokenId, eosTokenIds, padTokenId } = config;
  const [block] = config.blocks;
  const uniform =
    isUniform(config) && block?.attention.kind === "gqa" && block.ffn.kind === "swiglu" ? block : undefined;
  return {
    ...architectureFields(config),
    attention_bias: config.attentionBias,
    attention_dropout: 0,
    ...(uniform ? {} : { block_configs: blocksToDeci(config) }),
    bos_token_id: bosTokenId ?? null,
    eos_token_id: eosTokenIds.length > 1 ? eosTokenIds : (eosTokenIds[0] ?? null),
    head_dim: config.headDim,
    hidden_act: "silu",
    hidden_size: config.hiddenSize,
    initializer_range: 0.02,
    intermediate_size: uniform?.ffn.kind === "swiglu" ? uniform.ffn.width : null,
    max_position_embeddings: config.maxPositions,
    mlp_bias: config.mlpBias,
    num_attention_heads: config.heads,
    num_hidden_layers: config.blocks.length,
    num_key_value_heads: uniform?.attention.kind === "gqa" ? uniform.attention.kvHeads : null,
    ...(padTokenId === undefined ? {} : { pad_token_id: padTokenId }),
    rms_norm_eps: config.normEps,
    rope_scaling: ropeToHub(config.rope),
    rope_theta: config.rope.theta,
    tie_word_embeddings: config.tiedEmbeddings,
    torch_dtype: torchTypes[type],
    use_cache: true,
    vocab_size: config.vocabSize,
  };
}

function architectureFields(config: ModelConfig): Record<string, unknown> {
  if (isQwen2(config)) return { architectures: ["Qwen2ForCausalLM"], model_type: "qwen2" };
  if (isUniform(config)) return { architectures: ["LlamaForCausalLM"], model_type: "llama" };
  // transformers has no class of its own for DeciLM; the reference names where its code is published.
  const repository = "nvidia/Llama-3_1-Nemotron-51B-Instruct";
  return {
    architectures: ["DeciLMForCausalLM"],
    model_type: "nemotron-nas",
    auto_map: {
      AutoConfig: `${repository}--configuration_decilm.DeciLMConfig`,
      AutoModelForCausalLM: `${repository}--modeling_decilm.DeciLMForCausalLM`,
    },
  };
}
