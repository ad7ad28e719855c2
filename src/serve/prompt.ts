/** @module From a conversation to the tokens that a model continues. */
import type { LoadedModel, Sampling } from "../llamacpp/index.js";
import { type ChatTemplate, createChatTemplate } from "../tokenizer/index.js";
import type { ChatRequest, Turn } from "./chat-request.js";
import { invalid, Refusal } from "./refusal.js";
import { dropThoughts, setThinking, thinkingSwitchOf } from "./thinking.js";
import { describeTools, type ToolCall, templateTools } from "./tools.js";

export interface ChatPrompt {
  text: string;
  ids: number[];
  /** What the model's makers advise for this mode of thinking. */
  advised: Sampling;
  /** Ends the answer of a model without a chat template. */
  stop: readonly string[];
}

/** For base models: turns by their names. */
const plainTemplate = `{% for message in messages %}{{ message.role | capitalize }}: {{ message.content | trim }}

{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}`;
const plainStop = ["\nUser:", "\nSystem:"];

interface TemplateMessage {
  role: string;
  content: string;
  name?: string;
  tool_call_id?: string;
  tool_calls?: readonly unknown[];
}

export async function buildChatPrompt(model: LoadedModel, request: ChatRequest): Promise<ChatPrompt> {
  const { info } = model;
  if (request.rawPrompt !== undefined) {
    const ids = await promptIds(model, request.rawPrompt, { special: true });
    return { text: request.rawPrompt, ids, advised: {}, stop: [] };
  }
  const { thinking, tools, toolChoice, turns } = request;
  const told = toolChoice.kind === "none" ? [] : tools;
  const knowsTools = info.chatTemplate !== undefined && /\btools\b/.test(info.chatTemplate);
  const beginning = request.continueLast && turns.at(-1)?.role === "assistant" ? turns.at(-1)!.content : undefined;
  const shown = beginning === undefined ? turns : turns.slice(0, -1);
  const messages = knowsTools ? shown.map(templateMessage) : withToolText(shown, told);
  const mode = typeof thinking === "object" ? "on" : thinking;
  const how = thinkingSwitchOf({
    ...(info.chatTemplate !== undefined && { chatTemplate: info.chatTemplate }),
    ...(info.name !== undefined && { name: info.name }),
  });
  const switched = setThinking(dropThoughts(messages), mode, how, "thinking");
  const rendered = templateOf(model).render(switched.messages, {
    variables: {
      ...switched.variables,
      ...request.variables,
      ...(knowsTools && told.length > 0 && { tools: templateTools(told) }),
    },
  });
  const text = rendered + (beginning ?? "");
  const ids = await promptIds(model, text, { special: true });
  const stop = info.chatTemplate === undefined ? plainStop : [];
  return { text, ids, advised: switched.sampling, stop };
}

/** Tokens of a prompt, with the start token where the model wants one and the text does not begin with it. */
export async function promptIds(model: LoadedModel, text: string, { special = false } = {}): Promise<number[]> {
  const ids = await model.tokenize(text, { special });
  const { addBos, bosToken } = model.info;
  if (!addBos || bosToken === undefined) return ids;
  const [start] = await model.tokenize(bosToken, { special: true });
  return start === undefined || (special && ids[0] === start) ? ids : [start, ...ids];
}

/** @throws Refusal where nothing would be left to answer in */
export function checkPromptLength(model: LoadedModel, tokens: number, param: string): void {
  const { contextSize } = model.info;
  if (tokens === 0) throw invalid(param, "at least one token", "none");
  if (tokens < contextSize) return;
  throw new Refusal({
    status: 400,
    param,
    where: param,
    expected: `at most ${contextSize - 1} tokens, for the context has ${contextSize}`,
    found: `${tokens} tokens`,
    fix: "shorten it, or serve the model with a larger --context",
  });
}

const templates = new WeakMap<LoadedModel["info"], ChatTemplate>();

function templateOf({ info }: LoadedModel): ChatTemplate {
  const known = templates.get(info);
  if (known) return known;
  const { chatTemplate: template = plainTemplate, bosToken = "", eosToken = "" } = info;
  const made = createChatTemplate({ template, bosToken, eosToken }, info.name ?? info.gguf);
  templates.set(info, made);
  return made;
}

function templateMessage({ role, content, name, toolCalls, toolCallId }: Turn): TemplateMessage {
  return {
    role,
    content,
    ...(name !== undefined && { name }),
    ...(toolCallId !== undefined && { tool_call_id: toolCallId }),
    ...(toolCalls && toolCalls.length > 0 && { tool_calls: toolCalls.map(templateCall) }),
  };
}

function templateCall({ id, name, arguments: text }: ToolCall) {
  return { id, type: "function", function: { name, arguments: parsedArguments(text) } };
}

/** Templates write arguments themselves; what is no JSON goes through as text. */
function parsedArguments(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Tools, calls and results as text, for templates that know none of them. */
function withToolText(turns: readonly Turn[], tools: ChatRequest["tools"]): TemplateMessage[] {
  const messages = turns.map(({ role, content, name, toolCalls = [] }): TemplateMessage => {
    if (role === "tool") return { role: "user", content: `<tool_response>${content}</tool_response>` };
    const calls = toolCalls.map(
      (call) =>
        `<tool_call>${JSON.stringify({ name: call.name, arguments: parsedArguments(call.arguments) })}</tool_call>`,
    );
    const text = [content, ...calls].filter(Boolean).join("\n");
    return { role, content: text, ...(name !== undefined && { name }) };
  });
  if (tools.length === 0) return messages;
  const [first, ...rest] = messages;
  if (first?.role !== "system") return [{ role: "system", content: describeTools(tools) }, ...messages];
  return [{ ...first, content: `${first.content}\n\n${describeTools(tools)}` }, ...rest];
}
