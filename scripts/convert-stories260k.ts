/**
 * Converts stories260K from the llama2.c form (checkpoint version 0 and its tokenizer) to the Hugging Face layout:
 *
 *   npx tsx scripts/convert-stories260k.ts DIRECTORY models/stories260K
 *
 * DIRECTORY holds stories260K.bin and tok512.bin. LICENSE and README.md of the result are kept by hand.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { EspalierError, writeJsonAtomic } from "../src/base/index.js";
import type { TensorPlan } from "../src/formats/checkpoint.js";
import { writeSafetensors } from "../src/formats/safetensors.js";

interface Sizes {
  hidden: number;
  width: number;
  layers: number;
  heads: number;
  kvHeads: number;
  vocab: number;
  positions: number;
}

interface Piece {
  text: string;
  score: number;
}

async function convert(source: string, target: string): Promise<void> {
  const { sizes, tensors } = parseCheckpoint(await readFile(join(source, "stories260K.bin")));
  const pieces = parseTokenizer(await readFile(join(source, "tok512.bin")), sizes.vocab);
  await writeSafetensors(join(target, "model.safetensors"), tensors);
  await writeJsonAtomic(join(target, "config.json"), buildConfig(sizes));
  await writeJsonAtomic(join(target, "generation_config.json"), {
    bos_token_id: 1,
    // llama2.c ends a story where the next one would begin: at BOS.
    eos_token_id: [2, 1],
    max_length: sizes.positions,
  });
  await writeJsonAtomic(join(target, "tokenizer.json"), buildTokenizer(pieces));
  await writeJsonAtomic(join(target, "tokenizer_config.json"), buildTokenizerConfig(sizes));
  await writeJsonAtomic(join(target, "special_tokens_map.json"), {
    bos_token: "<s>",
    eos_token: "</s>",
    unk_token: "<unk>",
  });
}

/** Version 0: seven int32, then every tensor of one kind over all layers, f32. */
function parseCheckpoint(file: Buffer): { sizes: Sizes; tensors: TensorPlan[] } {
  const [hidden, width, layers, heads, kvHeads, vocab, positions] = new Int32Array(
    file.buffer.slice(file.byteOffset, file.byteOffset + 28),
  );
  const sizes = { hidden, width, layers, heads, kvHeads, vocab, positions } as Sizes;
  const { hidden: H, width: I, layers: L, vocab: V } = sizes;
  const headDim = H / sizes.heads;
  const kv = sizes.kvHeads * headDim;
  let at = 28;
  const take = (rows: number, columns: number): Float32Array => {
    const bytes = file.subarray(at, at + 4 * rows * columns);
    at += bytes.byteLength;
    return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  };
  const each = (rows: number, columns: number) => Array.from({ length: L }, () => take(rows, columns));
  const embedding = take(V, H);
  const attentionNorm = each(1, H);
  const q = each(H, H).map((w) => pairHalves(w, { heads: sizes.heads, headDim, columns: H }));
  const k = each(kv, H).map((w) => pairHalves(w, { heads: sizes.kvHeads, headDim, columns: H }));
  const [v, o, ffnNorm] = [each(kv, H), each(H, H), each(1, H)];
  const [gate, down, up] = [each(I, H), each(H, I), each(I, H)];
  const norm = take(1, H);
  const rotaryTables = 4 * positions! * headDim;
  if (at + rotaryTables !== file.byteLength) {
    throw new EspalierError({
      where: "stories260K.bin",
      expected: `${at + rotaryTables} bytes`,
      found: `${file.byteLength}`,
    });
  }
  const plan = (name: string, shape: number[], values: Float32Array): TensorPlan => ({
    name,
    shape,
    read: async () => values,
  });
  const blocks = Array.from({ length: L }, (_, layer) => {
    const prefix = `model.layers.${layer}.`;
    return [
      plan(`${prefix}input_layernorm.weight`, [H], attentionNorm[layer]!),
      plan(`${prefix}self_attn.q_proj.weight`, [H, H], q[layer]!),
      plan(`${prefix}self_attn.k_proj.weight`, [kv, H], k[layer]!),
      plan(`${prefix}self_attn.v_proj.weight`, [kv, H], v[layer]!),
      plan(`${prefix}self_attn.o_proj.weight`, [H, H], o[layer]!),
      plan(`${prefix}post_attention_layernorm.weight`, [H], ffnNorm[layer]!),
      plan(`${prefix}mlp.gate_proj.weight`, [I, H], gate[layer]!),
      plan(`${prefix}mlp.up_proj.weight`, [I, H], up[layer]!),
      plan(`${prefix}mlp.down_proj.weight`, [H, I], down[layer]!),
    ];
  });
  const tensors = [
    plan("model.embed_tokens.weight", [V, H], embedding),
    ...blocks.flat(),
    plan("model.norm.weight", [H], norm),
  ];
  return { sizes, tensors };
}

/** llama2.c rotates neighbouring rows (2j, 2j+1) of a head, Hugging Face rows (j, j + headDim / 2). */
function pairHalves(
  w: Float32Array,
  { heads, headDim, columns }: { heads: number; headDim: number; columns: number },
): Float32Array {
  const result = new Float32Array(w.length);
  for (let row = 0; row < heads * headDim; row++) {
    const within = row % headDim;
    const from = row - within + 2 * (within % (headDim / 2)) + Math.floor(within / (headDim / 2));
    result.set(w.subarray(from * columns, (from + 1) * columns), row * columns);
  }
  return result;
}

/** uint32 longest piece, then for each token float32 score, int32 length, bytes. */
function parseTokenizer(file: Buffer, count: number): Piece[] {
  const pieces: Piece[] = [];
  let at = 4;
  while (pieces.length < count) {
    const length = file.readInt32LE(at + 4);
    const text = file.toString("utf8", at + 8, at + 8 + length);
    pieces.push({ text: text.replaceAll(" ", "▁"), score: file.readFloatLE(at) });
    at += 8 + length;
  }
  for (const [id, text] of ["<unk>", "<s>", "</s>"].entries()) pieces[id]!.text = text;
  return pieces;
}

function buildConfig(sizes: Sizes): Record<string, unknown> {
  return {
    architectures: ["LlamaForCausalLM"],
    attention_bias: false,
    attention_dropout: 0,
    bos_token_id: 1,
    eos_token_id: 2,
    head_dim: sizes.hidden / sizes.heads,
    hidden_act: "silu",
    hidden_size: sizes.hidden,
    initializer_range: 0.02,
    intermediate_size: sizes.width,
    max_position_embeddings: sizes.positions,
    mlp_bias: false,
    model_type: "llama",
    num_attention_heads: sizes.heads,
    num_hidden_layers: sizes.layers,
    num_key_value_heads: sizes.kvHeads,
    rms_norm_eps: 1e-5,
    rope_scaling: null,
    rope_theta: 10000,
    tie_word_embeddings: true,
    torch_dtype: "float32",
    use_cache: true,
    vocab_size: sizes.vocab,
  };
}

function buildTokenizer(pieces: readonly Piece[]): Record<string, unknown> {
  const special = (id: number, content: string) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
  const bos = { SpecialToken: { id: "<s>", type_id: 0 } };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "Prepend", prepend: "▁" },
        { type: "Replace", pattern: { String: " " }, content: "▁" },
      ],
    },
    pre_tokenizer: null,
    post_processor: {
      type: "TemplateProcessing",
      single: [bos, { Sequence: { id: "A", type_id: 0 } }],
      pair: [
        bos,
        { Sequence: { id: "A", type_id: 0 } },
        { SpecialToken: { id: "<s>", type_id: 1 } },
        { Sequence: { id: "B", type_id: 1 } },
      ],
      special_tokens: { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } },
    },
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: "<unk>",
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab: Object.fromEntries(pieces.map(({ text }, id) => [text, id])),
      merges: buildMerges(pieces),
    },
  };
}

/** Every way to put a piece together from two others, best score first: what SentencePiece's scores say, as merges. */
function buildMerges(pieces: readonly Piece[]): string[] {
  const ids = new Map(pieces.map(({ text }, id) => [text, id]));
  const merges = pieces.slice(259).flatMap(({ text, score }) => {
    const characters = [...text];
    const splits = characters
      .slice(1)
      .map((_, i) => [characters.slice(0, i + 1).join(""), characters.slice(i + 1).join("")] as const);
    return splits.filter(([left, right]) => ids.has(left) && ids.has(right)).map((pair) => ({ pair, score }));
  });
  return merges.sort((a, b) => b.score - a.score).map(({ pair }) => pair.join(" "));
}

function buildTokenizerConfig(sizes: Sizes): Record<string, unknown> {
  return {
    add_bos_token: true,
    add_eos_token: false,
    bos_token: "<s>",
    clean_up_tokenization_spaces: false,
    eos_token: "</s>",
    legacy: true,
    model_max_length: sizes.positions,
    pad_token: null,
    sp_model_kwargs: {},
    tokenizer_class: "LlamaTokenizer",
    unk_token: "<unk>",
    use_default_system_prompt: false,
  };
}

const [source, target] = process.argv.slice(2);
if (!source || !target)
  throw new EspalierError({ where: "usage", expected: "SOURCE and TARGET directories", exitCode: 2 });
await convert(source, target);
