/**
 * @module GGUF metadata to and from our configuration: architectures `llama` (blocks alike) and `deci` (per-layer arrays).
 */
import { EspalierError } from "../../base/index.js";
import type { GgufEntries, GgufEntry, GgufFile, GgufMetadata } from "../../formats/index.js";
import { type BlockConfig, isUniform, type ModelConfig, type RopeConfig } from "../config.js";
import { scalingFromDivisors, shortest } from "./rope.js";

const architectures = ["llama", "deci"] as const;

/** Reads the configuration from a GGUF header. Reads `rope_freqs.weight` where there is one. */
export async function configFromGguf(file: GgufFile, where: string): Promise<ModelConfig> {
  const keys = createKeyReader(file.metadata, where);
  const architecture = keys.text("general.architecture");
  const family = architectures.find((name) => name === architecture);
  if (!family) {
    throw new EspalierError({
      where: `${where} general.architecture`,
      expected: `one of ${architectures.join(", ")}`,
      found: architecture,
      fix: "only models of the Llama family can be read",
      exitCode: 2,
    });
  }
  const key = (name: string) => `${family}.${name}`;
  refuseSplit(keys, where);
  refuseExperts(keys, key("expert_count"));
  const layers = keys.count(key("block_count"), 4096);
  const hiddenSize = keys.count(key("embedding_length"), 1 << 20);
  const blocks = readBlocks(keys, key, layers);
  const heads = queryHeads(keys, key("attention.head_count"), layers);
  const headDim = keys.optionalCount(key("attention.key_length"), 4096) ?? hiddenSize / heads;
  checkSizes({ headDim, heads, blocks }, where);
  checkRotaryWidth(keys, key("rope.dimension_count"), headDim);
  const config: ModelConfig = {
    family,
    modelType: family,
    vocabSize: file.info("token_embd.weight")?.shape[0] ?? keys.count(key("vocab_size"), 1 << 24),
    hiddenSize,
    heads,
    headDim,
    normEps: shortest(keys.positive(key("attention.layer_norm_rms_epsilon"))),
    rope: await readRope(file, keys, { key, headDim }),
    tiedEmbeddings: file.info("output.weight") === undefined,
    attentionBias: hasTensor(file, "attn_q.bias"),
    attentionOutputBias: hasTensor(file, "attn_output.bias"),
    mlpBias: hasTensor(file, "ffn_gate.bias"),
    maxPositions: keys.count(key("context_length"), 2 ** 31),
    ...readTokenIds(keys),
    blocks,
  };
  return config;
}

type KeyReader = ReturnType<typeof createKeyReader>;

/** Metadata by key, checked where it is used: numbers must be numbers, counts must be in range. */
function createKeyReader(metadata: GgufMetadata, where: string) {
  const fail = (key: string, expected: string): never => {
    const value = metadata.get(key)?.value;
    const found = value === undefined ? "no such key" : String(value).slice(0, 80);
    throw new EspalierError({ where: `${where} ${key}`, expected, found, exitCode: 2 });
  };
  const value = (key: string) => metadata.get(key)?.value;
  const isCount = (x: unknown, limit: number): x is number =>
    Number.isInteger(x) && (x as number) > 0 && (x as number) <= limit;
  return {
    has: (key: string) => metadata.has(key),
    text(key: string): string {
      const text = value(key);
      return typeof text === "string" ? text : fail(key, "text");
    },
    optionalText(key: string): string | undefined {
      return metadata.has(key) ? this.text(key) : undefined;
    },
    positive(key: string): number {
      const number = value(key);
      return typeof number === "number" && number > 0 && number < 1e12 ? number : fail(key, "a positive number");
    },
    count(key: string, limit: number): number {
      const number = value(key);
      return isCount(number, limit) ? number : fail(key, `an integer from 1 to ${limit}`);
    },
    optionalCount(key: string, limit: number): number | undefined {
      return metadata.has(key) ? this.count(key, limit) : undefined;
    },
    /** One number for each layer: a list, or one number for all. */
    perLayer(key: string, layers: number, limit: number): number[] {
      const stated = value(key);
      const list =
        typeof stated === "number"
          ? new Array<number>(layers).fill(stated)
          : Array.from((stated ?? []) as ArrayLike<unknown>);
      const good = list.length === layers && list.every((x): x is number => x === 0 || isCount(x, limit));
      return good ? list : fail(key, `${layers} integers from 0 to ${limit}`);
    },
  };
}

function refuseSplit(keys: KeyReader, where: string): void {
  const parts = keys.optionalCount("split.count", 1 << 16) ?? 1;
  if (parts === 1) return;
  const fix = "join the parts with llama.cpp's gguf-split --merge";
  throw new EspalierError({ where, expected: "a GGUF in one file", found: `one of ${parts} parts`, fix, exitCode: 2 });
}

function refuseExperts(keys: KeyReader, key: string): void {
  if ((keys.optionalCount(key, 1 << 16) ?? 0) < 2) return;
  throw new EspalierError({
    where: key,
    expected: "no experts",
    found: "a mixture of experts",
    fix: "only dense models can be read",
    exitCode: 2,
  });
}

/** A layer without attention states no heads in `deci`; those that have them must agree. */
function queryHeads(keys: KeyReader, key: string, layers: number): number {
  const stated = keys.perLayer(key, layers, 1 << 16);
  const heads = [...new Set(stated.filter((count) => count > 0))];
  if (heads.length === 1) return heads[0]!;
  const found = heads.length === 0 ? "none" : heads.join(" and ");
  throw new EspalierError({ where: key, expected: "one number of query heads for all layers", found, exitCode: 2 });
}

function readBlocks(keys: KeyReader, key: (name: string) => string, layers: number): BlockConfig[] {
  const heads = keys.perLayer(key("attention.head_count"), layers, 1 << 16);
  const kvKey = key("attention.head_count_kv");
  const kvHeads = keys.has(kvKey) ? keys.perLayer(kvKey, layers, 1 << 16) : heads;
  const widths = keys.perLayer(key("feed_forward_length"), layers, 1 << 24);
  return heads.map((count, layer) => {
    const kv = kvHeads[layer]!;
    const width = widths[layer]!;
    const attention: BlockConfig["attention"] =
      count === 0 ? { kind: "none" } : kv === 0 ? { kind: "linear" } : { kind: "gqa", kvHeads: kv };
    return { attention, ffn: width === 0 ? { kind: "none" } : { kind: "swiglu", width } };
  });
}

function checkSizes(
  { headDim, heads, blocks }: Pick<ModelConfig, "headDim" | "heads" | "blocks">,
  where: string,
): void {
  if (!Number.isInteger(headDim) || headDim % 2 !== 0) {
    throw new EspalierError({ where, expected: "an even head dimension", found: `${headDim}`, exitCode: 2 });
  }
  for (const [layer, { attention }] of blocks.entries()) {
    if (attention.kind !== "gqa" || heads % attention.kvHeads === 0) continue;
    const found = `${attention.kvHeads}`;
    throw new EspalierError({
      where: `${where} layer ${layer}`,
      expected: `kv heads that divide ${heads}`,
      found,
      exitCode: 2,
    });
  }
}

function checkRotaryWidth(keys: KeyReader, key: string, headDim: number): void {
  const width = keys.optionalCount(key, 4096) ?? headDim;
  if (width === headDim) return;
  throw new EspalierError({
    where: key,
    expected: `${headDim}, the head dimension`,
    found: `${width}`,
    fix: "partial rotary embedding is not supported",
    exitCode: 2,
  });
}

async function readRope(
  file: GgufFile,
  keys: KeyReader,
  { key, headDim }: { key: (name: string) => string; headDim: number },
): Promise<RopeConfig> {
  const baseKey = key("rope.freq_base");
  const theta = keys.has(baseKey) ? shortest(keys.positive(baseKey)) : 10000;
  const type = keys.optionalText(key("rope.scaling.type")) ?? "none";
  if (type === "linear") {
    return { theta, scaling: { type, factor: shortest(keys.positive(key("rope.scaling.factor"))) } };
  }
  if (type !== "none") {
    const fix = "this scaling is not supported yet";
    throw new EspalierError({
      where: key("rope.scaling.type"),
      expected: "none or linear",
      found: type,
      fix,
      exitCode: 2,
    });
  }
  const name = "rope_freqs.weight";
  const info = file.info(name);
  if (!info) return { theta };
  if (info.shape.length !== 1 || info.shape[0] !== headDim / 2) {
    throw new EspalierError({ where: name, expected: `[${headDim / 2}]`, found: `[${info.shape}]` });
  }
  const scaling = scalingFromDivisors(await file.read(name), { theta }, name);
  return scaling ? { theta, scaling } : { theta };
}

function hasTensor(file: GgufFile, suffix: string): boolean {
  return file.names.some((name) => name.startsWith("blk.") && name.endsWith(`.${suffix}`));
}

function readTokenIds(keys: KeyReader): Pick<ModelConfig, "bosTokenId" | "eosTokenIds" | "padTokenId"> {
  const id = (name: string): number | undefined => {
    const key = `tokenizer.ggml.${name}_token_id`;
    if (!keys.has(key)) return undefined;
    // Zero is a token like any other, and no count.
    return keys.perLayer(key, 1, 1 << 24)[0];
  };
  const [bos, eos, pad] = [id("bos"), id("eos"), id("padding")];
  const ends = [eos, id("eot"), id("eom")].filter((end) => end !== undefined);
  return {
    ...(bos !== undefined && { bosTokenId: bos }),
    eosTokenIds: [...new Set(ends)],
    ...(pad !== undefined && { padTokenId: pad }),
  };
}

/** The architecture's keys. A model whose blocks are alike becomes `llama`, any other `deci`. */
export function configToGguf(config: ModelConfig): { architecture: "llama" | "deci"; entries: GgufEntries } {
  const architecture = isUniform(config) ? "llama" : "deci";
  const key = (name: string) => `${architecture}.${name}`;
  const entries: [string, GgufEntry][] = [
    [key("block_count"), u32(config.blocks.length)],
    [key("context_length"), u32(config.maxPositions)],
    [key("embedding_length"), u32(config.hiddenSize)],
    [key("feed_forward_length"), widths(config)],
    [key("attention.head_count"), queryHeadCounts(config)],
    [key("attention.head_count_kv"), kvHeadCounts(config)],
    [key("attention.layer_norm_rms_epsilon"), f32(config.normEps)],
    [key("attention.key_length"), u32(config.headDim)],
    [key("attention.value_length"), u32(config.headDim)],
    [key("rope.freq_base"), f32(config.rope.theta)],
    [key("rope.dimension_count"), u32(config.headDim)],
    [key("vocab_size"), u32(config.vocabSize)],
  ];
  const { scaling } = config.rope;
  if (scaling?.type === "linear") {
    entries.push([key("rope.scaling.type"), { type: "string", value: "linear" }]);
    entries.push([key("rope.scaling.factor"), f32(scaling.factor)]);
  }
  return { architecture, entries };
}

function u32(value: number): GgufEntry {
  return { type: "u32", value };
}

function f32(value: number): GgufEntry {
  return { type: "f32", value };
}

/** One number where the blocks are alike, which is all that `llama` reads, else one for each layer. */
function perLayer(config: ModelConfig, of: (block: BlockConfig) => number): GgufEntry {
  const values = config.blocks.map(of);
  return isUniform(config) ? u32(values[0]!) : { type: "array", of: "i32", value: Int32Array.from(values) };
}

function widths(config: ModelConfig): GgufEntry {
  return perLayer(config, ({ ffn }) => (ffn.kind === "swiglu" ? ffn.width : 0));
}

/** Linear attention is stated as heads without kv heads, no attention as no heads at all. */
function queryHeadCounts(config: ModelConfig): GgufEntry {
  return perLayer(config, ({ attention }) => (attention.kind === "none" ? 0 : config.heads));
}

function kvHeadCounts(config: ModelConfig): GgufEntry {
  return perLayer(config, ({ attention }) => (attention.kind === "gqa" ? attention.kvHeads : 0));
}
