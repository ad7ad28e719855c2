import type { GraphBuilder, Value } from "../graph/index.js";
import type { ModelConfig } from "./config.js";

/** Name of the matrix that turns hidden states into logits: the embedding table when tied. */
export function headWeightName({ tiedEmbeddings }: Pick<ModelConfig, "tiedEmbeddings">): string {
  return tiedEmbeddings ? "model.embed_tokens.weight" : "lm_head.weight";
}

/** Rows of the embedding table: ids [B, T] -> [B * T, H]. */
export function buildEmbedding(g: GraphBuilder, table: Value, ids: Value): Value {
  const rows = ids.shape.reduce((a, b) => a * b, 1);
  return g.embedding(table, g.reshape(ids, [rows]));
}

/** The final norm, [rows, H] -> [rows, H]. */
export function buildFinalNorm(g: GraphBuilder, config: ModelConfig, x: Value, norm: Value): Value {
  return g.rmsNorm(x, norm, config.normEps);
}

export interface HeadWeights {
  /** `model.norm.weight`, [H]. */
  norm: Value;
  /** `lm_head.weight` or the tied embedding, [V, H]. */
  head: Value;
}

/** Final norm and output projection: hidden states [rows, H] -> logits [rows, V]. */
export function buildHead(g: GraphBuilder, config: ModelConfig, x: Value, { norm, head }: HeadWeights): Value {
  return g.linear(buildFinalNorm(g, config, x, norm), head);
}
