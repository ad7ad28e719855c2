import { afterAll, afterEach, expect, test } from "vitest";
import { startTestServer } from "../testing.js";

let answer = "Hello there.";
const server = await startTestServer({ answer: () => answer });
afterAll(() => server.stop());
afterEach(() => {
  answer = "Hello there.";
});
const ask = (more: object = {}) => server.post("/v1/responses", { model: "fake", input: "Hi", ...more });
const asked = () => server.engine.requests.at(-1)!;

test("a text is answered with an item", async () => {
  const { json } = await ask({ instructions: "Be brief." });
  expect(json).toMatchObject({
    id: expect.stringMatching(/^resp_/),
    object: "response",
    status: "completed",
    output: [{ type: "message", role: "assistant", content: [{ type: "output_text", text: "Hello there." }] }],
    usage: { input_tokens: 41, output_tokens: 12, total_tokens: 53, input_tokens_details: { cached_tokens: 1 } },
    store: false,
  });
  expect(asked().text).toContain("system\nBe brief.");
});

test("items of every kind become the conversation", async () => {
  await ask({
    input: [
      { role: "developer", content: "Rules." },
      { type: "message", role: "user", content: [{ type: "input_text", text: "Weather?" }] },
      { type: "reasoning", id: "rs_1", summary: [] },
      { type: "message", role: "assistant", content: [{ type: "output_text", text: "Let me look.", annotations: [] }] },
      { type: "function_call", call_id: "c1", name: "weather", arguments: '{"city":"Bern"}' },
      { type: "function_call_output", call_id: "c1", output: "rain" },
    ],
  });
  expect(asked().text).toBe(
    '<s><|im_start|>system\nRules.<|im_end|>\n<|im_start|>user\nWeather?<|im_end|>\n<|im_start|>assistant\nLet me look.<tool_call>{"name": "weather", "arguments": {"city": "Bern"}}</tool_call><|im_end|>\n<|im_start|>tool\nrain<|im_end|>\n<|im_start|>assistant\n',
  );
});

test("a stream counts its events, and ends with the whole", async () => {
  const { events } = await ask({ stream: true });
  expect(events.map(({ sequence_number }) => sequence_number)).toEqual(events.map((_, i) => i));
  const types = events.map(({ type }) => type);
  expect(types.filter((type, i) => type !== types[i - 1])).toEqual([
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
  ]);
  expect(events.at(-1).response).toMatchObject({ status: "completed", output_text: "Hello there." });
  expect(events.at(-1).response.output[0].content[0].text).toBe("Hello there.");
});

test("a call is an item, whole and streamed", async () => {
  answer = '{"name": "weather", "arguments": {"city": "Bern"}}';
  const tools = [{ type: "function", name: "weather", parameters: { type: "object", properties: {} }, strict: false }];
  const { json } = await ask({ tools });
  expect(json.output).toMatchObject([
    { type: "function_call", name: "weather", arguments: '{"city":"Bern"}', status: "completed" },
  ]);
  const { events } = await ask({ tools, stream: true });
  expect(events.find(({ type }) => type === "response.function_call_arguments.done").arguments).toBe('{"city":"Bern"}');
  await ask({ tools, tool_choice: { type: "function", name: "weather" } });
  expect(asked().grammar).toBeDefined();
  await ask({ tools, tool_choice: "none" });
  expect(asked().text).not.toContain("Tools:");
  answer = `<TOOLCALL>[${answer}, ${answer}]</TOOLCALL>`;
  expect((await ask({ tools, parallel_tool_calls: false })).json.output).toHaveLength(1);
});

test("formats, sampling, length", async () => {
  await ask({
    text: {
      format: { type: "json_schema", name: "x", schema: { type: "object", properties: { a: { type: "null" } } } },
    },
  });
  expect(asked().grammar).toEqual({ kind: "schema", schema: { type: "object", properties: { a: { type: "null" } } } });
  await ask({ text: { format: { type: "json_object" } }, temperature: 0.2, top_p: 0.3, seed: 4 });
  expect(asked()).toMatchObject({ grammar: { kind: "json" }, sampling: { temperature: 0.2, topP: 0.3, seed: 4 } });
  const { json } = await ask({ max_output_tokens: 5 });
  expect(json).toMatchObject({
    status: "incomplete",
    incomplete_details: { reason: "max_output_tokens" },
    output_text: "Hello",
  });
  await ask({ chat_template_kwargs: { extra: "MORE" } });
  expect(asked().text.endsWith("MORE")).toBe(true);
});

test.each([
  [{ previous_response_id: "resp_1" }, "previous_response_id"],
  [{ background: true }, "background"],
  [{ truncation: "auto" }, "truncation"],
  [{ include: ["reasoning.encrypted_content"] }, "include"],
  [{ conversation: "c" }, "conversation"],
  [{ tools: [{ type: "web_search" }] }, "tools.0.type"],
  [{ input: [{ role: "user", content: [{ type: "input_image", image_url: "x" }] }] }, "input.0.content.0.type"],
])("%j is refused by name", async (fields, param) => {
  const { status, json } = await ask(fields);
  expect([status, json.error.param]).toEqual([400, param]);
});

test("a comparison answers with one model after the other", async () => {
  expect((await ask({ model: "fake|other" })).json.output_text).toBe(
    "**fake**\n\nHello there.\n\n**other**\n\nHello there.",
  );
});
