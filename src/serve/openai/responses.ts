/** @module POST /v1/responses, without state: the whole conversation comes with every request. */
import { randomUUID } from "node:crypto";
import { z } from "../../base/index.js";
import type { Grammar } from "../../llamacpp/index.js";
import { type Answer, type ChatEvent, type ChatRequest, gather, type Turn } from "../chat-request.js";
import type { Exchange, Reply } from "../http.js";
import { schemaGrammar } from "../json-schema.js";
import { unsupported } from "../refusal.js";
import { harmless, parseRequest } from "../schema.js";
import type { Service } from "../service.js";
import { singleAnswer } from "../single-answer.js";
import { effortNames, thinkingField } from "../thinking-field.js";
import type { ToolCall } from "../tools.js";
import { thinkingOf } from "./chat.js";
import { timingsOf } from "./dialect.js";
import {
  functionFields,
  harmlessFields,
  openaiDefaults,
  samplingFields,
  toolChoiceField,
  toSampling,
  toTool,
} from "./fields.js";

const part = z.strictObject({
  type: z.enum(["input_text", "output_text", "text"], { error: "only text is supported" }),
  text: z.string(),
  annotations: harmless,
  logprobs: harmless,
});

const content = z
  .union([z.string(), z.array(part)])
  .transform((value) => (typeof value === "string" ? value : value.map(({ text }) => text).join("")));

const message = z
  .strictObject({
    type: z.literal("message").optional(),
    role: z.enum(["user", "assistant", "system", "developer"]),
    content,
    id: harmless,
    status: harmless,
    phase: harmless,
  })
  .transform(({ role, content }): Turn => ({ role: role === "developer" ? "system" : role, content }));

const functionCall = z
  .strictObject({
    type: z.literal("function_call"),
    call_id: z.string(),
    name: z.string(),
    arguments: z.string(),
    id: harmless,
    status: harmless,
  })
  .transform(({ call_id, name, arguments: text }): Turn => {
    return { role: "assistant", content: "", toolCalls: [{ id: call_id, name, arguments: text }] };
  });

const functionOutput = z
  .strictObject({
    type: z.literal("function_call_output"),
    call_id: z.string(),
    output: content,
    id: harmless,
    status: harmless,
  })
  .transform(({ call_id, output }): Turn => ({ role: "tool", content: output, toolCallId: call_id }));

/** Models are not shown their earlier thoughts. */
const reasoning = z.looseObject({ type: z.literal("reasoning") }).transform(() => undefined);

const format = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("text") }),
  z.strictObject({ type: z.literal("json_object") }),
  z.strictObject({
    type: z.literal("json_schema"),
    name: z.string().optional(),
    description: z.string().optional(),
    strict: z.boolean().nullish(),
    schema: z.unknown(),
  }),
]);

export const responseSchema = z.strictObject({
  model: z.string(),
  input: z.union([z.string(), z.array(z.union([message, functionCall, functionOutput, reasoning])).min(1)]),
  instructions: z.string().optional(),
  ...samplingFields,
  ...harmlessFields,
  max_output_tokens: z.int().min(1).optional(),
  stream: z.boolean().optional(),
  tools: z.array(z.strictObject({ type: z.literal("function"), ...functionFields })).optional(),
  tool_choice: toolChoiceField,
  parallel_tool_calls: z.boolean().optional(),
  text: z.strictObject({ format: format.optional() }).optional(),
  reasoning: z.strictObject({ effort: z.enum(effortNames).optional(), summary: harmless }).optional(),
  thinking: thinkingField.optional(),
  chat_template_kwargs: z.record(z.string(), z.unknown()).optional(),
  truncation: z.literal("disabled", { error: 'only "disabled" is supported' }).optional(),
  background: z.literal(false, { error: "background responses are not supported" }).optional(),
  previous_response_id: z
    .undefined({ error: "responses are not kept here: send the whole conversation as input" })
    .optional(),
  include: z.array(z.unknown()).max(0, { error: "nothing can be included" }).optional(),
});

type ResponseBody = z.output<typeof responseSchema>;

export async function responses(service: Service, { body, signal }: Exchange): Promise<Reply> {
  const fields = parseRequest(responseSchema, body);
  const events = singleAnswer(service.chat(fields.model, toChatRequest(fields), { signal }));
  const base = responseBase(fields);
  if (fields.stream) return { kind: "stream", type: "text/event-stream", pieces: streamed(events, base) };
  const { answers, models } = await gather(events);
  const writer = createItems();
  const items = [...writer.finished(answers[0]!)];
  return { kind: "json", value: finished(base, items, answers[0]!, models[0]!.promptTokens) };
}

function toChatRequest(fields: ResponseBody): ChatRequest {
  const { input, instructions, tools = [], tool_choice, parallel_tool_calls, reasoning: thought } = fields;
  const given: Turn[] = typeof input === "string" ? [{ role: "user", content: input }] : joinCalls(input);
  const grammar = grammarOf(fields.text?.format);
  return {
    turns: instructions === undefined ? given : [{ role: "system", content: instructions }, ...given],
    tools: tools.map(toTool),
    toolChoice: tool_choice ?? { kind: "auto" },
    thinking: thinkingOf(fields.thinking, thought?.effort),
    sampling: toSampling(fields),
    defaults: openaiDefaults,
    stop: [],
    ...(parallel_tool_calls !== undefined && { parallelCalls: parallel_tool_calls }),
    ...(grammar && { grammar }),
    ...(fields.max_output_tokens !== undefined && { maxTokens: fields.max_output_tokens }),
    ...(fields.chat_template_kwargs && { variables: fields.chat_template_kwargs }),
  };
}

/** Calls come as items of their own; in a conversation they belong to the turn before them. */
function joinCalls(items: readonly (Turn | undefined)[]): Turn[] {
  const turns: Turn[] = [];
  for (const item of items) {
    const last = turns.at(-1);
    if (item?.toolCalls && last?.role === "assistant") {
      turns[turns.length - 1] = { ...last, toolCalls: [...(last.toolCalls ?? []), ...item.toolCalls] };
    } else if (item) turns.push(item);
  }
  if (turns.length === 0) throw unsupported("input", "a conversation without a message");
  return turns;
}

function grammarOf(given: z.output<typeof format> | undefined): Grammar | undefined {
  if (!given || given.type === "text") return undefined;
  return given.type === "json_object" ? { kind: "json" } : schemaGrammar(given.schema, "text.format.schema");
}

type Base = ReturnType<typeof responseBase>;

function responseBase(fields: ResponseBody) {
  return {
    id: `resp_${randomUUID().replaceAll("-", "")}`,
    object: "response",
    created_at: Math.floor(Date.now() / 1000),
    model: fields.model,
    instructions: fields.instructions ?? null,
    temperature: fields.temperature ?? openaiDefaults.temperature!,
    top_p: fields.top_p ?? 1,
    max_output_tokens: fields.max_output_tokens ?? null,
    tools: fields.tools ?? [],
    tool_choice:
      fields.tool_choice?.kind === "named"
        ? { type: "function", name: fields.tool_choice.name }
        : (fields.tool_choice?.kind ?? "auto"),
    parallel_tool_calls: fields.parallel_tool_calls ?? true,
    previous_response_id: null,
    store: false,
    text: { format: { type: fields.text?.format?.type ?? "text" } },
    truncation: "disabled",
    metadata: fields.metadata ?? {},
    error: null,
  };
}

function finished(base: Base, output: readonly object[], { end, text, thought }: Answer, promptTokens: number) {
  const { timings } = end;
  const cut = end.finish === "length";
  return {
    ...base,
    status: cut ? "incomplete" : "completed",
    incomplete_details: cut ? { reason: "max_output_tokens" } : null,
    output,
    output_text: text,
    ...(thought !== "" && { reasoning_content: thought }),
    usage: {
      input_tokens: promptTokens,
      input_tokens_details: { cached_tokens: timings.cachedTokens },
      output_tokens: timings.generatedTokens,
      output_tokens_details: { reasoning_tokens: end.thoughtTokens },
      total_tokens: promptTokens + timings.generatedTokens,
    },
    timings: timingsOf(timings),
  };
}

const newId = (kind: string) => `${kind}_${randomUUID().replaceAll("-", "")}`;

function createItems() {
  const reasoningItem = (id: string, text: string) => ({
    id,
    type: "reasoning",
    summary: [],
    content: text === "" ? [] : [{ type: "reasoning_text", text }],
  });
  const messageItem = (id: string, text: string | undefined, status: string) => ({
    id,
    type: "message",
    role: "assistant",
    status,
    content: text === undefined ? [] : [textPart(text)],
  });
  const callItem = (id: string, call: ToolCall, status: string) => ({
    id,
    type: "function_call",
    call_id: call.id,
    name: call.name,
    arguments: status === "completed" ? call.arguments : "",
    status,
  });
  return {
    reasoningItem,
    messageItem,
    callItem,
    *finished({ thought, text, calls }: Answer) {
      if (thought !== "") yield reasoningItem(newId("rs"), thought);
      if (text !== "" || calls.length === 0) yield messageItem(newId("msg"), text, "completed");
      for (const call of calls) yield callItem(newId("fc"), call, "completed");
    },
  };
}

const textPart = (text: string) => ({ type: "output_text", text, annotations: [] });

interface OpenItem {
  id: string;
  kind: "thought" | "text";
  text: string;
}

/** Items are opened by what comes first of their kind and closed by what comes after them. */
async function* streamed(events: AsyncIterable<ChatEvent>, base: Base): AsyncIterable<string> {
  const { reasoningItem, messageItem, callItem } = createItems();
  const output: object[] = [];
  let sequence = 0;
  let open: OpenItem | undefined;
  let promptTokens = 0;
  const event = (type: string, fields: object) =>
    `event: ${type}\ndata: ${JSON.stringify({ type, sequence_number: sequence++, ...fields })}\n\n`;
  const place = () => ({ item_id: open!.id, output_index: output.length, content_index: 0 });

  function* close(): Iterable<string> {
    if (!open) return;
    const { id, kind, text } = open;
    const done = kind === "text" ? messageItem(id, text, "completed") : reasoningItem(id, text);
    if (kind === "text") {
      yield event("response.output_text.done", { ...place(), text, logprobs: [] });
      yield event("response.content_part.done", { ...place(), part: textPart(text) });
    } else yield event("response.reasoning_text.done", { ...place(), text });
    yield event("response.output_item.done", { output_index: output.length, item: done });
    output.push(done);
    open = undefined;
  }
  function* write(kind: OpenItem["kind"], delta: string): Iterable<string> {
    if (open?.kind !== kind) {
      yield* close();
      open = { id: newId(kind === "text" ? "msg" : "rs"), kind, text: "" };
      const item = kind === "text" ? messageItem(open.id, undefined, "in_progress") : reasoningItem(open.id, "");
      yield event("response.output_item.added", { output_index: output.length, item });
      if (kind === "text") yield event("response.content_part.added", { ...place(), part: textPart("") });
    }
    open.text += delta;
    if (kind === "text") yield event("response.output_text.delta", { ...place(), delta, logprobs: [] });
    else yield event("response.reasoning_text.delta", { ...place(), delta });
  }
  function* writeCall(call: ToolCall): Iterable<string> {
    yield* close();
    const id = newId("fc");
    const index = { item_id: id, output_index: output.length };
    yield event("response.output_item.added", { output_index: output.length, item: callItem(id, call, "in_progress") });
    yield event("response.function_call_arguments.delta", { ...index, delta: call.arguments });
    yield event("response.function_call_arguments.done", { ...index, name: call.name, arguments: call.arguments });
    const item = callItem(id, call, "completed");
    yield event("response.output_item.done", { output_index: output.length, item });
    output.push(item);
  }

  const answer = { text: "", thought: "", tokens: [], calls: [] } as Omit<Answer, "end">;
  for await (const given of events) {
    if (given.kind === "start") {
      promptTokens = given.models[0]!.promptTokens;
      const response = { ...base, status: "in_progress", incomplete_details: null, output: [], usage: null };
      yield event("response.created", { response });
      yield event("response.in_progress", { response });
    } else if (given.kind === "call") yield* writeCall(given.call);
    else if (given.kind === "end") {
      if (output.length === 0 && !open) yield* write("text", "");
      yield* close();
      const response = finished(base, output, { ...answer, end: given }, promptTokens);
      yield event(response.status === "completed" ? "response.completed" : "response.incomplete", { response });
    } else {
      if (given.kind === "text") answer.text += given.text;
      else answer.thought += given.text;
      yield* write(given.kind, given.text);
    }
  }
}
