import { describe, expect, test } from "vitest";
import { createToolCallReader, type Tool } from "./tools.js";

const tools: Tool[] = [{ name: "weather", parameters: { type: "object", properties: {} } }];

/** Text and calls, read in pieces of this many characters. */
function read(text: string, size: number) {
  const reader = createToolCallReader(tools);
  const pieces = [];
  for (let i = 0; i < text.length; i += size) pieces.push(...reader.push(text.slice(i, i + size)));
  pieces.push(...reader.end());
  return {
    text: pieces.map((piece) => (piece.kind === "text" ? piece.text : "")).join(""),
    calls: pieces.flatMap((piece) =>
      piece.kind === "call" ? [[piece.call.name, JSON.parse(piece.call.arguments)]] : [],
    ),
  };
}

const call = '{"name": "weather", "arguments": {"city": "Bern"}}';
const found = ["weather", { city: "Bern" }];

const cases: [text: string, expected: { text: string; calls: unknown[] }][] = [
  ["Just text.", { text: "Just text.", calls: [] }],
  [`<tool_call>${call}</tool_call>`, { text: "", calls: [found] }],
  [`\n<tool_call>\n${call}\n</tool_call>\n<tool_call>${call}</tool_call>\n`, { text: "", calls: [found, found] }],
  [`I look.\n\n<tool_call>${call}</tool_call>`, { text: "I look.", calls: [found] }],
  [`<TOOLCALL>[${call}, ${call}]</TOOLCALL>`, { text: "", calls: [found, found] }],
  [call, { text: "", calls: [found] }],
  ['{"name": "weather", "parameters": {"city": "Bern"}}', { text: "", calls: [found] }],
  [`[${call}]`, { text: "", calls: [found] }],
  [`{"type": "function", "function": ${call}}`, { text: "", calls: [found] }],
  // The end token may come before the closing tag.
  [`<tool_call>${call}`, { text: "", calls: [found] }],
  // JSON that is an answer, and calls of what nobody offered.
  ['{"city": "Bern"}', { text: '{"city": "Bern"}', calls: [] }],
  ['{"name": "stocks", "arguments": {}}', { text: '{"name": "stocks", "arguments": {}}', calls: [] }],
  ["<tool_call>not JSON</tool_call> x", { text: "<tool_call>not JSON</tool_call> x", calls: [] }],
  ["a < b <tool", { text: "a < b <tool", calls: [] }],
];

describe("calls are told from text, in pieces of any size", () => {
  test.each(cases)("%j", (text, expected) => {
    for (const size of [1, 3, 7, 1000]) expect(read(text, size)).toEqual(expected);
  });
});

test("text streams while nothing looks like a call", () => {
  const reader = createToolCallReader(tools);
  expect(reader.push("Hello <b")).toEqual([{ kind: "text", text: "Hello <b" }]);
  expect(reader.push(" there <tool")).toEqual([{ kind: "text", text: " there" }]);
});
