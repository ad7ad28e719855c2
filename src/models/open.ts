/** @module From a path to a model: Hugging Face directories and GGUF files look alike from here on. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { EspalierError, fileError, fileExists, readJson } from "../base/index.js";
import { openGgufFile, openSafetensorsFile, openShardedSafetensors, type TensorFile } from "../formats/index.js";
import type { Model, ModelConfig } from "./config.js";
import { configFromGguf, configFromHub } from "./families/index.js";
import {
  isRewardConfig,
  type RewardModel,
  readRewardHead,
  rewardConfigFromHub,
  rewardHeadNames,
} from "./reward-head.js";
import { readGgufSidecars, readHubSidecars } from "./sidecars.js";
import { createGgufWeights, createHubWeights } from "./weights.js";

/**
 * Opens a Hugging Face directory (`config.json` and safetensors) or a `.gguf` file. Reads configuration, headers and
 * sidecars; weights are read when asked for. Names and shapes of all weights are checked here, values when read.
 */
export async function openModel(path: string): Promise<Model> {
  const info = await stat(path).catch((cause) => {
    throw fileError(path, cause);
  });
  return info.isDirectory() ? openHub(path) : openGgufModel(path);
}

async function openHub(directory: string): Promise<Model> {
  const configPath = join(directory, "config.json");
  if (!(await fileExists(configPath))) return refuseDirectory(directory, "config.json");
  const json = await readJson(configPath);
  if (isRewardConfig(json)) throw rewardModelFound(configPath);
  return (await openHubFiles(directory, json)).model;
}

/**
 * Opens a reward model: a Hugging Face directory of `LlamaForSequenceClassification` or another of the family. The head is
 * read at once; closing `body` closes the files.
 */
export async function openRewardModel(path: string): Promise<RewardModel> {
  const configPath = join(path, "config.json");
  if (!(await fileExists(configPath))) {
    const expected = "the directory of a reward model, with its config.json";
    throw new EspalierError({ where: path, expected, found: "none", exitCode: 2 });
  }
  const { body: json, ...head } = rewardConfigFromHub(await readJson(configPath), configPath);
  const ofHead: readonly string[] = Object.values(rewardHeadNames);
  const { model, file } = await openHubFiles(path, json, (name) => ofHead.includes(name));
  try {
    return { body: model, head: await readRewardHead(file, head, model.config.hiddenSize, path) };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** @param isOther names of tensors that belong to something beside the language model */
async function openHubFiles(directory: string, json: unknown, isOther: (name: string) => boolean = () => false) {
  const { config, notices } = configFromHub(json, join(directory, "config.json"));
  const sidecars = await readHubSidecars(directory);
  const complete = withEndTokens(config, sidecars.generationConfig);
  const file = await openHubTensors(directory);
  try {
    const weights = createHubWeights(file, complete, directory, isOther);
    const close = () => file.close();
    const model: Model = { path: directory, format: "hf", config: complete, weights, sidecars, notices, close };
    return { model, file };
  } catch (error) {
    await file.close();
    throw error;
  }
}

function rewardModelFound(where: string): EspalierError {
  return new EspalierError({
    where,
    expected: "a language model",
    found: "a reward model, which judges answers and writes none",
    fix: "name it where a reward model is asked for (reward, init, models)",
    exitCode: 2,
  });
}

async function openHubTensors(directory: string): Promise<TensorFile> {
  const single = join(directory, "model.safetensors");
  if (await fileExists(single)) return openSafetensorsFile(single);
  const index = join(directory, "model.safetensors.index.json");
  if (await fileExists(index)) return openShardedSafetensors(index);
  return refuseDirectory(directory, "model.safetensors or model.safetensors.index.json");
}

async function refuseDirectory(directory: string, expected: string): Promise<never> {
  const names = await readdir(directory);
  const gguf = names.filter((name) => name.endsWith(".gguf"));
  const pickled = names.some((name) => /^pytorch_model.*\.bin$/.test(name));
  const fix =
    gguf.length > 0 ? `name the file: ${join(directory, gguf[0]!)}` : "name a model directory or a .gguf file";
  throw new EspalierError({
    where: directory,
    expected,
    found: pickled ? "PyTorch files" : names.length === 0 ? "an empty directory" : "neither",
    fix: pickled ? "convert them to safetensors" : fix,
    exitCode: 2,
  });
}

/** A model may end a text with more tokens than config.json says: generation_config.json lists them. */
function withEndTokens(config: ModelConfig, generation: Record<string, unknown> | undefined): ModelConfig {
  const more = [generation?.eos_token_id ?? []]
    .flat()
    .filter((id): id is number => Number.isInteger(id) && (id as number) >= 0);
  return { ...config, eosTokenIds: [...new Set([...config.eosTokenIds, ...more])] };
}

async function openGgufModel(path: string): Promise<Model> {
  const file = await openGgufFile(path);
  try {
    const config = await configFromGguf(file, path);
    const weights = createGgufWeights(file, config, path);
    const sidecars = readGgufSidecars(file.metadata, path);
    return { path, format: "gguf", config, weights, sidecars, notices: [], close: () => file.close() };
  } catch (error) {
    await file.close();
    throw error;
  }
}
