/**
 * @module Thoughts and answers of reasoning models. Llama-Nemotron spells `<think>` with several tokens, so thoughts are
 * told from answers as text, while it streams; and it is told to think, or not to, by an exact system prompt.
 */
import { EspalierError } from "../base/index.js";
import { thinkingPrompt } from "../data/index.js";
import type { ChatMessage } from "../tokenizer/index.js";

export type ThinkingMode = "on" | "off" | "auto";

/** What of a text is thought, and what is answer. */
export interface ThinkingText {
  thinking: string;
  answer: string;
}

export interface ThinkingSplitter {
  /** What has become certain with this piece; beginnings of tags and white space at the edges are held back. */
  push(text: string): ThinkingText;
  /** What was held back. A thought that was never closed is all thought. */
  end(): ThinkingText;
  /** Where the text stands: before the first word, inside the thought, or after it. */
  readonly state: "start" | "thinking" | "answer";
}

export interface SplitterOptions {
  /** The prompt itself has opened the thought. Defaults to false. */
  opened?: boolean;
}

const opening = "<think>";
const closing = "</think>";
/** What is put at the end of a thought that is cut off. */
export const forcedClosing = `${closing}\n\n`;

/** Splits one answer. Only a thought at its beginning counts: a tag further on is a text about tags. */
export function createThinkingSplitter({ opened = false }: SplitterOptions = {}): ThinkingSplitter {
  let state: ThinkingSplitter["state"] = opened ? "thinking" : "start";
  let held = "";
  // White space after a tag is no part of what follows.
  let atEdge = opened;

  const skipEdge = () => {
    if (!atEdge) return;
    held = held.trimStart();
    atEdge = held === "";
  };
  const takeThought = (): string => {
    skipEdge();
    const close = held.indexOf(closing);
    if (close >= 0) {
      const thought = held.slice(0, close).trimEnd();
      held = held.slice(close + closing.length);
      [state, atEdge] = ["answer", true];
      return thought;
    }
    const certain = held.slice(0, held.length - heldBack(held, closing)).trimEnd();
    held = held.slice(certain.length);
    return certain;
  };
  const takeStart = () => {
    const text = held.trimStart();
    if (text.startsWith(opening)) {
      held = text.slice(opening.length);
      [state, atEdge] = ["thinking", true];
    } else if (!opening.startsWith(text)) state = "answer";
  };

  return {
    push(text) {
      held += text;
      if (state === "start") takeStart();
      const thinking = state === "thinking" ? takeThought() : "";
      if (state !== "answer") return { thinking, answer: "" };
      skipEdge();
      const answer = held;
      held = "";
      return { thinking, answer };
    },
    end() {
      const rest = held;
      held = "";
      return state === "thinking" ? { thinking: rest.trimEnd(), answer: "" } : { thinking: "", answer: rest };
    },
    get state() {
      return state;
    },
  };
}

/** Length of the longest end of the text that may begin the tag. */
function heldBack(text: string, tag: string): number {
  for (let length = Math.min(tag.length - 1, text.length); length > 0; length--) {
    if (text.endsWith(tag.slice(0, length))) return length;
  }
  return 0;
}

/** Splits a whole text. */
export function splitThinking(text: string, options?: SplitterOptions): ThinkingText {
  const splitter = createThinkingSplitter(options);
  const [first, last] = [splitter.push(text), splitter.end()];
  return { thinking: first.thinking + last.thinking, answer: first.answer + last.answer };
}

/** Whether a rendered prompt ends inside a thought, which some templates open themselves. */
export function opensThought(prompt: string): boolean {
  return prompt.trimEnd().endsWith(opening);
}

/**
 * How a model is told to think: `system`, an exact system prompt (Llama-Nemotron v1); `no_think`, a word in the system prompt
 * that turns it off (Llama-Nemotron v1.5); `variable`, `enable_thinking` of the template; `always`, it cannot be turned
 * off; `none`, it does not think.
 */
export type ThinkingSwitch = "system" | "no_think" | "variable" | "always" | "none";

/** Reads the switch off the chat template and, where that says nothing, the model's name. */
export function thinkingSwitchOf({
  chatTemplate = "",
  name = "",
}: {
  chatTemplate?: string;
  name?: string;
}): ThinkingSwitch {
  const nemotron = /nemotron/i.test(name) && /llama/i.test(name) && /nano|super|ultra/i.test(name);
  if (chatTemplate.includes("/no_think") || (nemotron && /v1[._]5/i.test(name))) return "no_think";
  if (chatTemplate.includes("detailed thinking") || nemotron) return "system";
  if (chatTemplate.includes("enable_thinking")) return "variable";
  return chatTemplate.includes(closing) ? "always" : "none";
}

export interface SwitchedConversation<M extends ChatMessage> {
  messages: M[];
  /** For the template. */
  variables: Record<string, unknown>;
  /** What the model's makers advise, for what the request leaves open; empty with "auto". */
  sampling: { temperature?: number; topP?: number };
}

const advised = { on: { temperature: 0.6, topP: 0.95 }, off: { temperature: 0 } } as const;

/**
 * The conversation with the switch set. `auto` leaves everything as it is. Under `system` the switch is the whole system
 * prompt, and the user's own system text moves to the front of the first user turn, as the makers ask.
 *
 * @throws EspalierError where the model has no such switch
 */
export function setThinking<M extends ChatMessage>(
  messages: readonly M[],
  mode: ThinkingMode,
  how: ThinkingSwitch,
  where = "thinking",
): SwitchedConversation<M> {
  if (mode === "auto") return { messages: [...messages], variables: {}, sampling: {} };
  if (how === (mode === "on" ? "none" : "always")) throw noSwitch(mode, where);
  const variables = how === "variable" ? { enable_thinking: mode === "on" } : {};
  const sampling = how === "none" ? {} : advised[mode];
  if (how === "system") return { messages: withSystemSwitch(messages, mode), variables, sampling };
  if (how === "no_think") return { messages: withWord(messages, mode), variables, sampling };
  return { messages: [...messages], variables, sampling };
}

function noSwitch(mode: ThinkingMode, where: string): EspalierError {
  const found = mode === "on" ? "a model that was not trained to think" : "a model that cannot be kept from thinking";
  const expected = `a model whose thinking can be turned ${mode}`;
  return new EspalierError({ where, expected, found, fix: 'leave thinking on "auto"', exitCode: 2 });
}

function withSystemSwitch<M extends ChatMessage>(messages: readonly M[], mode: "on" | "off"): M[] {
  const [first] = messages;
  const own = first?.role === "system" ? first.content.replace(/^detailed thinking (?:on|off)\.?\s*/, "").trim() : "";
  const rest = first?.role === "system" ? messages.slice(1) : [...messages];
  const system = { ...first, role: "system", content: thinkingPrompt(mode) } as M;
  if (own === "") return [system, ...rest];
  const user = rest.findIndex(({ role }) => role === "user");
  if (user < 0) return [system, { role: "user", content: own } as M, ...rest];
  const moved = rest.map((message, i) =>
    i === user ? { ...message, content: `${own}\n\n${message.content}` } : message,
  );
  return [system, ...moved];
}

const offWord = "/no_think";

function withWord<M extends ChatMessage>(messages: readonly M[], mode: "on" | "off"): M[] {
  const [first] = messages;
  const system = first?.role === "system";
  const own = system ? first.content.replaceAll(offWord, "").trim() : "";
  const rest = system ? messages.slice(1) : [...messages];
  const content = mode === "off" ? [offWord, own].filter(Boolean).join("\n\n") : own;
  return content === "" ? rest : [{ ...(system && first), role: "system", content } as M, ...rest];
}

/** The conversation without the thoughts of earlier answers, which models are not shown again. */
export function dropThoughts<M extends ChatMessage>(messages: readonly M[]): M[] {
  return messages.map((message) => {
    const close = message.role === "assistant" ? message.content.lastIndexOf(closing) : -1;
    return close < 0 ? message : { ...message, content: message.content.slice(close + closing.length).trimStart() };
  });
}
