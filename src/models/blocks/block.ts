import { internal } from "../../base/index.js";
import type { GraphBuilder, Value } from "../../graph/index.js";
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
  /** Takes the place of attention within the batch (a kv cache). Gives [batch, heads, length, headDim]. */
  attend?: (heads: HeadsQkv) => Value;
}

export function weightOf({ weights }: BlockInputs, name: string): Value {
  return weights[name] ?? internal(`no weight ${name} among ${Object.keys(weights).join(", ")}`);
}

/** A linear layer with its bias where the weights have one. */
export function linearLayer(g: GraphBuilder, inputs: BlockInputs, name: string, x: Value): Value {
  return g.linear(x, weightOf(inputs, `${name}.weight`), inputs.weights[`${name}.bias`]);
}
