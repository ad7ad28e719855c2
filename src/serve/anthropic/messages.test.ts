import { afterAll, afterEach, describe, expect, test } from "vitest";
import { startTestServer } from "../testing.js";

let answer = "Hello there.";
const server = await startTestServer({ answer: () => answer });
afterAll(() => server.stop());
afterEach(() => {
  answer = "Hello there.";
});

const hello = { model: "fake", max_tokens: 100, messages: [{ role: "user", content: "Hi" }] };
const ask = (more: object = {}) => server.post("/v1/messages", { ...hello, ...more });
const asked = () => server.engine.requests.at(-1)!;

test("an answer has blocks, a reason, and usage that counts the cache apart", async () => {
  const { json } = await ask();
  expect(json).toMatchObject({
    id: expect.stringMatching(/^msg_/),
    type: "message",
    role: "assistant",
    model: "fake",
    content: [{ type: "text", text: "Hello there." }],
    stop_reason: "end_turn",
    stop_sequence: null,
    usage: { input_tokens: 21, cache_read_input_tokens: 1, output_tokens: 12 },
    timings: { predicted_n: 12 },
  });
});

test("a stream has the events in their order", async () => {
  const { events } = await ask({ stream: true });
  const types = events.map(({ type }) => type);
  expect(types.filter((type, i) => type !== types[i - 1])).toEqual([
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
  ]);
  expect(events.map(({ delta }) => delta?.text ?? "").join("")).toBe("Hello there.");
  expect(events.at(-2)).toMatchObject({ delta: { stop_reason: "end_turn" }, usage: { output_tokens: 12 } });
});

const sampling: [fields: object, sampling: object][] = [
  [{}, { temperature: 1 }],
  [{ temperature: 0.2 }, { temperature: 0.2 }],
  [{ top_k: 3 }, { temperature: 1, topK: 3 }],
  [{ top_p: 0.5 }, { temperature: 1, topP: 0.5 }],
];
test.each(sampling)("%j reaches the sampler", async (fields, expected) => {
  await ask(fields);
  expect(asked().sampling).toEqual(expected);
});

test("max_tokens and stop_sequences end the answer, each with its reason", async () => {
  expect((await ask({ max_tokens: 5 })).json).toMatchObject({
    content: [{ text: "Hello" }],
    stop_reason: "max_tokens",
  });
  expect((await ask({ stop_sequences: [" t"] })).json).toMatchObject({
    content: [{ text: "Hello" }],
    stop_reason: "stop_sequence",
    stop_sequence: " t",
  });
});

test("system, blocks, results of tools and the beginning of an answer", async () => {
  await ask({
    system: [{ type: "text", text: "Be brief." }],
    messages: [
      { role: "user", content: [{ type: "text", text: "Weather?", cache_control: { type: "ephemeral" } }] },
      {
        role: "assistant",
        content: [
          { type: "thinking", thinking: "hm", signature: "" },
          { type: "tool_use", id: "t1", name: "weather", input: { city: "Bern" } },
        ],
      },
      {
        role: "user",
        content: [
          { type: "tool_result", tool_use_id: "t1", content: "rain", is_error: true },
          { type: "text", text: "So?" },
        ],
      },
      { role: "assistant", content: "It" },
    ],
  });
  expect(asked().text).toBe(
    '<s><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWeather?<|im_end|>\n<|im_start|>assistant\n<tool_call>{"name": "weather", "arguments": {"city": "Bern"}}</tool_call><|im_end|>\n' +
      "<|im_start|>tool\nError: rain<|im_end|>\n<|im_start|>user\nSo?<|im_end|>\n<|im_start|>assistant\nIt",
  );
});

describe("tools", () => {
  const tools = [
    { name: "weather", description: "d", input_schema: { type: "object", properties: { city: { type: "string" } } } },
  ];
  const call = '<tool_call>{"name": "weather", "arguments": {"city": "Bern"}}</tool_call>';

  test("become blocks, streamed as JSON", async () => {
    answer = `I look. ${call}`;
    const { json } = await ask({ tools });
    expect(json).toMatchObject({
      content: [
        { type: "text", text: "I look." },
        { type: "tool_use", name: "weather", input: { city: "Bern" } },
      ],
      stop_reason: "tool_use",
    });
    const { events } = await ask({ tools, stream: true });
    expect(
      events
        .filter(({ type }) => type === "content_block_start")
        .map(({ index, content_block }) => [index, content_block.type]),
    ).toEqual([
      [0, "text"],
      [1, "tool_use"],
    ]);
    expect(events.find(({ delta }) => delta?.type === "input_json_delta").delta.partial_json).toBe('{"city":"Bern"}');
  });

  test("tool_choice", async () => {
    await ask({ tools, tool_choice: { type: "any" } });
    expect(asked().grammar).toMatchObject({ kind: "schema", schema: { properties: { name: { const: "weather" } } } });
    await ask({ tools, tool_choice: { type: "tool", name: "weather" } });
    expect(asked().grammar).toBeDefined();
    await ask({ tools, tool_choice: { type: "none" } });
    expect(asked().text).not.toContain("Tools:");
    answer = call + call;
    const one = await ask({ tools, max_tokens: 1000, tool_choice: { type: "auto", disable_parallel_tool_use: true } });
    expect(one.json.content).toHaveLength(1);
  });
});

test("count_tokens counts what a message would be asked with", async () => {
  const { json } = await server.post("/v1/messages/count_tokens", { model: "fake", messages: hello.messages });
  expect(json).toEqual({ input_tokens: 22 });
});

test("errors are Anthropic's", async () => {
  const wrong = await ask({ max_tokens: undefined });
  expect(wrong.status).toBe(400);
  expect(wrong.json).toMatchObject({
    type: "error",
    error: { type: "invalid_request_error" },
    request_id: expect.stringMatching(/^req_/),
  });
  expect(wrong.json.error.message).toContain("max_tokens");
  expect((await ask({ model: "nobody" })).json.error.type).toBe("not_found_error");
  const image = await ask({ messages: [{ role: "user", content: [{ type: "image", source: {} }] }] });
  expect(image.json.error.message).toContain("images and documents are not supported");
  expect((await ask({ container: "x" })).json.error.message).toBe("container: this field is not supported");
  expect((await ask({ metadata: { user_id: "u" }, service_tier: "auto" })).status).toBe(200);
});

test("a comparison answers with one model after the other", async () => {
  const text = "**fake**\n\nHello there.\n\n**other**\n\nHello there.";
  const { json } = await ask({ model: "fake|other" });
  expect(json.content).toEqual([{ type: "text", text }]);
  expect(json.usage.output_tokens).toBe(24);
});
