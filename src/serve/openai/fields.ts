/** @module Fields that several OpenAI endpoints share. */
import { z } from "../../base/index.js";
import type { Grammar, Sampling } from "../../llamacpp/index.js";
import { schemaGrammar } from "../json-schema.js";
import { invalid } from "../refusal.js";
import { harmless } from "../schema.js";
import type { Tool, ToolChoice } from "../tools.js";

export const samplingFields = {
  temperature: z.number().min(0).max(2).optional(),
  top_p: z.number().gt(0).max(1).optional(),
  top_k: z.int().min(0).optional(),
  min_p: z.number().min(0).max(1).optional(),
  seed: z
    .int()
    .min(-(2 ** 53))
    .max(2 ** 53)
    .optional(),
  frequency_penalty: z.number().min(-2).max(2).optional(),
  presence_penalty: z.number().min(-2).max(2).optional(),
  repeat_penalty: z.number().gt(0).max(10).optional(),
  logit_bias: z
    .record(z.string().regex(/^\d{1,9}$/, "token ids are whole numbers"), z.number().min(-100).max(100))
    .optional(),
};

/** They say who asks, or how a hosted service keeps, caches and bills requests. */
export const harmlessFields = {
  user: harmless,
  metadata: harmless,
  store: harmless,
  service_tier: harmless,
  safety_identifier: harmless,
  prompt_cache_key: harmless,
  prompt_cache_retention: harmless,
};

export const stopField = z
  .union([z.string().min(1), z.array(z.string().min(1)).max(16)])
  .transform((value) => (typeof value === "string" ? [value] : value))
  .optional();

export const streamFields = {
  stream: z.boolean().optional(),
  stream_options: z
    .strictObject({ include_usage: z.boolean().optional(), include_obfuscation: z.literal(false).optional() })
    .optional(),
};

const samplingSchema = z.object(samplingFields);

export function toSampling(fields: z.output<typeof samplingSchema>): Sampling {
  const { temperature, top_p, top_k, min_p, seed, frequency_penalty, presence_penalty, repeat_penalty, logit_bias } =
    fields;
  return {
    ...(temperature !== undefined && { temperature }),
    ...(top_p !== undefined && { topP: top_p }),
    ...(top_k !== undefined && { topK: top_k }),
    ...(min_p !== undefined && { minP: min_p }),
    ...(seed !== undefined && { seed: foldSeed(seed) }),
    ...(frequency_penalty !== undefined && { frequencyPenalty: frequency_penalty }),
    ...(presence_penalty !== undefined && { presencePenalty: presence_penalty }),
    ...(repeat_penalty !== undefined && { repeatPenalty: repeat_penalty }),
    ...(logit_bias !== undefined && { logitBias: logit_bias }),
  };
}

/** llama.cpp's seeds have 32 bits. */
export function foldSeed(seed: number): number {
  return Math.abs(seed) % 2 ** 32;
}

/** What OpenAI documents where a request is silent. */
export const openaiDefaults: Sampling = { temperature: 1 };

export const functionFields = {
  name: z.string().regex(/^[A-Za-z0-9_.-]{1,64}$/, "letters, digits, _, . and -, at most 64"),
  description: z.string().optional(),
  parameters: z.record(z.string(), z.unknown()).optional(),
  strict: z.boolean().nullish(),
};

export const toolsField = z
  .array(z.strictObject({ type: z.literal("function"), function: z.strictObject(functionFields) }))
  .transform((tools): Tool[] => tools.map((tool) => toTool(tool.function)))
  .optional();

export function toTool({ name, description, parameters }: z.output<z.ZodObject<typeof functionFields>>): Tool {
  const none = { type: "object", properties: {} };
  return { name, ...(description !== undefined && { description }), parameters: parameters ?? none };
}

export const toolChoiceField = z
  .union([
    z.enum(["auto", "none", "required"]),
    z.strictObject({ type: z.literal("function"), function: z.strictObject({ name: z.string() }) }),
    z.strictObject({ type: z.literal("function"), name: z.string() }),
  ])
  .transform((value): ToolChoice => {
    if (typeof value === "string") return { kind: value };
    return { kind: "named", name: "function" in value ? value.function.name : value.name };
  })
  .optional();

const named = { name: z.string().optional(), description: z.string().optional(), strict: z.boolean().nullish() };

export const responseFormatField = z
  .discriminatedUnion("type", [
    z.strictObject({ type: z.literal("text") }),
    z.strictObject({ type: z.literal("json_object") }),
    z.strictObject({ type: z.literal("json_schema"), json_schema: z.strictObject({ ...named, schema: z.unknown() }) }),
  ])
  .optional();

export function formatGrammar(format: z.output<typeof responseFormatField>): Grammar | undefined {
  if (!format || format.type === "text") return undefined;
  if (format.type === "json_object") return { kind: "json" };
  return schemaGrammar(format.json_schema.schema, "response_format.json_schema.schema");
}

export function onlyOne(
  first: [name: string, value: number | undefined],
  second: [name: string, value: number | undefined],
): number | undefined {
  if (first[1] !== undefined && second[1] !== undefined && first[1] !== second[1]) {
    throw invalid(second[0], `only one of ${first[0]} and ${second[0]}`, "both");
  }
  return first[1] ?? second[1];
}
