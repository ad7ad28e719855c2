import { afterAll, afterEach, describe, expect, test } from "vitest";
import { startTestServer } from "../testing.js";

let answer = "Hello there.";
const server = await startTestServer({ answer: () => answer });
afterAll(() => server.stop());
afterEach(() => {
  answer = "Hello there.";
});

const path = "/v1/chat/completions";
const hello = { model: "fake", messages: [{ role: "user", content: "Hi" }] };
const ask = (more: object = {}) => server.post(path, { ...hello, ...more });
const asked = () => server.engine.requests.at(-1)!;

test("an answer has text, reason, usage, timings and a fingerprint", async () => {
  const { status, json } = await ask();
  expect(status).toBe(200);
  // <s> and ChatML around "user\nHi" and "assistant\n": 1 + 1+7+1+1 + 1+10 tokens.
  expect(json).toMatchObject({
    object: "chat.completion",
    model: "fake",
    system_fingerprint: expect.stringMatching(/^fp_[0-9a-f]{10}$/),
    choices: [
      {
        index: 0,
        message: { role: "assistant", content: "Hello there." },
        logprobs: null,
        finish_reason: "stop",
      },
    ],
    usage: { prompt_tokens: 22, completion_tokens: 12, total_tokens: 34, prompt_tokens_details: { cached_tokens: 1 } },
    timings: {
      prompt_n: 21,
      cache_n: 1,
      predicted_n: 12,
      predicted_ms: 20,
      predicted_per_second: 600,
      time_to_first_token_ms: 12,
    },
  });
  expect(asked().text).toBe("<s><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
});

test("a stream begins with the role, ends with the reason, and tells usage when asked", async () => {
  const { events, text, headers } = await ask({ stream: true, stream_options: { include_usage: true } });
  expect(headers.get("content-type")).toBe("text/event-stream");
  expect(events[0].choices[0]).toMatchObject({ delta: { role: "assistant", content: "" }, finish_reason: null });
  expect(events.map(({ choices }) => choices[0]?.delta.content ?? "").join("")).toBe("Hello there.");
  expect(events.at(-2).choices[0]).toMatchObject({ delta: {}, finish_reason: "stop" });
  expect(events.at(-2).timings.predicted_n).toBe(12);
  expect(events.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 12 } });
  expect(text.endsWith("data: [DONE]\n\n")).toBe(true);
  const plain = await ask({ stream: true });
  expect(plain.events.every((event) => !("usage" in event))).toBe(true);
});

describe("fields that reach the sampler", () => {
  const cases: [fields: object, sampling: object][] = [
    [{}, { temperature: 1 }],
    [{ temperature: 0.3 }, { temperature: 0.3 }],
    [{ top_p: 0.9 }, { topP: 0.9 }],
    [{ top_k: 7 }, { topK: 7 }],
    [{ min_p: 0.05 }, { minP: 0.05 }],
    [{ seed: 42 }, { seed: 42 }],
    [{ frequency_penalty: 0.5 }, { frequencyPenalty: 0.5 }],
    [{ presence_penalty: -0.5 }, { presencePenalty: -0.5 }],
    [{ repeat_penalty: 1.2 }, { repeatPenalty: 1.2 }],
    [{ logit_bias: { 65: -100 } }, { logitBias: { 65: -100 } }],
    [{ temperature: null, top_p: null }, { temperature: 1 }],
  ];
  test.each(cases)("%j", async (fields, sampling) => {
    expect((await ask(fields)).status).toBe(200);
    expect(asked().sampling).toEqual({ temperature: 1, ...sampling });
  });
});

test.each(["max_tokens", "max_completion_tokens"])("%s cuts the answer", async (field) => {
  const { json } = await ask({ [field]: 5 });
  expect(json.choices[0]).toMatchObject({ message: { content: "Hello" }, finish_reason: "length" });
});

test("without a number of tokens the answer has the room that the context leaves", async () => {
  await ask();
  expect(asked().maxTokens).toBe(2048 - 22);
});

test.each([
  ["there", "Hello "],
  [[".", "lo"], "Hel"],
])("stop %j leaves %j", async (stop, content) => {
  const { json } = await ask({ stop });
  expect(json.choices[0]).toMatchObject({ message: { content }, finish_reason: "stop" });
});

test("n answers have their own index and seed", async () => {
  const before = server.engine.requests.length;
  const { json } = await ask({ n: 3, seed: 5 });
  expect(json.choices.map(({ index }: { index: number }) => index)).toEqual([0, 1, 2]);
  expect(json.usage.completion_tokens).toBe(36);
  expect(server.engine.requests.slice(before).map(({ sampling }) => sampling!.seed)).toEqual([5, 6, 7]);
  const { events } = await ask({ n: 2, stream: true });
  const texts = [0, 1].map((index) =>
    events
      .flatMap(({ choices }) => choices)
      .filter((choice) => choice.index === index)
      .map(({ delta }) => delta.content ?? "")
      .join(""),
  );
  expect(texts).toEqual(["Hello there.", "Hello there."]);
});

test("log-probabilities stand beside their tokens, with as many others as asked for", async () => {
  const { json } = await ask({ logprobs: true, top_logprobs: 2, max_tokens: 2 });
  expect(json.choices[0].logprobs.content).toEqual([
    {
      token: "H",
      logprob: -0.5,
      bytes: [72],
      top_logprobs: [
        { token: "H", logprob: -0.5, bytes: [72] },
        { token: "t1", logprob: -1.5, bytes: [116, 49] },
      ],
    },
    expect.objectContaining({ token: "e", logprob: -0.5 }),
  ]);
  const { events } = await ask({ logprobs: true, stream: true, max_tokens: 2 });
  expect(events[1].choices[0].logprobs.content).toEqual([{ token: "H", logprob: -0.5, bytes: [72], top_logprobs: [] }]);
});

describe("formats", () => {
  const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
  test("json_object and json_schema become grammars", async () => {
    await ask({ response_format: { type: "json_object" } });
    expect(asked().grammar).toEqual({ kind: "json" });
    await ask({ response_format: { type: "json_schema", json_schema: { name: "place", schema } } });
    expect(asked().grammar).toEqual({
      kind: "schema",
      schema,
    });
    await ask({ response_format: { type: "text" } });
    expect(asked().grammar).toBeUndefined();
  });

  test("a keyword that the grammar cannot hold is refused by name", async () => {
    const wrong = { type: "object", properties: { name: { type: "string", pattern: "a+" } } };
    const { status, json } = await ask({
      response_format: { type: "json_schema", json_schema: { name: "x", schema: wrong } },
    });
    expect(status).toBe(400);
    expect(json.error).toMatchObject({
      param: "response_format.json_schema.schema",
      message: expect.stringContaining("#/properties/name/pattern"),
    });
  });
});

describe("tools", () => {
  const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
  const tools = [{ type: "function", function: { name: "weather", description: "of a place", parameters } }];
  const call = '{"name": "weather", "arguments": {"city": "Bern"}}';

  test("are told by the template, and a call comes back as one", async () => {
    answer = `Let me look.\n<tool_call>\n${call}\n</tool_call>`;
    const { json } = await ask({ tools });
    expect(asked().text).toContain('Tools: [{"type": "function", "function": {"name": "weather"');
    expect(json.choices[0]).toMatchObject({
      finish_reason: "tool_calls",
      message: {
        content: "Let me look.",
        tool_calls: [{ id: expect.stringMatching(/^call_/), type: "function", function: { name: "weather" } }],
      },
    });
    expect(JSON.parse(json.choices[0].message.tool_calls[0].function.arguments)).toEqual({ city: "Bern" });
  });

  test("a call streams as one, and its text is not shown", async () => {
    answer = call;
    const { events } = await ask({ tools, stream: true });
    const deltas = events.flatMap(({ choices }) => choices).map(({ delta }) => delta);
    expect(deltas.map(({ content = "" }) => content).join("")).toBe("");
    expect(deltas.flatMap(({ tool_calls = [] }) => tool_calls)).toMatchObject([
      { index: 0, type: "function", function: { name: "weather", arguments: '{"city":"Bern"}' } },
    ]);
    expect(events.at(-1).choices[0].finish_reason).toBe("tool_calls");
  });

  test("tool_choice", async () => {
    answer = call;
    const none = await ask({ tools, tool_choice: "none" });
    expect(none.json.choices[0].message.content).toBe(call);
    expect(asked().text).not.toContain("Tools:");
    const forced = {
      kind: "schema",
      schema: {
        type: "object",
        properties: { name: { const: "weather" }, arguments: parameters },
        required: ["name", "arguments"],
        additionalProperties: false,
      },
    };
    for (const tool_choice of ["required", { type: "function", function: { name: "weather" } }]) {
      const { json } = await ask({ tools, tool_choice });
      expect(asked().grammar).toEqual(forced);
      expect(json.choices[0].finish_reason).toBe("tool_calls");
    }
    const wrong = await ask({ tools, tool_choice: { type: "function", function: { name: "stocks" } } });
    expect(wrong.json.error).toMatchObject({
      param: "tool_choice",
      message: "tool_choice: expected one of weather, found stocks",
    });
    expect((await ask({ tool_choice: "required" })).status).toBe(400);
  });

  test("parallel_tool_calls: false gives the first call alone", async () => {
    answer = `<TOOLCALL>[${call}, ${call}]</TOOLCALL>`;
    expect((await ask({ tools })).json.choices[0].message.tool_calls).toHaveLength(2);
    expect((await ask({ tools, parallel_tool_calls: false })).json.choices[0].message.tool_calls).toHaveLength(1);
  });

  test("results go back as turns", async () => {
    const messages = [
      { role: "user", content: "Weather?" },
      {
        role: "assistant",
        content: null,
        tool_calls: [{ id: "c1", type: "function", function: { name: "weather", arguments: '{"city":"Bern"}' } }],
      },
      { role: "tool", tool_call_id: "c1", content: "rain" },
    ];
    await ask({ messages, tools });
    expect(asked().text).toContain(
      '<tool_call>{"name": "weather", "arguments": {"city": "Bern"}}</tool_call><|im_end|>',
    );
    expect(asked().text).toContain("<|im_start|>tool\nrain<|im_end|>");
  });

  test("beside a format are refused by name", async () => {
    const { status, json } = await ask({ tools, response_format: { type: "json_object" } });
    expect(status).toBe(400);
    expect(json.error).toMatchObject({ param: "response_format", type: "invalid_request_error" });
  });
});

test("chat_template_kwargs and reasoning_effort reach the template", async () => {
  await ask({ chat_template_kwargs: { extra: "MORE" } });
  expect(asked().text.endsWith("assistant\nMORE")).toBe(true);
});

describe("messages", () => {
  test("of every role, in parts too", async () => {
    const messages = [
      { role: "developer", content: "Be brief." },
      {
        role: "user",
        content: [
          { type: "text", text: "a" },
          { type: "text", text: "b" },
        ],
        name: "Ann",
      },
      { role: "assistant", content: "<think>hm</think>\n\nc", reasoning_content: "hm" },
      { role: "user", content: "d" },
    ];
    await ask({ messages });
    expect(asked().text).toBe(
      "<s><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\nc<|im_end|>\n<|im_start|>user\nd<|im_end|>\n<|im_start|>assistant\n",
    );
  });

  test("pictures are refused by name", async () => {
    const messages = [{ role: "user", content: [{ type: "image_url", image_url: { url: "x" } }] }];
    const { status, json } = await ask({ messages });
    expect(status).toBe(400);
    expect(json.error.message).toContain("messages.0.content.0.type: only text is supported");
  });
});

describe("a request that is wrong is told what", () => {
  const cases: [fields: object, status: number, param: string | null][] = [
    [{ model: "nobody" }, 404, "model"],
    [{ model: 3 }, 400, "model"],
    [{ messages: [] }, 400, "messages"],
    [{ messages: [{ role: "wizard", content: "x" }] }, 400, "messages.0.role"],
    [{ temperature: "hot" }, 400, "temperature"],
    [{ temperature: 3 }, 400, "temperature"],
    [{ top_logprobs: 3 }, 400, "top_logprobs"],
    [{ logit_bias: { 9999: 1 } }, 400, "logit_bias.9999"],
    [{ logit_bias: { word: 1 } }, 400, "logit_bias.word"],
    [{ n: 0 }, 400, "n"],
    [{ n: 1000 }, 400, "n"],
    [{ functions: [] }, 400, "functions"],
    [{ audio: {} }, 400, "audio"],
    [{ max_tokens: 4, max_completion_tokens: 5 }, 400, "max_completion_tokens"],
    [{ stream_options: { include_usage: true } }, 400, "stream_options"],
    [{ thinking: "maybe" }, 400, "thinking"],
    [{ thinking: "on", reasoning_effort: "low" }, 400, "reasoning_effort"],
  ];
  test.each(cases)("%j", async (fields, status, param) => {
    const reply = await ask(fields);
    expect({ status: reply.status, param: reply.json.error.param }).toEqual({ status, param });
    expect(reply.json.error.message.length).toBeGreaterThan(10);
  });

  test("an over-long prompt with its numbers", async () => {
    const { json } = await ask({ messages: [{ role: "user", content: "x".repeat(3000) }] });
    expect(json.error.message).toBe(
      "messages: expected at most 2047 tokens, for the context has 2048, found 3020 tokens; shorten it, or serve the model with a larger --context",
    );
  });

  test("fields that only say who asks are taken", async () => {
    expect((await ask({ user: "u", metadata: { a: "b" }, store: false, service_tier: "auto" })).status).toBe(200);
  });
});

describe("a comparison", () => {
  test("answers with both models", async () => {
    const { json } = await ask({ model: "fake|other" });
    expect(json.choices).toMatchObject([
      { index: 0, model: "fake", message: { content: "Hello there." } },
      { index: 1, model: "other", message: { content: "Hello there." } },
    ]);
    expect(json.model).toBe("fake|other");
    const { events } = await ask({ model: "fake|other", stream: true });
    expect(new Set(events.flatMap(({ choices }) => choices).map(({ model }) => model))).toEqual(
      new Set(["fake", "other"]),
    );
  });

  test("names the model that is not there, and refuses n", async () => {
    expect((await ask({ model: "fake|nobody" })).json.error.message).toContain('model "nobody"');
    expect((await ask({ model: "fake|other", n: 2 })).json.error.param).toBe("n");
  });
});
