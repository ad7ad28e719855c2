/** @module Fields that /api/chat and /api/generate share. */
import { parseDurationMs, z } from "../../base/index.js";
import type { Grammar, Sampling } from "../../llamacpp/index.js";
import type { ChatRequest } from "../chat-request.js";
import { schemaGrammar } from "../json-schema.js";
import { foldSeed } from "../openai/fields.js";
import { invalid } from "../refusal.js";
import { harmless } from "../schema.js";
import { effortNames, efforts, thinkingField } from "../thinking-field.js";

const optionsSchema = z.strictObject({
  temperature: z.number().min(0).max(10).optional(),
  top_k: z.int().min(0).optional(),
  top_p: z.number().gt(0).max(1).optional(),
  min_p: z.number().min(0).max(1).optional(),
  seed: z.int().optional(),
  num_predict: z.int().min(-2).optional(),
  num_ctx: z.int().min(1).optional(),
  stop: z.union([z.string().min(1), z.array(z.string().min(1)).max(16)]).optional(),
  repeat_penalty: z.number().gt(0).max(10).optional(),
  presence_penalty: z.number().min(-2).max(2).optional(),
  frequency_penalty: z.number().min(-2).max(2).optional(),
  // How a model is loaded is said to `espalier serve`; none of these changes an answer.
  num_batch: harmless,
  num_gpu: harmless,
  main_gpu: harmless,
  num_thread: harmless,
  use_mmap: harmless,
  use_mlock: harmless,
  low_vram: harmless,
  numa: harmless,
});

export const sharedFields = {
  model: z.string(),
  stream: z.boolean().default(true),
  format: z.union([z.literal("json"), z.literal(""), z.record(z.string(), z.unknown())]).optional(),
  options: optionsSchema.optional(),
  think: z.union([z.boolean(), z.enum(effortNames)]).optional(),
  thinking: thinkingField.optional(),
  keep_alive: z.union([z.number(), z.string()]).optional(),
  logprobs: z.boolean().optional(),
  top_logprobs: z.int().min(0).max(20).optional(),
};

const shared = z.object(sharedFields);
export type SharedBody = z.output<typeof shared>;

/** What Ollama documents where a request is silent. */
const ollamaDefaults: Sampling = { temperature: 0.8, topK: 40, topP: 0.9, repeatPenalty: 1.1 };

export function toSampling({ options = {} }: SharedBody): Sampling {
  const { temperature, top_k, top_p, min_p, seed, repeat_penalty, presence_penalty, frequency_penalty } = options;
  return {
    ...(temperature !== undefined && { temperature }),
    ...(top_k !== undefined && { topK: top_k }),
    ...(top_p !== undefined && { topP: top_p }),
    ...(min_p !== undefined && { minP: min_p }),
    ...(seed !== undefined && { seed: foldSeed(seed) }),
    ...(repeat_penalty !== undefined && { repeatPenalty: repeat_penalty }),
    ...(presence_penalty !== undefined && { presencePenalty: presence_penalty }),
    ...(frequency_penalty !== undefined && { frequencyPenalty: frequency_penalty }),
  };
}

/** All of a request but its turns and tools. */
export function sharedRequest(fields: SharedBody) {
  const { options = {}, logprobs, top_logprobs } = fields;
  if (top_logprobs !== undefined && !logprobs) throw invalid("top_logprobs", "logprobs: true beside it", "none");
  if (options.num_predict === 0) throw invalid("options.num_predict", "at least 1, or -1 for no limit", "0");
  const grammar = formatGrammar(fields.format);
  return {
    toolChoice: { kind: "auto" },
    thinking: thinkingOf(fields),
    sampling: toSampling(fields),
    defaults: ollamaDefaults,
    stop: options.stop === undefined ? [] : [options.stop].flat(),
    ...(grammar && { grammar }),
    ...(options.num_predict !== undefined && options.num_predict > 0 && { maxTokens: options.num_predict }),
    ...(logprobs && { logprobs: top_logprobs ?? 0 }),
  } satisfies Partial<ChatRequest>;
}

export function formatGrammar(format: SharedBody["format"]): Grammar | undefined {
  if (format === undefined || format === "") return undefined;
  return format === "json" ? { kind: "json" } : schemaGrammar(format, "format");
}

function thinkingOf({ think, thinking }: SharedBody): ChatRequest["thinking"] {
  if (think !== undefined && thinking !== undefined) throw invalid("think", "only one of think and thinking", "both");
  if (think === undefined) return thinking ?? "auto";
  return typeof think === "string" ? efforts[think] : think ? "on" : "off";
}

/** The context was chosen when the model was loaded: a request may want less of it, not more. */
export function checkContext({ options }: SharedBody, contextSize: number): void {
  const asked = options?.num_ctx;
  if (asked === undefined || asked <= contextSize) return;
  throw invalid("options.num_ctx", `at most ${contextSize}`, String(asked), "serve the model with a larger --context");
}

/** In milliseconds. A number is seconds; what is negative is for ever. */
export function keepAliveMs({ keep_alive }: SharedBody): number | undefined {
  if (keep_alive === undefined) return undefined;
  const ms = parseDurationMs(String(keep_alive));
  if (ms !== undefined) return ms;
  throw invalid("keep_alive", 'a duration such as "5m", or seconds', JSON.stringify(keep_alive));
}
