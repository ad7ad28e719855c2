/** @module OpenAI's error object, server-sent events, usage and timings. */
import type { CompletionTimings, TokenLogprob } from "../../llamacpp/index.js";
import type { Dialect } from "../http.js";
import type { HttpProblem } from "../refusal.js";

export const openaiDialect: Dialect = {
  error: errorObject,
  streamError: (problem) => `${serverEvent(errorObject(problem))}data: [DONE]\n\n`,
};

const types: Readonly<Record<number, [type: string, code: string | null]>> = {
  401: ["authentication_error", "invalid_api_key"],
  403: ["permission_error", null],
  404: ["invalid_request_error", "not_found"],
  503: ["server_error", "overloaded"],
  504: ["server_error", "timeout"],
};

function errorObject({ status, message, param }: HttpProblem) {
  const [type, code] = types[status] ?? (status < 500 ? ["invalid_request_error", null] : ["server_error", null]);
  return {
    error: {
      message,
      type,
      param: param ?? null,
      code: status === 404 && param === "model" ? "model_not_found" : code,
    },
  };
}

export const serverEvent = (value: unknown) => `data: ${JSON.stringify(value)}\n\n`;

/** Of one answer, or of several to one prompt. */
export function usageOf(promptTokens: number, timings: readonly CompletionTimings[], thoughtTokens = 0) {
  const completionTokens = timings.reduce((sum, { generatedTokens }) => sum + generatedTokens, 0);
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: Math.max(0, ...timings.map(({ cachedTokens }) => cachedTokens)) },
    completion_tokens_details: { reasoning_tokens: thoughtTokens },
  };
}

/** Milliseconds and tokens a second, by the names of llama.cpp's server, and the time to the first token. */
export function timingsOf(timings: CompletionTimings) {
  const { promptTokens, cachedTokens, promptMs, generatedTokens, generateMs, firstTokenMs, queueMs } = timings;
  const { draftedTokens, acceptedTokens } = timings;
  return {
    cache_n: cachedTokens,
    prompt_n: promptTokens,
    prompt_ms: promptMs,
    prompt_per_second: rate(promptTokens, promptMs),
    predicted_n: generatedTokens,
    predicted_ms: generateMs,
    predicted_per_second: rate(generatedTokens, generateMs),
    queue_ms: queueMs,
    time_to_first_token_ms: firstTokenMs,
    ...(draftedTokens !== undefined && { draft_n: draftedTokens, draft_n_accepted: acceptedTokens }),
  };
}

const rate = (tokens: number, ms: number) => (ms > 0 ? (tokens / ms) * 1000 : 0);

/** A token as chats list it. */
export function chatLogprob({ text, logprob = 0, top = [] }: TokenLogprob) {
  const bytes = (piece: string) => [...Buffer.from(piece)];
  return {
    token: text,
    logprob,
    bytes: bytes(text),
    top_logprobs: top.map((other) => ({ token: other.text, logprob: other.logprob, bytes: bytes(other.text) })),
  };
}
