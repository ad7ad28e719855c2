/** @module POST /v1/messages and /v1/messages/count_tokens. */
import { randomUUID } from "node:crypto";
import { z } from "../../base/index.js";
import {
  type Answer,
  type ChatEnd,
  type ChatEvent,
  type ChatRequest,
  gather,
  type Thinking,
  type Turn,
} from "../chat-request.js";
import type { Exchange, Reply } from "../http.js";
import { timingsOf } from "../openai/dialect.js";
import { buildChatPrompt } from "../prompt.js";
import { invalid } from "../refusal.js";
import { harmless, parseRequest } from "../schema.js";
import type { Service } from "../service.js";
import { singleAnswer } from "../single-answer.js";
import { thinkingField } from "../thinking-field.js";
import type { Tool, ToolCall, ToolChoice } from "../tools.js";
import { anthropicEvent } from "./dialect.js";

const textBlock = z.strictObject({
  type: z.literal("text"),
  text: z.string(),
  cache_control: harmless,
  citations: harmless,
});

const plainContent = z
  .union([z.string(), z.array(textBlock)])
  .transform((value) => (typeof value === "string" ? value : value.map(({ text }) => text).join("\n")));

const block = z.discriminatedUnion(
  "type",
  [
    textBlock,
    z.strictObject({
      type: z.literal("tool_use"),
      id: z.string(),
      name: z.string(),
      input: z.record(z.string(), z.unknown()),
      cache_control: harmless,
    }),
    z.strictObject({
      type: z.literal("tool_result"),
      tool_use_id: z.string(),
      content: plainContent.optional(),
      is_error: z.boolean().optional(),
      cache_control: harmless,
    }),
    // Models are not shown their earlier thoughts.
    z.strictObject({ type: z.literal("thinking"), thinking: z.string(), signature: harmless }),
    z.strictObject({ type: z.literal("redacted_thinking"), data: harmless }),
  ],
  {
    error:
      "blocks are text, tool_use, tool_result, thinking and redacted_thinking: images and documents are not supported",
  },
);

const message = z.strictObject({
  role: z.enum(["user", "assistant"]),
  content: z.union([z.string(), z.array(block).min(1)]),
});

const tool = z
  .strictObject({
    type: z.literal("custom", { error: "only tools of your own are supported" }).optional(),
    name: z.string().regex(/^[A-Za-z0-9_.-]{1,64}$/, "letters, digits, _, . and -, at most 64"),
    description: z.string().optional(),
    input_schema: z.record(z.string(), z.unknown()),
    cache_control: harmless,
  })
  .transform(
    ({ name, description, input_schema }): Tool => ({
      name,
      ...(description !== undefined && { description }),
      parameters: input_schema,
    }),
  );

const parallel = { disable_parallel_tool_use: z.boolean().optional() };

const toolChoice = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("auto"), ...parallel }),
  z.strictObject({ type: z.literal("any"), ...parallel }),
  z.strictObject({ type: z.literal("tool"), name: z.string(), ...parallel }),
  z.strictObject({ type: z.literal("none") }),
]);

const thinking = z.union([
  z
    .discriminatedUnion("type", [
      z.strictObject({ type: z.literal("enabled"), budget_tokens: z.int().min(1), display: harmless }),
      z.strictObject({ type: z.literal("adaptive"), display: harmless }),
      z.strictObject({ type: z.literal("disabled") }),
    ])
    .transform((value): Thinking => {
      if (value.type === "enabled") return { budget: value.budget_tokens };
      return value.type === "adaptive" ? "auto" : "off";
    }),
  thinkingField,
]);

const promptFields = {
  model: z.string(),
  messages: z.array(message).min(1),
  system: plainContent.optional(),
  tools: z.array(tool).optional(),
  tool_choice: toolChoice.optional(),
  thinking: thinking.optional(),
};

export const messagesSchema = z.strictObject({
  ...promptFields,
  max_tokens: z.int().min(1),
  stop_sequences: z.array(z.string().min(1)).max(16).optional(),
  stream: z.boolean().optional(),
  temperature: z.number().min(0).max(2).optional(),
  top_k: z.int().min(0).optional(),
  top_p: z.number().gt(0).max(1).optional(),
  metadata: harmless,
  service_tier: harmless,
});

export const countSchema = z.strictObject(promptFields);

type PromptBody = z.output<typeof countSchema>;
type MessagesBody = z.output<typeof messagesSchema>;

export async function messages(service: Service, { body, signal }: Exchange): Promise<Reply> {
  const fields = parseRequest(messagesSchema, body);
  const events = singleAnswer(service.chat(fields.model, toChatRequest(fields), { signal }));
  const head = {
    id: `msg_${randomUUID().replaceAll("-", "")}`,
    type: "message",
    role: "assistant",
    model: fields.model,
  };
  if (fields.stream) return { kind: "stream", type: "text/event-stream", pieces: streamed(events, head) };
  const { models, answers } = await gather(events);
  const [answer] = answers;
  const { timings } = answer!.end;
  return {
    kind: "json",
    value: {
      ...head,
      content: blocksOf(answer!),
      ...endOf(answer!.end),
      usage: { ...inputUsage(models[0]!.promptTokens, timings.cachedTokens), output_tokens: timings.generatedTokens },
      timings: timingsOf(timings),
    },
  };
}

export async function countTokens(service: Service, { body, signal }: Exchange): Promise<Reply> {
  const fields = parseRequest(countSchema, body);
  const request: ChatRequest = { ...promptOf(fields), sampling: {}, defaults: {}, stop: [] };
  const counted = service.withModel(fields.model, { signal }, 1, async function* ({ model }) {
    yield (await buildChatPrompt(model, request)).ids.length;
  });
  for await (const count of counted) return { kind: "json", value: { input_tokens: count } };
  throw new Error("internal: nothing was counted");
}

function toChatRequest(fields: MessagesBody): ChatRequest {
  const { temperature, top_k, top_p, max_tokens, stop_sequences = [] } = fields;
  return {
    ...promptOf(fields),
    sampling: {
      ...(temperature !== undefined && { temperature }),
      ...(top_k !== undefined && { topK: top_k }),
      ...(top_p !== undefined && { topP: top_p }),
    },
    defaults: { temperature: 1 },
    maxTokens: max_tokens,
    stop: stop_sequences,
  };
}

function promptOf({ messages: given, system, tools = [], tool_choice, thinking: mode = "auto" }: PromptBody) {
  const turns = given.flatMap(turnsOf);
  if (turns.length === 0) throw invalid("messages", "a message with text", "none");
  const disabled = tool_choice && tool_choice.type !== "none" && tool_choice.disable_parallel_tool_use;
  return {
    turns: system === undefined ? turns : [{ role: "system" as const, content: system }, ...turns],
    tools,
    toolChoice: toToolChoice(tool_choice),
    thinking: mode,
    continueLast: true,
    ...(disabled === true && { parallelCalls: false }),
  };
}

function toToolChoice(choice: PromptBody["tool_choice"]): ToolChoice {
  if (choice?.type === "tool") return { kind: "named", name: choice.name };
  return { kind: choice?.type === "any" ? "required" : (choice?.type ?? "auto") };
}

/** A message may hold results of tools beside text; each result is a turn of its own. */
function turnsOf({ role, content }: z.output<typeof message>): Turn[] {
  if (typeof content === "string") return [{ role, content }];
  const results = content.flatMap((part): Turn[] =>
    part.type === "tool_result" ? [{ role: "tool", content: resultText(part), toolCallId: part.tool_use_id }] : [],
  );
  const text = content.flatMap((part) => (part.type === "text" ? [part.text] : [])).join("\n");
  const toolCalls = content.flatMap((part): ToolCall[] =>
    part.type === "tool_use" ? [{ id: part.id, name: part.name, arguments: JSON.stringify(part.input) }] : [],
  );
  if (text === "" && toolCalls.length === 0) return results;
  return [...results, { role, content: text, ...(toolCalls.length > 0 && { toolCalls }) }];
}

const resultText = ({ content = "", is_error }: { content?: string | undefined; is_error?: boolean | undefined }) =>
  is_error ? `Error: ${content}` : content;

function blocksOf({ text, thought, calls }: Answer): object[] {
  return [
    ...(thought === "" ? [] : [{ type: "thinking", thinking: thought, signature: "" }]),
    ...(text === "" ? [] : [{ type: "text", text }]),
    ...calls.map((call) => ({ ...toolUse(call), input: inputOf(call) })),
  ];
}

const toolUse = ({ id, name }: ToolCall) => ({ type: "tool_use", id, name, input: {} });

/** A model may write arguments that are no object. */
function inputOf({ arguments: text }: ToolCall): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? value : { value };
  } catch {
    return { value: text };
  }
}

const reasons = { stop: "end_turn", length: "max_tokens", tool_calls: "tool_use" } as const;

function endOf({ finish, stopText }: ChatEnd) {
  if (finish === "stop" && stopText !== undefined) return { stop_reason: "stop_sequence", stop_sequence: stopText };
  return { stop_reason: reasons[finish], stop_sequence: null };
}

/** Anthropic counts what the cache held apart from the rest. */
function inputUsage(promptTokens: number, cachedTokens: number) {
  return {
    input_tokens: promptTokens - cachedTokens,
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: cachedTokens,
  };
}

async function* streamed(events: AsyncIterable<ChatEvent>, head: object): AsyncIterable<string> {
  let index = 0;
  let open: "thought" | "text" | undefined;
  let promptTokens = 0;
  const start = (content_block: object) => anthropicEvent("content_block_start", { index, content_block });
  const delta = (fields: object) => anthropicEvent("content_block_delta", { index, delta: fields });
  function* close(): Iterable<string> {
    if (!open) return;
    if (open === "thought") yield delta({ type: "signature_delta", signature: "" });
    yield anthropicEvent("content_block_stop", { index });
    open = undefined;
    index++;
  }
  function* write(kind: "thought" | "text", text: string): Iterable<string> {
    if (text === "") return;
    if (open !== kind) {
      yield* close();
      open = kind;
      yield start(kind === "text" ? { type: "text", text: "" } : { type: "thinking", thinking: "", signature: "" });
    }
    yield delta(kind === "text" ? { type: "text_delta", text } : { type: "thinking_delta", thinking: text });
  }
  for await (const event of events) {
    if (event.kind === "start") {
      promptTokens = event.models[0]!.promptTokens;
      const usage = { ...inputUsage(promptTokens, 0), output_tokens: 0 };
      const empty = { ...head, content: [], stop_reason: null, stop_sequence: null, usage };
      yield anthropicEvent("message_start", { message: empty });
    } else if (event.kind === "call") {
      yield* close();
      yield start(toolUse(event.call));
      yield delta({ type: "input_json_delta", partial_json: JSON.stringify(inputOf(event.call)) });
      yield anthropicEvent("content_block_stop", { index: index++ });
    } else if (event.kind === "end") {
      yield* close();
      const { timings } = event;
      const usage = { ...inputUsage(promptTokens, timings.cachedTokens), output_tokens: timings.generatedTokens };
      yield anthropicEvent("message_delta", { delta: endOf(event), usage, timings: timingsOf(timings) });
      yield anthropicEvent("message_stop", {});
    } else yield* write(event.kind, event.text);
  }
}
