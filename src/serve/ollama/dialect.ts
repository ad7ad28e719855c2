/** @module Ollama's errors, lines and durations. */
import type { CompletionTimings } from "../../llamacpp/index.js";
import type { Dialect } from "../http.js";
import { timingsOf } from "../openai/dialect.js";

export const ollamaDialect: Dialect = {
  error: ({ message }) => ({ error: message }),
  streamError: ({ message }) => line({ error: message }),
};

export const line = (value: unknown) => `${JSON.stringify(value)}\n`;

const nanoseconds = (ms: number) => Math.round(ms * 1e6);

/** `promptTokens` counts those that the cache held too, as Ollama does. */
export function durations(
  timings: CompletionTimings,
  { promptTokens, beganMs }: { promptTokens: number; beganMs: number },
) {
  const totalMs = performance.now() - beganMs;
  const { promptMs, generateMs, queueMs } = timings;
  return {
    total_duration: nanoseconds(totalMs),
    load_duration: nanoseconds(Math.max(0, totalMs - promptMs - generateMs - queueMs)),
    prompt_eval_count: promptTokens,
    prompt_eval_duration: nanoseconds(promptMs),
    eval_count: timings.generatedTokens,
    eval_duration: nanoseconds(generateMs),
    timings: timingsOf(timings),
  };
}
