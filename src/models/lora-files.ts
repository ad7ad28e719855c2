/**
 * @module Adapters on disk: PEFT's directory (`adapter_config.json`, `adapter_model.safetensors`), which transformers,
 * vLLM and others load, and llama.cpp's GGUF adapter (`--lora`).
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { checkSchema, EspalierError, readJson, writeJsonAtomic, z } from "../base/index.js";
import {
  type FloatType,
  type GgufEntries,
  type GgufEntry,
  type GgufTensorPlan,
  openSafetensorsFile,
  type TensorFile,
  type TensorPlan,
  writeGgufFile,
  writeSafetensors,
} from "../formats/index.js";
import { f32Tensor } from "../tensor/index.js";
import { canonicalise } from "./canonical.js";
import { describeBlock, type Model, type ModelConfig } from "./config.js";
import { configToGguf, ggufName, halvesToPairs, rotaryHeads } from "./families/index.js";
import { checkAdapter, type LoraAdapter, loraNames, loraWeights, resolveLora } from "./lora.js";
import { checkFinite } from "./weights.js";

const configFile = "adapter_config.json";
const tensorFile = "adapter_model.safetensors";
const peftPrefix = "base_model.model.";

export interface PeftOptions {
  /** Type of the matrices in the file. Defaults to f32. */
  type?: FloatType;
  /** Hub name or path of the model that the adapter belongs to. */
  baseModel?: string;
}

/** Writes PEFT's directory; files of that name are replaced. */
export async function writePeft(adapter: LoraAdapter, directory: string, options: PeftOptions = {}): Promise<void> {
  const { type = "f32", baseModel } = options;
  await mkdir(directory, { recursive: true });
  const plans = Object.entries(adapter.tensors).map(
    ([name, { shape, data }]): TensorPlan => ({ name: peftPrefix + name, shape, read: async () => data }),
  );
  await writeSafetensors(join(directory, tensorFile), plans, { type });
  await writeJsonAtomic(join(directory, configFile), {
    peft_type: "LORA",
    task_type: "CAUSAL_LM",
    base_model_name_or_path: baseModel ?? null,
    r: adapter.rank,
    lora_alpha: adapter.alpha,
    target_modules: adapter.targets,
    lora_dropout: 0,
    bias: "none",
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    modules_to_save: null,
  });
}

const peftSchema = z.object({
  peft_type: z.literal("LORA"),
  r: z.number().int().positive(),
  lora_alpha: z.number().positive(),
  use_rslora: z.boolean().optional(),
  use_dora: z.literal(false).optional(),
  bias: z.literal("none").optional(),
  fan_in_fan_out: z.literal(false).optional(),
  rank_pattern: z.object({}).strict().nullish(),
  alpha_pattern: z.object({}).strict().nullish(),
  modules_to_save: z.array(z.string()).length(0).nullish(),
});

/**
 * Reads PEFT's directory. What is adapted follows from the names of the matrices; rank-stabilised scaling
 * (`use_rslora`, alpha / sqrt r) is taken over into alpha.
 *
 * @throws EspalierError where the adapter does not fit the model, or needs more than plain LoRA (DoRA, biases, ranks by layer)
 */
export async function readPeft(directory: string, config: ModelConfig): Promise<LoraAdapter> {
  const path = join(directory, configFile);
  const stated = checkSchema(peftSchema, await readJson(path), path);
  const alpha = stated.use_rslora ? stated.lora_alpha * Math.sqrt(stated.r) : stated.lora_alpha;
  const file = await openSafetensorsFile(join(directory, tensorFile));
  try {
    const targets = adaptedLayers(file, directory);
    const lora = resolveLora(config, { rank: stated.r, alpha, targets });
    const entries: [string, LoraAdapter["tensors"][string]][] = [];
    for (const stored of file.names) {
      const values = await file.read(stored);
      checkFinite(values, `${directory} tensor ${stored}`);
      entries.push([stored.slice(peftPrefix.length), f32Tensor(file.info(stored)!.shape, values)]);
    }
    const adapter = { ...lora, tensors: Object.fromEntries(entries) };
    checkAdapter(config, adapter, directory);
    return adapter;
  } finally {
    await file.close();
  }
}

function adaptedLayers(file: TensorFile, where: string): string[] {
  const found = new Set<string>();
  for (const name of file.names) {
    const target = /^base_model\.model\.model\.layers\.\d+\..*?([^.]+)\.lora_[AB]\.weight$/.exec(name)?.[1];
    const expected = `tensors named ${peftPrefix}model.layers.N....lora_A.weight`;
    if (target === undefined) throw new EspalierError({ where, expected, found: name });
    found.add(target);
  }
  return [...found];
}

/** Writes an adapter that llama.cpp loads beside the GGUF of `model` (`llama-cli --lora`). Equal adapters give equal bytes. */
export async function writeGgufAdapter(model: Model, adapter: LoraAdapter, path: string): Promise<void> {
  const { config } = model;
  checkAdapter(config, adapter, "LoRA adapter");
  requireSameLayers(model, path);
  const text = (value: string): GgufEntry => ({ type: "string", value });
  const entries: GgufEntries = [
    ["general.architecture", text(configToGguf(config).architecture)],
    ["general.type", text("adapter")],
    ["general.name", text(`${model.sidecars.name} LoRA`)],
    ["adapter.type", text("lora")],
    ["adapter.lora.alpha", { type: "f32", value: adapter.alpha }],
  ];
  await writeGgufFile(path, entries, ggufPlans(config, adapter));
}

function ggufPlans(config: ModelConfig, adapter: LoraAdapter): GgufTensorPlan[] {
  return loraWeights(config, adapter).map(({ name, shape }) => {
    const layer = name.replace(/\.lora_[AB]\.weight$/, "");
    const { data } = adapter.tensors[name]!;
    const first = name === loraNames(layer).a;
    // B's rows are those of the layer's output, which llama.cpp's rotary embedding wants in pairs.
    const heads = first ? 0 : rotaryHeads(config, `${layer}.weight`);
    return {
      name: `${ggufName(`${layer}.weight`)}.lora_${first ? "a" : "b"}`,
      shape,
      type: "f32",
      read: async () => (heads > 0 ? halvesToPairs(data, heads, config.headDim) : data),
    };
  });
}

/** The GGUF of a model whose blocks must be packed anew numbers its layers otherwise. */
function requireSameLayers(model: Model, where: string): void {
  const packed = canonicalise(model, "gguf").model.config.blocks.map(describeBlock).join();
  if (packed === model.config.blocks.map(describeBlock).join()) return;
  throw new EspalierError({
    where,
    expected: "a model whose blocks llama.cpp holds as they are",
    found: "blocks that the GGUF file packs anew",
    fix: "merge the adapter (mergeLora) and write the merged model",
  });
}
