/** @module POST /api/chat and /api/generate. */
import { z } from "../../base/index.js";
import { type ChatEvent, type ChatRequest, gather, type Turn } from "../chat-request.js";
import type { Exchange, Reply } from "../http.js";
import { chatLogprob } from "../openai/dialect.js";
import { toolsField } from "../openai/fields.js";
import { invalid, unsupported } from "../refusal.js";
import { harmless, parseRequest } from "../schema.js";
import type { Caller, Service } from "../service.js";
import { singleAnswer } from "../single-answer.js";
import { newToolCall, type ToolCall } from "../tools.js";
import { durations, line } from "./dialect.js";
import { checkContext, keepAliveMs, type SharedBody, sharedFields, sharedRequest } from "./fields.js";

const noImages = z.array(z.unknown()).max(0, { error: "images are not supported" }).optional();

const message = z.strictObject({
  role: z.enum(["system", "user", "assistant", "tool"]),
  content: z.string().default(""),
  images: noImages.nullish(),
  tool_calls: z
    .array(
      z.strictObject({
        id: z.string().optional(),
        type: harmless,
        function: z.strictObject({
          index: harmless,
          name: z.string(),
          arguments: z.record(z.string(), z.unknown()),
        }),
      }),
    )
    .nullish(),
  tool_name: z.string().optional(),
  tool_call_id: z.string().optional(),
  // Models are not shown their earlier thoughts.
  thinking: harmless,
});

export const chatSchema = z.strictObject({
  ...sharedFields,
  messages: z.array(message).default([]),
  tools: toolsField,
});

export const generateSchema = z.strictObject({
  ...sharedFields,
  prompt: z.string().default(""),
  system: z.string().optional(),
  raw: z.boolean().default(false),
  images: noImages,
});

export async function chat(service: Service, { body, signal }: Exchange): Promise<Reply> {
  const fields = parseRequest(chatSchema, body);
  const turns = fields.messages.map(toTurn);
  if (turns.length === 0)
    return onlyLoad(service, fields, signal, (text) => ({ message: { role: "assistant", content: text } }));
  const request: ChatRequest = { ...sharedRequest(fields), turns, tools: fields.tools ?? [] };
  return reply(service, fields, request, signal, (text, thought, calls) => ({
    message: {
      role: "assistant",
      content: text,
      ...(thought !== "" && { thinking: thought }),
      ...(calls.length > 0 && { tool_calls: calls.map(callObject) }),
    },
  }));
}

export async function generate(service: Service, exchange: Exchange): Promise<Reply> {
  const { body, signal } = exchange;
  const fields = parseRequest(generateSchema, body);
  const shape = (text: string, thought: string) => ({ response: text, ...(thought !== "" && { thinking: thought }) });
  if (fields.prompt === "") return onlyLoad(service, fields, signal, (text) => shape(text, ""));
  if (fields.raw && fields.system !== undefined) throw unsupported("system", "a system prompt beside raw");
  const system: Turn[] = fields.system === undefined ? [] : [{ role: "system", content: fields.system }];
  const turns: Turn[] = [...system, { role: "user", content: fields.prompt }];
  const request: ChatRequest = { ...sharedRequest(fields), turns, tools: [] };
  return reply(service, fields, fields.raw ? { ...request, rawPrompt: fields.prompt } : request, signal, shape);
}

function toTurn({ role, content, tool_calls, tool_name, tool_call_id }: z.output<typeof message>): Turn {
  const calls = tool_calls?.map(({ id, function: { name, arguments: args } }): ToolCall => {
    const call = newToolCall(name, args);
    return id === undefined ? call : { ...call, id };
  });
  return {
    role,
    content,
    ...(calls && { toolCalls: calls }),
    ...(tool_name !== undefined && { name: tool_name }),
    ...(tool_call_id !== undefined && { toolCallId: tool_call_id }),
  };
}

const callObject = ({ id, name, arguments: text }: ToolCall, index: number) => ({
  id,
  function: { index, name, arguments: parsed(text) },
});

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return { value: text };
  }
}

type Shape = (text: string, thought: string, calls: readonly ToolCall[]) => object;

const now = () => new Date().toISOString();

async function reply(
  service: Service,
  fields: SharedBody,
  request: ChatRequest,
  signal: AbortSignal,
  shape: Shape,
): Promise<Reply> {
  const beganMs = performance.now();
  const caller: Caller = { signal, keepAliveMs: keepAliveMs(fields) };
  const check = (contextSize: number) => checkContext(fields, contextSize);
  const events = singleAnswer(service.chat(fields.model, { ...request, checkContext: check }, caller));
  if (fields.stream) {
    return { kind: "stream", type: "application/x-ndjson", pieces: streamed(events, fields, shape, beganMs) };
  }
  const { models, answers } = await gather(events);
  const { text, thought, calls, tokens, end } = answers[0]!;
  return {
    kind: "json",
    value: {
      model: fields.model,
      created_at: now(),
      ...shape(text, thought, calls),
      ...(fields.logprobs && { logprobs: tokens.map(chatLogprob) }),
      done: true,
      done_reason: reasonOf(end.finish),
      ...durations(end.timings, { promptTokens: models[0]!.promptTokens, beganMs }),
    },
  };
}

const reasonOf = (finish: "stop" | "length" | "tool_calls") => (finish === "length" ? "length" : "stop");

async function* streamed(
  events: AsyncIterable<ChatEvent>,
  { model, logprobs }: SharedBody,
  shape: Shape,
  beganMs: number,
): AsyncIterable<string> {
  let promptTokens = 0;
  const head = () => ({ model, created_at: now() });
  for await (const event of events) {
    if (event.kind === "start") {
      promptTokens = event.models[0]!.promptTokens;
      // Nothing is said, but what can be wrong with the request is known: the status may go out.
      yield "";
    } else if (event.kind === "end") {
      const reason = { done: true, done_reason: reasonOf(event.finish) };
      yield line({
        ...head(),
        ...shape("", "", []),
        ...reason,
        ...durations(event.timings, { promptTokens, beganMs }),
      });
    } else {
      const said =
        event.kind === "text"
          ? shape(event.text, "", [])
          : event.kind === "thought"
            ? shape("", event.text, [])
            : shape("", "", [event.call]);
      const listed = logprobs && event.kind === "text" ? { logprobs: event.tokens.map(chatLogprob) } : {};
      yield line({ ...head(), ...said, ...listed, done: false });
    }
  }
}

/** Without a prompt a model is only loaded, or with `keep_alive: 0` unloaded. */
async function onlyLoad(
  service: Service,
  fields: SharedBody,
  signal: AbortSignal,
  shape: (text: string) => object,
): Promise<Reply> {
  const kept = keepAliveMs(fields);
  const names = service.pool.resolve(fields.model);
  if (names.length > 1) throw invalid("model", "one model to load", fields.model);
  if (kept === 0) service.pool.unload(names[0]!);
  else {
    const loaded = service.withModel(fields.model, { signal, keepAliveMs: kept }, 1, async function* ({ model }) {
      checkContext(fields, model.info.contextSize);
      yield model.info;
    });
    for await (const _ of loaded);
  }
  const reason = { done: true, done_reason: kept === 0 ? "unload" : "load" };
  return { kind: "json", value: { model: fields.model, created_at: now(), ...shape(""), ...reason } };
}
