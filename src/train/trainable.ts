/** @module Which weights of a model are trained; the others are frozen inputs, for which no gradient is computed. */
import { EspalierError } from "../base/index.js";
import {
  createLora,
  type LoraConfig,
  loraWeights,
  type Model,
  type ModelConfig,
  modelWeights,
} from "../models/index.js";
import type { Tensors } from "../runtime/index.js";
import type { F32Tensor } from "../tensor/index.js";
import { createParameters, loadParameters, type ParameterInfo, type Parameters } from "./parameters.js";

/** All weights, the adapters alone, or those whose names match a pattern (`*` stands for any characters). */
export type Trainable = "all" | "lora" | readonly string[];

export interface TrainableSplit {
  trained: ParameterInfo[];
  frozen: ParameterInfo[];
}

/** @throws EspalierError for a pattern that matches nothing, which would train something else than was meant */
export function splitTrainable(infos: readonly ParameterInfo[], trainable: Trainable): TrainableSplit {
  if (trainable === "all") return { trained: [...infos], frozen: [] };
  const patterns = trainable === "lora" ? ["*.lora_A.weight", "*.lora_B.weight"] : trainable;
  const matchers = patterns.map(matcherOf);
  const names = infos.map(({ name }) => name);
  matchers.forEach((matcher, i) => {
    if (names.some((name) => matcher.test(name))) return;
    const expected = "a pattern that matches weights of the model";
    throw new EspalierError({ where: `trainable ${patterns[i]}`, expected, found: "none of that name", exitCode: 2 });
  });
  const isTrained = ({ name }: ParameterInfo) => matchers.some((matcher) => matcher.test(name));
  return { trained: infos.filter(isTrained), frozen: infos.filter((info) => !isTrained(info)) };
}

function matcherOf(pattern: string): RegExp {
  const parts = pattern.split("*").map((part) => part.replaceAll(/[.\\+?^${}()|[\]]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`);
}

/** Names and shapes of a model's weights, those of its adapter last. */
export function weightInfos(config: ModelConfig, lora?: LoraConfig): ParameterInfo[] {
  return [...modelWeights(config), ...(lora ? loraWeights(config, lora) : [])];
}

export interface TrainableOptions {
  /** An adapter beside the weights, made anew; see `resolveLora`. Defaults to none. */
  lora?: LoraConfig;
  /** Defaults to the adapter where there is one, else to all weights. */
  trainable?: Trainable;
  /** Of the adapter's start. Defaults to 0. */
  seed?: number | string;
  /** Tensors of a head beside the model, by name, copied; they are trained whatever else is. Defaults to none. */
  head?: Readonly<Record<string, F32Tensor>>;
}

export interface TrainableModel {
  /** For `train`. */
  parameters: Parameters;
  /** For `train`'s `frozen`; one block of memory. */
  frozen: Tensors;
}

/** Reads a model's weights into parameters and frozen inputs. */
export async function loadTrainable(model: Model, options: TrainableOptions = {}): Promise<TrainableModel> {
  const { lora, trainable = lora ? "lora" : "all", seed = 0, head = {} } = options;
  const { trained, frozen } = splitTrainable(weightInfos(model.config, lora), trainable);
  const adapters = lora ? createLora(model.config, lora, seed).tensors : {};
  const read = (name: string) => head[name] ?? adapters[name] ?? model.weights.read(name);
  const heads = Object.entries(head).map(([name, { shape }]) => ({ name, shape }));
  const [parameters, rest] = [createParameters([...trained, ...heads]), createParameters(frozen)];
  await loadParameters(parameters, read);
  await loadParameters(rest, read);
  return { parameters, frozen: rest.tensors };
}
