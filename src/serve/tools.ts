/** @module Tools: how they are told to a model, and how its calls are read out of the text. */
import { randomUUID } from "node:crypto";
import type { Grammar } from "../llamacpp/index.js";
import { movedSchema, schemaGrammar } from "./json-schema.js";

export interface Tool {
  name: string;
  description?: string;
  /** JSON schema of the arguments. */
  parameters: Record<string, unknown>;
}

export type ToolChoice = { kind: "auto" } | { kind: "none" } | { kind: "required" } | { kind: "named"; name: string };

export interface ToolCall {
  id: string;
  name: string;
  /** JSON text. */
  arguments: string;
}

export function newToolCall(name: string, args: unknown): ToolCall {
  const id = `call_${randomUUID().replaceAll("-", "").slice(0, 24)}`;
  return { id, name, arguments: typeof args === "string" ? args : JSON.stringify(args ?? {}) };
}

/** As chat templates take them. */
export function templateTools(tools: readonly Tool[]) {
  return tools.map(({ name, description = "", parameters }) => ({
    type: "function",
    function: { name, description, parameters },
  }));
}

/** For templates that know no tools: the convention, as a part of the system prompt. */
export function describeTools(tools: readonly Tool[]): string {
  const lines = templateTools(tools).map((tool) => JSON.stringify(tool.function));
  return [
    "You can call these functions, each described by its JSON schema:",
    ...lines,
    "To call one, answer with nothing but",
    '<tool_call>{"name": "NAME", "arguments": {...}}</tool_call>',
    "and wait for its result. Answer in words where no function is needed.",
  ].join("\n");
}

/** One call of one of these tools, and nothing else. */
export function callGrammar(tools: readonly Tool[], param: string): Grammar {
  const single = tools.length === 1;
  const calls = tools.map(({ name, parameters }, i) => {
    const place = `${single ? "" : `/anyOf/${i}`}/properties/arguments`;
    const properties = { name: { const: name }, arguments: movedSchema(parameters, place) };
    return { type: "object", properties, required: ["name", "arguments"], additionalProperties: false };
  });
  return schemaGrammar(single ? calls[0] : { anyOf: calls }, param);
}

export type ToolPiece = { kind: "text"; text: string } | { kind: "call"; call: ToolCall };

export interface ToolCallReader {
  push(text: string): ToolPiece[];
  /** What was held back. */
  end(): ToolPiece[];
}

const blocks = [
  { open: "<tool_call>", close: "</tool_call>" },
  { open: "<TOOLCALL>", close: "</TOOLCALL>" },
] as const;

/**
 * Tells calls from text while it streams: `<tool_call>{...}</tool_call>`, `<TOOLCALL>[...]</TOOLCALL>`, or an answer that is
 * nothing but JSON with `name` and `arguments` (or `parameters`). What only looked like a call comes back as text.
 */
export function createToolCallReader(tools: readonly Tool[]): ToolCallReader {
  const known = new Set(tools.map(({ name }) => name));
  let held = "";
  let block: (typeof blocks)[number] | undefined;
  let started = false;

  const readText = (): ToolPiece[] | undefined => {
    if (!started && /^\s*[[{]/.test(held)) return undefined;
    const next = blocks
      .map((candidate) => ({ candidate, at: held.indexOf(candidate.open) }))
      .filter(({ at }) => at >= 0)
      .sort((a, b) => a.at - b.at)[0];
    if (next) {
      const text = held.slice(0, next.at).trimEnd();
      held = held.slice(next.at + next.candidate.open.length);
      block = next.candidate;
      return text === "" ? [] : [{ kind: "text", text }];
    }
    const keep = heldTail(held);
    const text = held.slice(0, held.length - keep);
    held = held.slice(held.length - keep);
    if (text.trim() !== "") started = true;
    return text === "" ? undefined : [{ kind: "text", text }];
  };

  const readBlock = (): ToolPiece[] | undefined => {
    const { open, close } = block!;
    const at = held.indexOf(close);
    if (at < 0) return undefined;
    const inside = held.slice(0, at);
    held = held.slice(at + close.length);
    block = undefined;
    return parseCalls(inside) ?? [{ kind: "text", text: `${open}${inside}${close}` }];
  };

  return {
    push(text) {
      held += text;
      const pieces: ToolPiece[] = [];
      for (;;) {
        const more = block ? readBlock() : readText();
        if (!more) return pieces;
        pieces.push(...more);
      }
    },
    end() {
      if (held.trim() === "" && !block) return held === "" || started === false ? [] : [{ kind: "text", text: held }];
      const calls = parseCalls(held);
      const named = calls?.every((piece) => piece.kind === "call" && (block || known.has(piece.call.name)));
      if (calls && named) return calls;
      return [{ kind: "text", text: `${block?.open ?? ""}${held}` }];
    },
  };
}

/** Characters at the end that may begin a marker, with the space before it. */
function heldTail(text: string): number {
  const marker = markerTail(text);
  const before = text.slice(0, text.length - marker);
  return marker + before.length - before.trimEnd().length;
}

function markerTail(text: string): number {
  const longest = Math.max(...blocks.map(({ open }) => open.length));
  for (let length = Math.min(longest - 1, text.length); length > 0; length--) {
    if (blocks.some(({ open }) => open.startsWith(text.slice(-length)))) return length;
  }
  return 0;
}

/** One call or a list of them; undefined where it is something else. */
function parseCalls(text: string): ToolPiece[] | undefined {
  const value = parseJson(text);
  const list = Array.isArray(value) ? value : [value];
  const calls = list.map(readCall);
  return list.length > 0 && calls.every((call) => call !== undefined) ? calls : undefined;
}

function readCall(value: unknown): ToolPiece | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { name, arguments: args, parameters, function: inner } = value as Record<string, unknown>;
  if (typeof inner === "object" && inner !== null) return readCall(inner);
  const given = args ?? parameters;
  if (typeof name !== "string" || (args === undefined && parameters === undefined)) return undefined;
  return { kind: "call", call: newToolCall(name, given) };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
