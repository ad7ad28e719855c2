/**
 * @module A model of any shape with random weights, written a piece at a time: bf16, sharded, with a tokenizer of the
 * right size. The same shape gives the same bytes.
 */
import { join } from "node:path";
import { writeFileAtomic, writeJsonAtomic } from "../src/base/index.js";
import { type TensorPlan, writeShardedSafetensors } from "../src/formats/index.js";
import { configFromHub } from "../src/models/families/index.js";
import { modelWeights } from "../src/models/index.js";

export interface SyntheticShape {
  hidden: number;
  layers: number;
  heads: number;
  kvHeads: number;
  ffn: number;
  vocabulary: number;
}

/** Llama 3.2 1B. */
export const oneBillion: SyntheticShape = {
  hidden: 2048,
  layers: 16,
  heads: 32,
  kvHeads: 8,
  ffn: 8192,
  vocabulary: 128_256,
};

/** Writes the model as a Hugging Face directory in shards of at most `shardBytes`. */
export async function writeSynthetic(directory: string, shape: SyntheticShape, shardBytes = 600e6): Promise<void> {
  const json = configJson(shape);
  await writeJsonAtomic(join(directory, "config.json"), json);
  await writeFileAtomic(join(directory, "tokenizer.json"), JSON.stringify(tokenizerJson(shape.vocabulary)));
  await writeJsonAtomic(join(directory, "tokenizer_config.json"), {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: "<|begin_of_text|>",
    eos_token: "<|end_of_text|>",
  });
  const { config } = configFromHub(json, "synthetic model");
  const plans = modelWeights(config).map(({ name, shape: size }, index) => planOf(name, size, index));
  await writeShardedSafetensors(directory, plans, { type: "bf16", maxShardBytes: shardBytes });
}

function planOf(name: string, shape: readonly number[], index: number): TensorPlan {
  const width = shape.slice(1).reduce((a, b) => a * b, 1);
  const isNorm = name.endsWith("norm.weight");
  const readRows = async (from: number, to: number) => {
    const values = new Float32Array((to - from) * width);
    return isNorm ? values.fill(1) : fillRandom(values, index, from * width);
  };
  return { name, shape, read: () => readRows(0, shape[0]!), readRows };
}

/** Uniform in +-0.035, a spread of 0.02 as models begin with; the value at a place does not depend on the piece it is in. */
function fillRandom(values: Float32Array, tensor: number, start: number): Float32Array {
  for (let i = 0; i < values.length; i++) {
    let x = Math.imul(start + i, 0x9e3779b1) ^ Math.imul(tensor + 1, 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 15), 0x2c1b3c6d);
    x = Math.imul(x ^ (x >>> 12), 0x297a2d39);
    values[i] = ((x ^ (x >>> 15)) / 2 ** 31) * 0.035;
  }
  return values;
}

function configJson({ hidden, layers, heads, kvHeads, ffn, vocabulary }: SyntheticShape): Record<string, unknown> {
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_act: "silu",
    hidden_size: hidden,
    intermediate_size: ffn,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: hidden / heads,
    vocab_size: vocabulary,
    tie_word_embeddings: true,
    rms_norm_eps: 1e-5,
    max_position_embeddings: 131_072,
    rope_theta: 500_000,
    rope_scaling: {
      rope_type: "llama3",
      factor: 32,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8192,
    },
    bos_token_id: vocabulary - 256,
    eos_token_id: vocabulary - 255,
    attention_bias: false,
    mlp_bias: false,
    torch_dtype: "bfloat16",
  };
}

/** Byte-level BPE: 256 bytes, words that nothing is merged into, and special tokens at the end. */
function tokenizerJson(vocabulary: number): Record<string, unknown> {
  const ordinary = vocabulary - 256;
  const vocab: Record<string, number> = {};
  for (const symbol of byteSymbols()) vocab[symbol] = Object.keys(vocab).length;
  vocab.th = 256;
  for (let id = 257; id < ordinary; id++) vocab[`Ġz${id}`] = id;
  const special = (id: number, content: string) => {
    return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  };
  const named = ["<|begin_of_text|>", "<|end_of_text|>"];
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: Array.from({ length: 256 }, (_, i) => special(ordinary + i, named[i] ?? `<|reserved_${i}|>`)),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab,
      merges: ["t h"],
    },
  };
}

/** How GPT-2 writes the 256 bytes: printable Latin-1 as it is, the others from U+0100 on. */
function byteSymbols(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    return String.fromCodePoint(printable ? byte : next++);
  });
}
