/** @module Requests' sampling as llama.cpp's sampler takes it. */
import type { Sampling } from "../inference.js";
import type { SamplerConfig } from "../native-context.js";

/**
 * The chain of a request. Penalties count the tokens of the answer, all of them, and not those of the prompt.
 *
 * @param mostTokens How many the answer may have.
 */
export function samplerConfigOf(sampling: Sampling, mostTokens: number, grammar?: unknown): SamplerConfig {
  const { temperature = 0, topP = 1, topK = 0, minP = 0, seed = randomSeed() } = sampling;
  return {
    temperature,
    seed,
    // Left out where they let everything through: llama.cpp would sort the vocabulary for nothing.
    ...(topK > 0 && { topK }),
    ...(topP < 1 && { topP }),
    ...(minP > 0 && { minP }),
    ...penaltiesOf(sampling, mostTokens),
    ...biasOf(sampling.logitBias ?? {}),
    ...(grammar !== undefined && { grammarEvaluationState: grammar }),
  };
}

function penaltiesOf(
  { repeatPenalty = 1, frequencyPenalty = 0, presencePenalty = 0 }: Sampling,
  mostTokens: number,
): Partial<SamplerConfig> {
  if (repeatPenalty === 1 && frequencyPenalty === 0 && presencePenalty === 0) return {};
  return {
    repeatPenaltyTokens: new Uint32Array(0),
    repeatPenaltyMaxTokens: Math.max(1, mostTokens),
    repeatPenalty,
    repeatPenaltyFrequencyPenalty: frequencyPenalty,
    repeatPenaltyPresencePenalty: presencePenalty,
  };
}

function biasOf(bias: Readonly<Record<number, number>>): Partial<SamplerConfig> {
  const entries = Object.entries(bias);
  if (entries.length === 0) return {};
  return {
    tokenBiasKeys: Uint32Array.from(entries, ([id]) => Number(id)),
    tokenBiasValues: Float32Array.from(entries, ([, value]) => value),
  };
}

function randomSeed(): number {
  return Math.floor(Math.random() * 2 ** 32);
}
