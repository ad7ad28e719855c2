/** @module A model that is being tuned: what is trained, what is frozen, and the model that they make together. */
import {
  type LoraAdapter,
  type LoraConfig,
  type LoraOptions,
  type Model,
  mergeLora,
  overlayModel,
  resolveLora,
} from "../models/index.js";
import type { Tensors } from "../runtime/index.js";
import type { F32Tensor } from "../tensor/index.js";
import type { Parameters } from "./parameters.js";
import { loadTrainable, type Trainable } from "./trainable.js";

export interface TuningOptions {
  /** Adapters beside frozen weights. Defaults to none: every weight is trained. */
  lora?: LoraOptions;
  /** Patterns of the weights that are trained, in place of all. */
  trainable?: Trainable;
  /** Of the adapter's start. Defaults to 0. */
  seed?: number | string;
  /** Tensors of a head beside the model, by name: trained whatever else is. Defaults to none. */
  head?: Readonly<Record<string, F32Tensor>>;
}

export interface Tuning {
  /** For `train`. */
  parameters: Parameters;
  frozen: Tensors;
  lora: LoraConfig | undefined;
  /** Every weight by name as it is now, views and no copies: for a scorer or a sampler. */
  weights(): Tensors;
  /** What was learnt, where that is an adapter. */
  adapter(): LoraAdapter | undefined;
  /** The model with what was learnt, adapters merged; shares its memory with the parameters. */
  tuned(): Model;
}

/** Reads the model's weights; one block of memory for those that are trained and one for the others. */
export async function openTuning(model: Model, options: TuningOptions = {}): Promise<Tuning> {
  const lora = options.lora && resolveLora(model.config, options.lora);
  const { parameters, frozen } = await loadTrainable(model, {
    ...(lora && { lora }),
    ...(options.trainable && { trainable: options.trainable }),
    ...(options.seed !== undefined && { seed: options.seed }),
    ...(options.head && { head: options.head }),
  });
  const { head = {} } = options;
  const learnt = Object.fromEntries(Object.entries(parameters.tensors).filter(([name]) => !(name in head)));
  const adapter = () => lora && { ...lora, tensors: learnt };
  return {
    parameters,
    frozen,
    lora,
    weights: () => ({ ...frozen, ...parameters.tensors }),
    adapter,
    tuned() {
      const own = adapter();
      if (own) return mergeLora(model, own);
      return overlayModel(model, model.config, new Map(Object.entries(learnt)));
    },
  };
}
