/** @module POST /v1/chat/completions. */
import { randomUUID } from "node:crypto";
import { z } from "../../base/index.js";
import {
  type Answer,
  type ChatEnd,
  type ChatEvent,
  type ChatRequest,
  gather,
  type StartedModel,
} from "../chat-request.js";
import type { Exchange, Reply } from "../http.js";
import { invalid } from "../refusal.js";
import { parseRequest } from "../schema.js";
import type { Service } from "../service.js";
import { type Effort, effortNames, efforts, thinkingField } from "../thinking-field.js";
import { chatLogprob, serverEvent, timingsOf, usageOf } from "./dialect.js";
import {
  formatGrammar,
  harmlessFields,
  onlyOne,
  openaiDefaults,
  responseFormatField,
  samplingFields,
  stopField,
  streamFields,
  toolChoiceField,
  toolsField,
  toSampling,
} from "./fields.js";
import { messagesField } from "./messages.js";

export const chatSchema = z.strictObject({
  model: z.string(),
  messages: messagesField,
  ...samplingFields,
  ...streamFields,
  ...harmlessFields,
  max_tokens: z.int().min(1).optional(),
  max_completion_tokens: z.int().min(1).optional(),
  stop: stopField,
  n: z.int().min(1).optional(),
  logprobs: z.boolean().optional(),
  top_logprobs: z.int().min(0).max(20).optional(),
  tools: toolsField,
  tool_choice: toolChoiceField,
  parallel_tool_calls: z.boolean().optional(),
  response_format: responseFormatField,
  chat_template_kwargs: z.record(z.string(), z.unknown()).optional(),
  reasoning_effort: z.enum(effortNames).optional(),
  thinking: thinkingField.optional(),
  modalities: z.array(z.literal("text")).optional(),
});

type ChatBody = z.output<typeof chatSchema>;

export async function chatCompletions(service: Service, { body, signal }: Exchange): Promise<Reply> {
  const fields = parseRequest(chatSchema, body);
  const events = service.chat(fields.model, toChatRequest(fields), { signal });
  const head = { id: `chatcmpl-${randomUUID()}`, created: Math.floor(Date.now() / 1000), model: fields.model };
  if (fields.stream) return { kind: "stream", type: "text/event-stream", pieces: chunks(events, head, fields) };
  if (fields.stream_options) throw invalid("stream_options", "stream: true beside it", "none");
  return { kind: "json", value: completionObject(await gather(events), head, fields) };
}

export function toChatRequest(fields: ChatBody): ChatRequest {
  const { messages, tools = [], tool_choice, parallel_tool_calls, stop = [], n, logprobs, top_logprobs } = fields;
  if (top_logprobs !== undefined && !logprobs) throw invalid("top_logprobs", "logprobs: true beside it", "none");
  const grammar = formatGrammar(fields.response_format);
  const maxTokens = onlyOne(["max_tokens", fields.max_tokens], ["max_completion_tokens", fields.max_completion_tokens]);
  return {
    turns: messages,
    tools,
    toolChoice: tool_choice ?? { kind: "auto" },
    thinking: thinkingOf(fields.thinking, fields.reasoning_effort),
    sampling: toSampling(fields),
    defaults: openaiDefaults,
    stop,
    ...(parallel_tool_calls !== undefined && { parallelCalls: parallel_tool_calls }),
    ...(grammar && { grammar }),
    ...(maxTokens !== undefined && { maxTokens }),
    ...(n !== undefined && { choices: n }),
    ...(logprobs && { logprobs: top_logprobs ?? 0 }),
    variables: {
      ...(fields.reasoning_effort !== undefined && { reasoning_effort: fields.reasoning_effort }),
      ...fields.chat_template_kwargs,
    },
  };
}

export function thinkingOf(
  thinking: ChatRequest["thinking"] | undefined,
  effort: Effort | undefined,
): ChatRequest["thinking"] {
  if (thinking !== undefined && effort !== undefined) {
    throw invalid("reasoning_effort", "only one of thinking and reasoning_effort", "both");
  }
  return thinking ?? (effort === undefined ? "auto" : efforts[effort]);
}

interface Head {
  id: string;
  created: number;
  model: string;
}

function completionObject(
  { models, answers }: { models: readonly StartedModel[]; answers: readonly Answer[] },
  head: Head,
  { logprobs }: ChatBody,
) {
  const several = models.length > 1;
  return {
    ...head,
    object: "chat.completion",
    system_fingerprint: fingerprints(models),
    choices: answers.map((answer, index) => ({
      index,
      ...(several && { model: models[index]!.name, timings: timingsOf(answer.end.timings) }),
      message: messageObject(answer),
      logprobs: logprobs ? { content: answer.tokens.map(chatLogprob), refusal: null } : null,
      finish_reason: answer.end.finish,
    })),
    usage: usage(
      models,
      answers.map(({ end }) => end),
    ),
    timings: timingsOf(answers[0]!.end.timings),
  };
}

function messageObject({ text, thought, calls }: Answer) {
  return {
    role: "assistant",
    content: text === "" && calls.length > 0 ? null : text,
    refusal: null,
    ...(thought !== "" && { reasoning_content: thought, reasoning: thought }),
    ...(calls.length > 0 && { tool_calls: calls.map(callObject) }),
  };
}

const callObject = ({ id, name, arguments: text }: Answer["calls"][number]) => ({
  id,
  type: "function",
  function: { name, arguments: text },
});

const fingerprints = (models: readonly StartedModel[]) => models.map(({ fingerprint }) => fingerprint).join("|");

function usage(models: readonly StartedModel[], ends: readonly ChatEnd[]) {
  const prompt = models.reduce((sum, { promptTokens }) => sum + promptTokens, 0);
  const thought = ends.reduce((sum, { thoughtTokens }) => sum + thoughtTokens, 0);
  return usageOf(
    prompt,
    ends.map(({ timings }) => timings),
    thought,
  );
}

async function* chunks(
  events: AsyncIterable<ChatEvent>,
  head: Head,
  { stream_options, logprobs, n = 1 }: ChatBody,
): AsyncIterable<string> {
  let models: readonly StartedModel[] = [];
  const ends: ChatEnd[] = [];
  const withUsage = stream_options?.include_usage === true;
  const chunk = (choices: unknown[], more: object = {}) =>
    serverEvent({
      ...head,
      object: "chat.completion.chunk",
      system_fingerprint: fingerprints(models),
      choices,
      ...(withUsage && { usage: null }),
      ...more,
    });
  const choice = (index: number, delta: object, finish: string | null = null, more: object = {}) => ({
    index,
    delta,
    logprobs: null,
    finish_reason: finish,
    ...(models.length > 1 && { model: models[index]!.name }),
    ...more,
  });
  for await (const event of events) {
    if (event.kind === "start") {
      models = event.models;
      const count = models.length > 1 ? models.length : n;
      for (let i = 0; i < count; i++) yield chunk([choice(i, { role: "assistant", content: "" })]);
    } else if (event.kind === "end") {
      ends.push(event);
      yield chunk([choice(event.choice, {}, event.finish)], { timings: timingsOf(event.timings) });
    } else
      yield chunk([choice(event.choice, deltaOf(event), null, logprobs && event.kind === "text" ? listed(event) : {})]);
  }
  if (withUsage) yield chunk([], { usage: usage(models, ends) });
  yield "data: [DONE]\n\n";
}

function deltaOf(event: Exclude<ChatEvent, { kind: "start" | "end" }>): object {
  if (event.kind === "thought") return { reasoning_content: event.text, reasoning: event.text };
  if (event.kind === "text") return { content: event.text };
  return { tool_calls: [{ index: event.index, ...callObject(event.call) }] };
}

const listed = ({ tokens }: Extract<ChatEvent, { kind: "text" }>) => ({
  logprobs: { content: tokens.map(chatLogprob), refusal: null },
});
