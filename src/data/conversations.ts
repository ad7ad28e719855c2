/** @module Conversations from JSON lines: OpenAI's messages, ShareGPT's conversations, and plain pairs. */
import {
  type Fields,
  type Form,
  parseByForm,
  parseMessages,
  parsePrompt,
  requireText,
  rowProblem,
  withSystem,
} from "./forms.js";
import { type ReadOptions, readRows } from "./json-lines.js";
import type { Conversation, Message } from "./types.js";

/** True of names that hold JSON lines, packed or not. */
export function isConversationFile(path: string): boolean {
  return /\.jsonl(\.gz)?$/i.test(path);
}

/**
 * Reads one conversation a line; each line may be of another form. Fields that belong to no form are left alone.
 *
 * - `{"messages": [{"role": "user", "content": "..."}, ...], "tools": [...]}` (OpenAI, with tool calls and `weight`)
 * - `{"conversations": [{"from": "human", "value": "..."}, ...], "system": "..."}` (ShareGPT)
 * - `{"prompt", "response"}`, `{"prompt", "completion"}`, `{"instruction", "input", "output"}`, `{"question", "answer"}`
 *
 * @throws EspalierError with the bad lines, each as file:line
 */
export function readConversations(
  path: string,
  options: ReadOptions = {},
): Promise<(Conversation & { where: string })[]> {
  return readRows(path, parseConversation, options);
}

export function parseConversation(value: unknown, where: string): Conversation & { where: string } {
  return { ...parseByForm(forms, "a conversation", value, where), where };
}

const has = (fields: Fields, ...names: string[]): boolean => names.every((name) => name in fields);

const forms: readonly Form<Conversation>[] = [
  {
    shape: '{"messages": [{"role": "user", "content": "..."}]}',
    fits: (fields) => has(fields, "messages"),
    parse: (fields, where) => withTools(fields, parseMessages(fields.messages, where)),
  },
  {
    shape: '{"conversations": [{"from": "human", "value": "..."}]}',
    fits: (fields) => has(fields, "conversations"),
    parse: (fields, where) => withTools(fields, withSystem(fields, shareGptTurns(fields.conversations, where))),
  },
  pair("prompt", "response"),
  pair("prompt", "completion"),
  {
    shape: '{"instruction": "...", "input": "...", "output": "..."}',
    fits: (fields) => has(fields, "instruction", "output"),
    parse: (fields, where) => {
      const instruction = requireText(fields.instruction, where, "instruction");
      const input = typeof fields.input === "string" ? fields.input.trim() : "";
      const question = input === "" ? instruction : `${instruction}\n\n${input}`;
      return withAnswer(withSystem(fields, [{ role: "user", content: question }]), fields, "output", where);
    },
  },
  pair("question", "answer"),
];

function pair(question: string, answer: string): Form<Conversation> {
  return {
    shape: `{"${question}": "...", "${answer}": "..."}`,
    fits: (fields) => has(fields, question, answer),
    parse: (fields, where) => withAnswer(parsePrompt(fields, question, where), fields, answer, where),
  };
}

function withAnswer(prompt: Message[], fields: Fields, name: string, where: string): Conversation {
  const content = requireText(fields[name], where, name);
  return withTools(fields, [...prompt, { role: "assistant", content }]);
}

function withTools({ tools }: Fields, messages: readonly Message[]): Conversation {
  return Array.isArray(tools) && tools.length > 0 ? { messages, tools } : { messages };
}

/** ShareGPT's names of roles, and those of its many descendants. */
const roles: Readonly<Record<string, string>> = {
  human: "user",
  user: "user",
  gpt: "assistant",
  chatgpt: "assistant",
  bing: "assistant",
  bard: "assistant",
  model: "assistant",
  assistant: "assistant",
  system: "system",
  tool: "tool",
  observation: "tool",
};

function shareGptTurns(value: unknown, where: string): Message[] {
  if (!Array.isArray(value)) throw rowProblem(where, "a list in `conversations`", typeof value);
  if (value.some((turn) => turn?.role !== undefined)) return parseMessages(value, where, "conversations");
  const turns = value.map((turn: unknown, i) => {
    const { from, value: content } = (turn ?? {}) as { from?: unknown; value?: unknown };
    const role = typeof from === "string" && Object.hasOwn(roles, from) ? roles[from] : undefined;
    if (role) return { role, content };
    const known = Object.keys(roles).join(", ");
    throw rowProblem(where, `one of ${known} in \`conversations.${i}.from\``, JSON.stringify(from) ?? "nothing");
  });
  return parseMessages(turns, where, "conversations");
}
