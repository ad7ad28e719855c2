import type { GraphBuilder, Value } from "../../graph/index.js";
import type { FfnConfig, ModelConfig } from "../config.js";
import type { BlockInputs } from "./block.js";
import { linearLayer, weightOf } from "./block.js";

/** What the feed-forward sub-layer gives besides its addition to the residual stream. */
export interface FfnOutputs {
  /** [rows, H], to be added to the residual stream. */
  update: Value;
  /** Normed input of the projections, [rows, H]. */
  ffnInput: Value;
  /** Input of `down_proj`, [rows, width]; SwiGLU only. */
  ffnHidden?: Value;
}

/** The feed-forward sub-layer with its norm; `undefined` where the block has none. SwiGLU: arXiv:2002.05202, eq. 6. */
export function buildFfn(
  g: GraphBuilder,
  config: ModelConfig,
  ffn: FfnConfig,
  inputs: BlockInputs,
): FfnOutputs | undefined {
  if (ffn.kind === "none") return undefined;
  const ffnInput = g.rmsNorm(inputs.x, weightOf(inputs, "post_attention_layernorm.weight"), config.normEps);
  if (ffn.kind === "linear") {
    return { update: linearLayer(g, inputs, "mlp.linear_mlp", ffnInput), ffnInput };
  }
  const gate = linearLayer(g, inputs, "mlp.gate_proj", ffnInput); // [rows, width]
  const up = linearLayer(g, inputs, "mlp.up_proj", ffnInput); // [rows, width]
  const ffnHidden = g.mul(g.silu(gate), up);
  return { update: linearLayer(g, inputs, "mlp.down_proj", ffnHidden), ffnInput, ffnHidden };
}
