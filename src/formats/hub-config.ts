/**
 * @module `config.json` of a Hugging Face model directory, checked field by field. What the fields mean for each
 * family is the business of `models/families`; here they are only known to be well formed.
 */
import { checkSchema, z } from "../base/index.js";

/** Far beyond any model, and small enough that products of two stay safe integers. */
const limits = { width: 1 << 24, hidden: 1 << 20, heads: 1 << 16, layers: 4096, vocab: 1 << 24, positions: 2 ** 31 };

const count = (limit: number) => z.number().int().positive().max(limit);
const tokenId = z.number().int().min(-1).max(limits.vocab);
const flag = (otherwise: boolean) =>
  z
    .boolean()
    .nullish()
    .transform((value) => value ?? otherwise);

const ropeScaling = z
  .object({
    rope_type: z.string().optional(),
    /** What files of before Llama 3.1 call it. */
    type: z.string().optional(),
    rope_theta: z.number().positive().finite().optional(),
    factor: z.number().positive().max(1e6).optional(),
    low_freq_factor: z.number().positive().max(1e6).optional(),
    high_freq_factor: z.number().positive().max(1e6).optional(),
    original_max_position_embeddings: count(limits.positions).optional(),
  })
  .nullish();

const blockConfig = z.object({
  attention: z.object({
    n_heads_in_group: count(limits.heads).nullish(),
    no_op: flag(false),
    replace_with_linear: flag(false),
    window_length: z.null("sliding windows are not supported").optional(),
  }),
  ffn: z.object({
    ffn_mult: z.number().positive().max(1e6).nullish(),
    intermediate_size: count(limits.width).nullish(),
    no_op: flag(false),
    replace_with_linear: flag(false),
  }),
});

const schema = z.object({
  architectures: z.array(z.string()).nullish(),
  model_type: z.string(),
  hidden_size: count(limits.hidden),
  intermediate_size: count(limits.width).nullish(),
  num_hidden_layers: count(limits.layers),
  num_attention_heads: count(limits.heads),
  num_key_value_heads: count(limits.heads).nullish(),
  head_dim: count(4096).nullish(),
  vocab_size: count(limits.vocab),
  hidden_act: z.enum(["silu", "swish"]).nullish(),
  rms_norm_eps: z.number().positive().max(1),
  rope_theta: z.number().positive().max(1e12).nullish(),
  rope_scaling: ropeScaling,
  rope_parameters: ropeScaling,
  max_position_embeddings: count(limits.positions),
  sliding_window: count(limits.positions).nullish(),
  use_sliding_window: z.boolean().nullish(),
  tie_word_embeddings: flag(false),
  attention_bias: flag(false),
  mlp_bias: flag(false),
  bos_token_id: tokenId.nullish(),
  eos_token_id: z.union([tokenId, z.array(tokenId).max(1024)]).nullish(),
  pad_token_id: tokenId.nullish(),
  block_configs: z.array(blockConfig).max(limits.layers).nullish(),
});

/** The checked fields of a `config.json`, under their own names. */
export type HubConfig = z.output<typeof schema>;
export type HubBlockConfig = z.output<typeof blockConfig>;
export type HubRopeScaling = NonNullable<z.output<typeof ropeScaling>>;

/** Keys that say nothing about the function that the weights compute. */
const harmless = new Set([
  "_attn_implementation",
  "_attn_implementation_autoset",
  "_commit_hash",
  "_name_or_path",
  "attention_dropout",
  "attn_pdrop",
  "auto_map",
  "bad_words_ids",
  "decoder_start_token_id",
  "do_sample",
  "dtype",
  "embd_pdrop",
  "hidden_dropout",
  "id2label",
  "initializer_range",
  "is_llama_config",
  "keys_to_ignore_at_inference",
  "label2id",
  "max_length",
  "max_window_layers",
  "min_length",
  "output_attentions",
  "output_hidden_states",
  "pretraining_tp",
  "problem_type",
  "resid_pdrop",
  "return_dict",
  "sep_token_id",
  "task_specific_params",
  "temperature",
  "tokenizer_class",
  "top_k",
  "top_p",
  "torch_dtype",
  "torchscript",
  "transformers.js_config",
  "transformers_version",
  "unsloth_fixed",
  "unsloth_version",
  "use_bfloat16",
  "use_cache",
]);

/** Keys that change the function: only the value that leaves it as it is can be accepted. */
const neutral: Record<string, (value: unknown) => boolean> = {
  quantization_config: (value) => value === null,
  rope_interleaved: (value) => value === false || value === null,
  partial_rotary_factor: (value) => value === null || value === 1,
  attn_logit_softcapping: (value) => value === null,
  final_logit_softcapping: (value) => value === null,
  use_qk_norm: (value) => value === false || value === null,
  qk_norm: (value) => value === false || value === null,
  use_mrope: (value) => value === false || value === null,
  num_local_experts: (value) => value === null || value === 0 || value === 1,
  embedding_multiplier: (value) => value === null || value === 1,
  residual_multiplier: (value) => value === null || value === 1,
  logits_scaling: (value) => value === null || value === 1,
  no_rope_layers: (value) => value === null,
  layer_types: (value) => value === null || (Array.isArray(value) && value.every((type) => type === "full_attention")),
  num_key_value_heads_per_layer: (value) => value === null,
};

const checked = schema.loose().check((context) => {
  for (const problem of findProblems(context.value)) {
    context.issues.push({ code: "custom", input: context.value, ...problem });
  }
});

/**
 * Checks a parsed `config.json`. An error lists every problem with its field; keys that are neither understood nor known
 * to be harmless come back as notices.
 */
export function parseHubConfig(value: unknown, where: string): { config: HubConfig; notices: string[] } {
  const config = checkSchema(checked, value, where);
  const unknown = Object.keys(config).filter((key) => !(key in schema.shape || harmless.has(key) || key in neutral));
  const notices = unknown.map((key) => `${where}: key ${key} is not known here and was left aside`);
  return { config, notices };
}

interface FieldProblem {
  path: string[];
  message: string;
}

function findProblems(config: HubConfig & Record<string, unknown>): FieldProblem[] {
  const problems: FieldProblem[] = [];
  const report = (field: string, message: string) => problems.push({ path: [field], message });
  const { hidden_size: H, num_attention_heads: heads, num_key_value_heads: kv, head_dim: stated } = config;
  if (!stated && H % heads !== 0)
    report("num_attention_heads", `expected a divisor of hidden_size ${H}, found ${heads}`);
  if (kv && heads % kv !== 0)
    report("num_key_value_heads", `expected a divisor of num_attention_heads ${heads}, found ${kv}`);
  if ((stated ?? H / heads) % 2 !== 0) report("head_dim", "expected an even number (rotary embedding turns pairs)");
  const { block_configs: blocks, num_hidden_layers: layers } = config;
  if (blocks && blocks.length !== layers) report("block_configs", `expected ${layers} entries, found ${blocks.length}`);
  for (const [key, isNeutral] of Object.entries(neutral)) {
    if (key in config && !isNeutral(config[key])) {
      report(key, `${JSON.stringify(config[key])?.slice(0, 80)} is not supported here`);
    }
  }
  return problems;
}
