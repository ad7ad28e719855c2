import { internal } from "../../base/index.js";
import type { GraphBuilder, Value } from "../../graph/index.js";
import { int8LayerOf, int8Product } from "../int8.js";
import { loraNames } from "../lora.js";
import type { HeadsQkv } from "./attention.js";

/** Graph values of a block's weights by short name, such as `self_attn.q_proj.weight`. */
export type WeightValues = Readonly<Record<string, Value>>;

export interface BlockInputs {
  /** Residual stream, [batch * length, H]; rows of one sequence are neighbours. */
  x: Value;
  weights: WeightValues;
  batch: number;
  length: number;
  /** Rotary tables, [batch, length, headDim / 2], batch 1 for all sequences alike; for grouped-query attention only. */
  cos?: Value;
  sin?: Value;
  /** Added to the scores in place of the causal mask, [batch, length, length]: see `buildPackedMask`. Defaults to causal. */
  mask?: Value;
  /** Alpha of adapters among the weights (`NAME.lora_A.weight`): what they add is scaled by alpha over their rank. */
  loraAlpha?: number;
  /** Takes the place of attention within the batch (a kv cache). Gives [batch, heads, length, headDim]. */
  attend?: (heads: HeadsQkv) => Value;
}

export function weightOf({ weights }: BlockInputs, name: string): Value {
  return weights[name] ?? internal(`no weight ${name} among ${Object.keys(weights).join(", ")}`);
}

/** A linear layer, in 8 bits, with its bias and its adapter, where the weights have them. */
export function linearLayer(g: GraphBuilder, inputs: BlockInputs, name: string, x: Value): Value {
  const plain = frozenLayer(g, inputs, name, x);
  const { a, b } = loraNames(name);
  if (!inputs.weights[a]) return plain;
  const { loraAlpha = internal(`${a} without an alpha`) } = inputs;
  const low = g.linear(x, inputs.weights[a]); // [rows, rank]
  return g.gemm(low, weightOf(inputs, b), plain, { transposeB: true, alpha: loraAlpha / low.shape[1]! });
}

function frozenLayer(g: GraphBuilder, inputs: BlockInputs, name: string, x: Value): Value {
  const [int8, bias] = [int8LayerOf(inputs.weights, name), inputs.weights[`${name}.bias`]];
  if (!int8) return g.linear(x, weightOf(inputs, `${name}.weight`), bias);
  const product = int8Product(g, int8, x);
  return bias ? g.add(product, bias) : product;
}
