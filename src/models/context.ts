/** @module A longer context by another rotary embedding. */
import { EspalierError } from "../base/index.js";
import type { ModelConfig, RopeConfig } from "./config.js";

/**
 * `linear`: position interpolation (arXiv:2306.15595). `llama3`: the bands of Llama 3.1, low 1 and high 4 waves. `theta`: a
 * larger base, theta factor^(D / (D - 2)) for heads of width D, which stretches the slowest wave by the factor and leaves the
 * fastest ("NTK-aware").
 */
export type RopeExtension = "linear" | "llama3" | "theta";

export interface ContextOptions {
  rope: RopeExtension;
  /** Longest context afterwards, in tokens. */
  context: number;
  /** Waves are stretched by it. Defaults to the ratio of the contexts. */
  factor?: number;
}

/** @throws EspalierError for a context that is no longer one, and for a model whose rotary embedding is scaled already */
export function extendContext(config: ModelConfig, { rope, context, factor }: ContextOptions): ModelConfig {
  const { maxPositions } = config;
  if (context <= maxPositions) {
    const expected = `more than the ${maxPositions} tokens that the model has`;
    throw new EspalierError({ where: "context", expected, found: String(context), exitCode: 2 });
  }
  if (config.rope.scaling && rope !== "theta") {
    const found = `a model with ${config.rope.scaling.type} scaling`;
    throw new EspalierError({
      where: "rope",
      expected: "a rotary embedding without scaling",
      found,
      fix: "use theta, which is independent of it",
      exitCode: 2,
    });
  }
  return { ...config, maxPositions: context, rope: extendRope(config, rope, factor ?? context / maxPositions) };
}

function extendRope({ rope, headDim, maxPositions }: ModelConfig, kind: RopeExtension, factor: number): RopeConfig {
  switch (kind) {
    case "linear":
      return { ...rope, scaling: { type: "linear", factor } };
    case "llama3": {
      const bands = { lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: maxPositions };
      return { ...rope, scaling: { type: "llama3", factor, ...bands } };
    }
    case "theta":
      return { ...rope, theta: rope.theta * factor ** (headDim / (headDim - 2)) };
  }
}
