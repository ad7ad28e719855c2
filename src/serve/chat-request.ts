/** @module What all dialects ask for, and what they are answered: one conversation in, events out. */
import type { CompletionTimings, Grammar, Sampling, TokenLogprob } from "../llamacpp/index.js";
import type { Tool, ToolCall, ToolChoice } from "./tools.js";

/** `budget`: at most so many tokens of thought, then it is closed. */
export type Thinking = "on" | "off" | "auto" | { budget: number };

export interface Turn {
  role: "system" | "user" | "assistant" | "tool";
  content: string;
  name?: string;
  /** Of an assistant. */
  toolCalls?: readonly ToolCall[];
  /** Of a tool's result: the call that it answers. */
  toolCallId?: string;
}

export interface ChatRequest {
  turns: readonly Turn[];
  tools: readonly Tool[];
  toolChoice: ToolChoice;
  /** Whether one answer may hold several calls. Defaults to true. */
  parallelCalls?: boolean;
  /** What the answer must match. */
  grammar?: Grammar;
  thinking: Thinking;
  /** As the request gave it; `defaults` fill what it leaves open, after what a model's makers advise for thinking. */
  sampling: Sampling;
  defaults: Sampling;
  /** Defaults to what the context has room for. */
  maxTokens?: number;
  stop: readonly string[];
  /** Answers. Defaults to 1. */
  choices?: number;
  /** Log-probabilities, with those of so many likeliest tokens. */
  logprobs?: number;
  /** For the chat template. */
  variables?: Readonly<Record<string, unknown>>;
  /** The last turn, an assistant's, is the beginning of the answer. */
  continueLast?: boolean;
  /** Goes to the model as it is, in place of the turns. */
  rawPrompt?: string;
  /** Throws where the request wants another context than the model has. */
  checkContext?: (contextSize: number) => void;
}

export type Finish = "stop" | "length" | "tool_calls";

export interface ChatEnd {
  kind: "end";
  choice: number;
  finish: Finish;
  /** The stop text that ended it. */
  stopText?: string;
  /** Of the generated tokens, those of the thought. */
  thoughtTokens: number;
  timings: CompletionTimings;
}

/** `choice` counts the answers; in a comparison it counts the models. */
export type ChatEvent =
  | { kind: "start"; models: readonly StartedModel[] }
  | { kind: "thought"; choice: number; text: string }
  | { kind: "text"; choice: number; text: string; tokens: readonly TokenLogprob[] }
  | { kind: "call"; choice: number; index: number; call: ToolCall }
  | ChatEnd;

export interface StartedModel {
  name: string;
  fingerprint: string;
  promptTokens: number;
}

/** A whole answer, gathered. */
export interface Answer {
  text: string;
  thought: string;
  tokens: TokenLogprob[];
  calls: ToolCall[];
  end: ChatEnd;
}

export interface Gathered {
  models: readonly StartedModel[];
  answers: Answer[];
}

/** Reads all events; what dialects answer when nothing is streamed. */
export async function gather(events: AsyncIterable<ChatEvent>): Promise<Gathered> {
  const gathered: Gathered = { models: [], answers: [] };
  for await (const event of events) {
    if (event.kind === "start") {
      gathered.models = event.models;
      continue;
    }
    gathered.answers[event.choice] ??= { text: "", thought: "", tokens: [], calls: [], end: unfinished };
    const answer = gathered.answers[event.choice]!;
    if (event.kind === "thought") answer.thought += event.text;
    else if (event.kind === "text") {
      answer.text += event.text;
      answer.tokens.push(...event.tokens);
    } else if (event.kind === "call") answer.calls.push(event.call);
    else answer.end = event;
  }
  return gathered;
}

const unfinished: ChatEnd = {
  kind: "end",
  choice: 0,
  finish: "stop",
  thoughtTokens: 0,
  timings: {
    promptTokens: 0,
    cachedTokens: 0,
    queueMs: 0,
    promptMs: 0,
    firstTokenMs: 0,
    generatedTokens: 0,
    generateMs: 0,
  },
};
