/** @module What rows look like: a row is told by its fields, and one of no known form is an error that lists them all. */
import { EspalierError, z } from "../base/index.js";
import type { Message } from "./types.js";

export type Fields = Readonly<Record<string, unknown>>;

export interface Form<T> {
  /** Whether a row is of this form; the first that says so reads it. */
  fits: (fields: Fields) => boolean;
  /** What it looks like, for messages. */
  shape: string;
  parse: (fields: Fields, where: string) => T;
}

/** @param what Such as "a conversation", for messages. */
export function parseByForm<T>(forms: readonly Form<T>[], what: string, value: unknown, where: string): T {
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
  const form = isObject ? forms.find(({ fits }) => fits(value as Fields)) : undefined;
  if (form) return form.parse(value as Fields, where);
  const found = isObject ? `the fields ${Object.keys(value as Fields).join(", ") || "(none)"}` : typeof value;
  throw rowProblem(where, `${what}, one of ${forms.map(({ shape }) => shape).join(" or ")}`, found);
}

export function rowProblem(where: string, expected: string, found: string, fix?: string): EspalierError {
  return new EspalierError({ where, expected, found, ...(fix !== undefined && { fix }), exitCode: 2 });
}

/** Text with something in it. */
export function requireText(value: unknown, where: string, field: string): string {
  if (typeof value === "string" && value.trim() !== "") return value;
  const found = typeof value === "string" ? "white space only" : value === undefined ? "nothing" : typeof value;
  throw rowProblem(where, `text in \`${field}\``, value === "" ? "an empty text" : found);
}

/** A finite number, or undefined where the field is absent or null. */
export function optionalNumber(fields: Fields, name: string, where: string): number | undefined {
  const value = fields[name] ?? undefined;
  if (value === undefined || (typeof value === "number" && Number.isFinite(value))) return value;
  throw rowProblem(where, `a number in \`${name}\``, JSON.stringify(value));
}

const contentSchema = z.union([z.string(), z.null(), z.array(z.object({ type: z.literal("text"), text: z.string() }))]);

const callSchema = z.object({
  id: z.string().optional(),
  type: z.literal("function").optional(),
  function: z.object({ name: z.string().min(1), arguments: z.unknown() }),
});

const messagesSchema = z
  .array(
    z.object({
      role: z.string().min(1),
      content: contentSchema.optional(),
      tool_calls: z.array(callSchema).nullish(),
      tool_call_id: z.string().nullish(),
      name: z.string().nullish(),
      weight: z.union([z.literal(0), z.literal(1)]).nullish(),
    }),
  )
  .min(1);

type RawMessage = z.output<typeof messagesSchema>[number];

/** OpenAI's messages, tool calls included; other fields are left alone. */
export function parseMessages(value: unknown, where: string, field = "messages"): Message[] {
  const result = messagesSchema.safeParse(value);
  if (!result.success) {
    const found = result.error.issues
      .map(({ path, message }) => `${[field, ...path].join(".")}: ${message}`)
      .join("; ");
    throw rowProblem(where, `messages in \`${field}\`, each with role and content`, found);
  }
  return result.data.map((message, i) => plainMessage(message, where, `${field}.${i}`));
}

function plainMessage(
  { role, content, tool_calls, tool_call_id, name, weight }: RawMessage,
  where: string,
  at: string,
) {
  const text = Array.isArray(content) ? content.map(({ text: part }) => part).join("") : (content ?? "");
  const calls = tool_calls ?? [];
  // A system text may be empty, and so may what a tool gave back.
  if (calls.length === 0 && text.trim() === "" && (role === "user" || role === "assistant")) {
    throw rowProblem(where, `text (or tool calls) in \`${at}.content\``, `an empty turn of ${role}`);
  }
  return {
    role,
    content: text,
    ...(calls.length > 0 && { tool_calls: calls.map(plainCall) }),
    ...(tool_call_id != null && { tool_call_id }),
    ...(name != null && { name }),
    ...(weight === 0 && { learn: false }),
  } satisfies Message;
}

/** Templates write arguments themselves, so JSON text is parsed; what is no JSON goes through as text. */
function plainCall({ id, function: { name, arguments: given } }: z.output<typeof callSchema>) {
  return { ...(id !== undefined && { id }), type: "function" as const, function: { name, arguments: parsed(given) } };
}

function parsed(given: unknown): unknown {
  if (typeof given !== "string") return given ?? {};
  try {
    return JSON.parse(given);
  } catch {
    return given;
  }
}

/** A prompt as text or as messages, after the system text where the row has one. */
export function parsePrompt(fields: Fields, name: string, where: string): Message[] {
  const prompt = fields[name];
  const turns = Array.isArray(prompt)
    ? parseMessages(prompt, where, name)
    : [{ role: "user", content: requireText(prompt, where, name) }];
  return withSystem(fields, turns);
}

export function withSystem({ system }: Fields, turns: readonly Message[]): Message[] {
  const own = typeof system === "string" && system.trim() !== "" && turns[0]?.role !== "system";
  return own ? [{ role: "system", content: system }, ...turns] : [...turns];
}
