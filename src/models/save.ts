/**
 * @module Writes a model as a Hugging Face directory or a GGUF file, a piece of a tensor at a time: what is in memory is
 * never more than some rows in f32 and their bytes in the file's type, or one matrix where its rows have to be moved.
 */
import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import {
  checkFree,
  EspalierError,
  fileError,
  fileExists,
  ignoreEvents,
  type OnEvent,
  temporaryName,
  writeFileAtomic,
  writeJsonAtomic,
} from "../base/index.js";
import {
  type FloatType,
  fileTypeNumbers,
  type GgufEntries,
  type GgufEntry,
  type GgufTensorPlan,
  ggufFileBytes,
  renderModelfile,
  resolveTensorType,
  type TensorPlan,
  type WritableType,
  writeGgufFile,
  writeShardedSafetensors,
} from "../formats/index.js";
import { toGgufVocabulary, toTokenizerFiles } from "../tokenizer/index.js";
import { canonicalise } from "./canonical.js";
import { type Model, type ModelConfig, modelWeights, type WeightSource } from "./config.js";
import { configToGguf, configToHub, ggufName, halvesToPairs, ropeDivisors, rotaryHeads } from "./families/index.js";
import { bodyOf, type RewardHead, rewardConfigToHub, rewardHeadPlans } from "./reward-head.js";
import { baseModelKeys, legalKeyPrefix } from "./sidecars.js";
import { readWeightRows } from "./weights.js";

export interface SaveOptions<Type> {
  /** Type of the weights in the file. Defaults to f32. */
  type?: Type;
  /** Replace what is at the path. Defaults to false: an existing path is an error. */
  overwrite?: boolean;
  /** Name in the file's metadata. Defaults to the model's own name. */
  name?: string;
  onEvent?: OnEvent;
  signal?: AbortSignal;
}

export interface HubOptions extends SaveOptions<FloatType> {
  /** Text of the model card, `README.md`. Defaults to none. */
  card?: string;
  /** Largest shard in bytes. Defaults to 5 GB. */
  maxShardBytes?: number;
  /** Writes a reward model: this in place of the output layer. */
  head?: RewardHead;
}

export interface SavedModel {
  path: string;
  format: "hf" | "gguf";
  type: WritableType;
  /** Bytes of all files written. */
  bytes: number;
  /** Configuration as written, which may pack blocks otherwise than the model in memory. */
  config: ModelConfig;
  /** What was changed for the format and why that is exact; tensors that fell back to another type; tokenizer limits. */
  notes: string[];
}

/**
 * Writes a GGUF file: `llama` where the blocks are alike, `deci` where they are not, with the tokenizer, the chat template
 * and the licence files in its metadata. Equal models give equal bytes.
 */
export async function writeGguf(
  model: Model,
  path: string,
  { type = "f32", overwrite = false, name, onEvent, signal }: SaveOptions<WritableType> = {},
): Promise<SavedModel> {
  if (!overwrite) await checkFree(path);
  const { model: packed, notes } = canonicalise(model, "gguf");
  const vocabulary = vocabularyEntries(packed);
  const plans = watched(ggufPlans(packed, type), { onEvent, signal });
  const entries = [
    ...generalEntries(packed, type, name),
    ...configToGguf(packed.config).entries,
    ...vocabulary.entries,
  ];
  await writeGgufFile(path, entries, plans);
  const { size } = await stat(path);
  const allNotes = [...notes, ...fallbackNotes(plans, type), ...vocabulary.notices];
  return { path, format: "gguf", type, bytes: size, config: packed.config, notes: allNotes };
}

/** Bytes of the GGUF file that {@link writeGguf} would write, without reading a weight. */
export function ggufExportBytes(model: Model, type: WritableType): number {
  const { model: packed } = canonicalise(model, "gguf");
  const general = generalEntries(packed, type, undefined);
  const entries = [...general, ...configToGguf(packed.config).entries, ...vocabularyEntries(packed).entries];
  return ggufFileBytes(entries, ggufPlans(packed, type));
}

function generalEntries({ config, sidecars }: Model, type: WritableType, name = sidecars.name): GgufEntries {
  const text = (value: string): GgufEntry => ({ type: "string", value });
  const { architecture } = configToGguf(config);
  const entries: [string, GgufEntry][] = [
    ["general.architecture", text(architecture)],
    ["general.type", text("model")],
    ["general.name", text(name)],
    ["general.file_type", { type: "u32", value: fileTypeNumbers[type.toUpperCase() as Uppercase<WritableType>] }],
    ["general.quantization_version", { type: "u32", value: 2 }],
  ];
  if (sidecars.licence !== undefined) entries.push(["general.license", text(sidecars.licence)]);
  entries.push(...baseModelEntries(sidecars.parent));
  for (const { name: file, bytes } of sidecars.legal) {
    entries.push([legalKeyPrefix + file, text(new TextDecoder().decode(bytes))]);
  }
  return entries;
}

function baseModelEntries(parent: string | undefined): [string, GgufEntry][] {
  if (parent === undefined) return [];
  const text = (value: string): GgufEntry => ({ type: "string", value });
  const [, organisation, name] = /^([^/]+)\/([^/]+)$/.exec(parent) ?? [];
  const count: [string, GgufEntry] = [baseModelKeys.count, { type: "u32", value: 1 }];
  if (organisation === undefined) return [count, [baseModelKeys.name, text(parent)]];
  return [
    count,
    [baseModelKeys.name, text(name!)],
    [baseModelKeys.organisation, text(organisation)],
    [baseModelKeys.repository, text(`https://huggingface.co/${parent}`)],
  ];
}

function vocabularyEntries({ config, sidecars, path }: Model): { entries: GgufEntries; notices: string[] } {
  const { tokenizer, chatTemplate } = sidecars;
  if (!tokenizer) {
    throw new EspalierError({
      where: path || "model",
      expected: "a tokenizer (tokenizer.json, or the vocabulary of a GGUF file)",
      found: "none",
      fix: "llama.cpp cannot load a GGUF without one; put tokenizer.json beside the weights",
    });
  }
  const { vocabSize } = config;
  const options = { vocabSize, ...(chatTemplate !== undefined && { chatTemplate }), where: path };
  const { metadata, notices } = toGgufVocabulary(tokenizer, options);
  const entries = Object.entries(metadata).map(([key, value]) => [key, toEntry(value)] as const);
  return { entries: [...entries, ...endOfTurnEntry(config, metadata)], notices };
}

/** A second end token goes under the key for ends of turns; GGUF has no list. */
function endOfTurnEntry(config: ModelConfig, metadata: Readonly<Record<string, unknown>>): GgufEntries {
  const key = "tokenizer.ggml.eot_token_id";
  const more = config.eosTokenIds.filter((id) => id !== metadata["tokenizer.ggml.eos_token_id"]);
  if (key in metadata || more.length === 0) return [];
  return [[key, { type: "u32", value: more[0]! }]];
}

/** Types of `tokenizer.*` values in a file follow from the values: ids are u32, lists are what their arrays are. */
function toEntry(value: unknown): GgufEntry {
  if (typeof value === "string") return { type: "string", value };
  if (typeof value === "boolean") return { type: "bool", value };
  if (typeof value === "number")
    return Number.isInteger(value) && value >= 0 ? { type: "u32", value } : { type: "f32", value };
  if (typeof value === "bigint") return { type: "i64", value };
  if (value instanceof Float32Array) return { type: "array", of: "f32", value };
  if (value instanceof Int32Array) return { type: "array", of: "i32", value };
  if (value instanceof Uint32Array) return { type: "array", of: "u32", value };
  if (value instanceof Uint8Array) return { type: "array", of: "u8", value };
  if (Array.isArray(value) && value.every((item): item is string => typeof item === "string")) {
    return { type: "array", of: "string", value };
  }
  throw new EspalierError({
    where: "tokenizer metadata",
    expected: "text, numbers or lists of them",
    found: typeof value,
  });
}

/** Tensors of a packed model in file order: embedding, rotary factors, blocks, norm, head. */
function ggufPlans({ config, weights }: Model, wanted: WritableType): GgufTensorPlan[] {
  const plans = modelWeights(config).map(({ name, shape }): GgufTensorPlan => {
    const stored = ggufName(name);
    if (stored === undefined) throw new EspalierError({ where: name, expected: "a weight that GGUF has a name for" });
    const heads = rotaryHeads(config, name);
    return {
      name: stored,
      shape,
      type: resolveTensorType(wanted, shape),
      async read() {
        const values = (await weights.read(name)).data as Float32Array;
        return heads > 0 ? halvesToPairs(values, heads, config.headDim) : values;
      },
      ...(heads === 0 && rowsOf(weights, name)),
    };
  });
  if (config.rope.scaling?.type === "llama3") plans.splice(1, 0, rotaryFactorPlan(config));
  return plans;
}

/** Lets a writer take some rows at a time. */
function rowsOf(weights: WeightSource, name: string): Pick<TensorPlan, "readRows"> {
  return { readRows: async (from, to) => (await readWeightRows(weights, name, from, to)).data };
}

function rotaryFactorPlan({ rope, headDim }: ModelConfig): GgufTensorPlan {
  return {
    name: "rope_freqs.weight",
    shape: [headDim / 2],
    type: "f32",
    read: async () => ropeDivisors(rope, headDim),
  };
}

function fallbackNotes(plans: readonly GgufTensorPlan[], wanted: WritableType): string[] {
  const fallen = plans.filter(({ type, shape }) => shape.length > 1 && type !== wanted);
  if (fallen.length === 0) return [];
  const names = fallen.slice(0, 3).map(({ name }) => name);
  const rest = fallen.length > 3 ? ` and ${fallen.length - 3} more` : "";
  return [`rows that do not fill blocks of 32 are f16 instead of ${wanted}: ${names.join(", ")}${rest}`];
}

interface Watching {
  onEvent: OnEvent | undefined;
  signal: AbortSignal | undefined;
}

/** The same plans, saying how far the writing is and stopping where it is told to. */
function watched<Plan extends TensorPlan>(
  plans: readonly Plan[],
  { onEvent = ignoreEvents, signal }: Watching,
): Plan[] {
  return plans.map((plan, index) => {
    const begin = () => {
      const done = index + 1;
      // Twenty events for a file, whatever number of tensors it has.
      const news = Math.floor((20 * done) / plans.length) > Math.floor((20 * index) / plans.length);
      if (news) onEvent({ event: "progress", stage: "write", done, total: plans.length, unit: "tensors" });
    };
    const { readRows } = plan;
    return {
      ...plan,
      async read() {
        signal?.throwIfAborted();
        begin();
        return plan.read();
      },
      ...(readRows && {
        async readRows(from: number, to: number) {
          signal?.throwIfAborted();
          if (from === 0) begin();
          return readRows(from, to);
        },
      }),
    };
  });
}

/**
 * Writes a Hugging Face directory: plain Llama (or Qwen2) where the blocks are alike, DeciLM where they are not, with
 * tokenizer, special tokens, chat template, generation config, licence and notice files.
 */
export async function writeHub(model: Model, directory: string, options: HubOptions = {}): Promise<SavedModel> {
  const { type = "f32", overwrite = false } = options;
  if (!overwrite) await checkFree(directory);
  const { model: packed, notes } = canonicalise(options.head ? bodyOf(model) : model, "hf");
  // The directory takes its name when all is in it, so that a half-written model is never taken for a whole one.
  const temporary = temporaryName(directory);
  try {
    await rm(temporary, { recursive: true, force: true });
    await mkdir(temporary, { recursive: true });
    await writeHubFiles(packed, temporary, { ...options, type });
    if (overwrite) await rm(directory, { recursive: true, force: true });
    await rename(temporary, directory);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => {});
    throw options.signal?.aborted ? error : fileError(directory, error);
  }
  const bytes = await directoryBytes(directory);
  return { path: directory, format: "hf", type, bytes, config: packed.config, notes };
}

async function writeHubFiles(
  { config, weights, sidecars, path }: Model,
  directory: string,
  { type, card, maxShardBytes, head, onEvent, signal }: HubOptions & { type: FloatType },
): Promise<void> {
  const body = modelWeights(config).map(
    ({ name, shape }): TensorPlan => ({
      name,
      shape,
      read: async () => (await weights.read(name)).data as Float32Array,
      ...rowsOf(weights, name),
    }),
  );
  const plans = head ? [...body, ...rewardHeadPlans(head)] : body;
  await writeShardedSafetensors(directory, watched(plans, { onEvent, signal }), {
    type,
    ...(maxShardBytes !== undefined && { maxShardBytes }),
  });
  const hub = configToHub(config, type);
  await writeJsonAtomic(join(directory, "config.json"), head ? rewardConfigToHub(hub, head) : hub);
  const { tokenizer, chatTemplate } = sidecars;
  if (tokenizer) {
    const options = {
      ...(chatTemplate !== undefined && { chatTemplate }),
      maxLength: config.maxPositions,
      where: path,
    };
    const files = toTokenizerFiles(tokenizer, options);
    await writeJsonAtomic(join(directory, "tokenizer.json"), files.tokenizer);
    await writeJsonAtomic(join(directory, "tokenizer_config.json"), files.config);
    await writeJsonAtomic(join(directory, "special_tokens_map.json"), files.specialTokens);
  }
  if (chatTemplate !== undefined) await writeFileAtomic(join(directory, "chat_template.jinja"), chatTemplate);
  await writeJsonAtomic(
    join(directory, "generation_config.json"),
    sidecars.generationConfig ?? generationConfig(config),
  );
  for (const { name, bytes } of sidecars.legal) await writeFileAtomic(join(directory, name), bytes);
  if (card !== undefined) await writeFileAtomic(join(directory, "README.md"), card);
  // A child's card is about what changed; where the parent came from and what it learned stays in its own.
  const parentCard = sidecars.card !== card ? sidecars.card : undefined;
  if (parentCard !== undefined) await writeFileAtomic(join(directory, "PARENT_README.md"), parentCard);
}

/** What a model without generation_config.json (a GGUF file) says about its ends. */
function generationConfig({ bosTokenId, eosTokenIds, padTokenId, maxPositions }: ModelConfig): Record<string, unknown> {
  return {
    ...(bosTokenId !== undefined && { bos_token_id: bosTokenId }),
    eos_token_id: eosTokenIds.length > 1 ? eosTokenIds : (eosTokenIds[0] ?? null),
    ...(padTokenId !== undefined && { pad_token_id: padTokenId }),
    max_length: maxPositions,
  };
}

async function directoryBytes(directory: string): Promise<number> {
  const sizes = await Promise.all(
    (await readdir(directory)).map(async (name) => (await stat(join(directory, name))).size),
  );
  return sizes.reduce((a, b) => a + b, 0);
}

/** Writes the Ollama Modelfile of a GGUF beside it, as `NAME.Modelfile`; one that is there may have been edited and stays. */
export async function writeModelfile(
  model: Model,
  ggufPath: string,
  { overwrite = false }: { overwrite?: boolean } = {},
): Promise<{ path: string; kept: boolean }> {
  const path = `${ggufPath.replace(/\.gguf$/, "")}.Modelfile`;
  if (!overwrite && (await fileExists(path))) return { path, kept: true };
  const { chatTemplate, generationConfig, legal } = model.sidecars;
  const text = renderModelfile({
    gguf: basename(ggufPath),
    contextLength: Math.min(model.config.maxPositions, 8192),
    licences: legal.map(({ bytes }) => new TextDecoder().decode(bytes)),
    ...(chatTemplate !== undefined && { chatTemplate }),
    ...(generationConfig && { generationConfig }),
  });
  await writeFileAtomic(path, text);
  return { path, kept: false };
}
