// The clients that people use, against the server over the real engine on a real, tiny model.
import { join } from "node:path";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import Anthropic from "@anthropic-ai/sdk";
import { generateObject, generateText, jsonSchema, streamText, tool } from "ai";
import { Ollama } from "ollama";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { repositoryPath, temporaryDirectory } from "../src/base/testing.js";
import { createInferenceEngine } from "../src/llamacpp/index.js";
import { openModel, writeGguf } from "../src/models/index.js";
import { type ModelServer, startServer } from "../src/serve/index.js";
import { fakeTemplate, startTestServer } from "../src/serve/testing.js";

const directory = temporaryDirectory();
const engine = createInferenceEngine();
let server: ModelServer;
let openai: OpenAI;
let anthropic: Anthropic;
let ollama: Ollama;
let provider: ReturnType<typeof createOpenAICompatible>;

beforeAll(async () => {
  const model = await openModel(repositoryPath("models/stories260K"));
  await writeGguf(model, join(directory, "stories.gguf"));
  await writeGguf(model, join(directory, "rough.gguf"), { type: "q8_0" });
  await model.close();
  server = await startServer({
    engine,
    models: ["stories", "rough"].map((name) => ({ name, gguf: join(directory, `${name}.gguf`) })),
    load: { threads: 1, contextSize: 512, sequences: 4 },
    port: 0,
    apiKeys: ["secret"],
  });
  openai = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "secret", maxRetries: 0 });
  anthropic = new Anthropic({ baseURL: server.url, apiKey: "secret", maxRetries: 0 });
  ollama = new Ollama({ host: server.url, headers: { authorization: "Bearer secret" } });
  provider = createOpenAICompatible({
    name: "espalier",
    baseURL: `${server.url}/v1`,
    apiKey: "secret",
    includeUsage: true,
    supportsStructuredOutputs: true,
  });
});
afterAll(async () => {
  await server.stop();
  await engine.dispose();
});

const messages = [{ role: "user" as const, content: "Tell me a story." }];
const greedy = { temperature: 0, max_tokens: 12 };
/** The beginning of every greedy story. */
const story = "Once upon a time";

const weather = {
  name: "weather",
  description: "The weather of a place",
  parameters: {
    type: "object" as const,
    properties: { city: { enum: ["Bern", "Rome"] } },
    required: ["city"],
    additionalProperties: false,
  },
};

describe("openai", () => {
  test("chats, whole and streamed alike", async () => {
    const whole = await openai.chat.completions.create({ model: "stories", messages, ...greedy });
    const text = whole.choices[0]!.message.content!;
    expect(text.length).toBeGreaterThan(10);
    expect(whole.choices[0]!.finish_reason).toBe("length");
    expect(whole.usage).toMatchObject({ completion_tokens: 12 });
    const stream = await openai.chat.completions.create({
      model: "stories",
      messages,
      ...greedy,
      stream: true,
      stream_options: { include_usage: true },
    });
    let streamed = "";
    let usage: OpenAI.CompletionUsage | null | undefined;
    for await (const chunk of stream) {
      streamed += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage;
    }
    expect(streamed).toBe(text);
    expect(usage).toMatchObject({ completion_tokens: 12, prompt_tokens: whole.usage!.prompt_tokens });
  });

  test("the streaming helper gathers the same", async () => {
    const runner = openai.chat.completions.stream({ model: "stories", messages, ...greedy });
    expect((await runner.finalChatCompletion()).choices[0]!.finish_reason).toBe("length");
  });

  test("a forced call fits its tool", async () => {
    const answer = await openai.chat.completions.create({
      model: "stories",
      messages,
      temperature: 0,
      tools: [{ type: "function", function: weather }],
      tool_choice: "required",
    });
    const call = answer.choices[0]!.message.tool_calls![0]!;
    expect(answer.choices[0]!.finish_reason).toBe("tool_calls");
    expect(call.type === "function" && call.function.name).toBe("weather");
    expect(["Bern", "Rome"]).toContain(JSON.parse(call.type === "function" ? call.function.arguments : "").city);
  });

  test("a format is kept", async () => {
    const answer = await openai.chat.completions.create({
      model: "stories",
      messages,
      seed: 1,
      response_format: { type: "json_schema", json_schema: { name: "weather", schema: weather.parameters } },
    });
    expect(["Bern", "Rome"]).toContain(JSON.parse(answer.choices[0]!.message.content!).city);
  });

  test("scores prompts of text and of ids alike", async () => {
    const ask = { model: "stories", max_tokens: 1, echo: true, logprobs: 1, temperature: 0 };
    const text = await openai.completions.create({ ...ask, prompt: story });
    const lists = text.choices[0]!.logprobs!;
    expect(text.choices[0]!.text.startsWith(story)).toBe(true);
    expect(lists.token_logprobs![0]).toBeNull();
    expect(lists.token_logprobs!.slice(1).every((value) => value! < 0)).toBe(true);
    expect(lists.tokens!.length).toBe(text.usage!.prompt_tokens + 1);
    // Every story of the training text begins so.
    expect(lists.token_logprobs!.slice(2, -1).reduce((sum, value) => sum + value!, 0)).toBeGreaterThan(-6);
  });

  test("embeds, in floats and in base64", async () => {
    const [packed, plain] = await Promise.all([
      openai.embeddings.create({ model: "stories", input: [story, "A dog"] }),
      openai.embeddings.create({ model: "stories", input: story, encoding_format: "float" }),
    ]);
    expect(packed.data.map(({ embedding }) => embedding.length)).toEqual([64, 64]);
    expect(packed.data[0]!.embedding[5]).toBeCloseTo(plain.data[0]!.embedding[5]!, 5);
    expect(Math.hypot(...plain.data[0]!.embedding)).toBeCloseTo(1, 5);
  });

  test("responses, whole and streamed", async () => {
    const ask = { model: "stories", input: "Tell me a story.", max_output_tokens: 12, temperature: 0 };
    const whole = await openai.responses.create(ask);
    expect(whole.status).toBe("incomplete");
    const stream = openai.responses.stream(ask);
    const last = await stream.finalResponse();
    expect(last.output_text).toBe(whole.output_text);
    expect(last.output[0]).toMatchObject({ type: "message", content: [{ type: "output_text" }] });
  });

  test("lists models, compares two, and throws its own errors", async () => {
    expect((await openai.models.list()).data.map(({ id }) => id)).toEqual(["stories", "rough"]);
    expect((await openai.models.retrieve("rough")).id).toBe("rough");
    const both = await openai.chat.completions.create({ model: "stories|rough", messages, ...greedy });
    expect(both.choices).toHaveLength(2);
    const unknown = openai.chat.completions.create({ model: "nobody", messages });
    await expect(unknown).rejects.toBeInstanceOf(OpenAI.NotFoundError);
    const wrong = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "no", maxRetries: 0 }).models.list();
    await expect(wrong).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
    const long = openai.chat.completions.create({
      model: "stories",
      messages: [{ role: "user", content: "a ".repeat(2000) }],
    });
    await expect(long).rejects.toThrow(/messages: expected at most 511 tokens, .* found \d+ tokens/);
  });
});

describe("@anthropic-ai/sdk", () => {
  test("messages, whole and streamed alike, and their count", async () => {
    const ask = { model: "stories", max_tokens: 12, temperature: 0, messages };
    const whole = await anthropic.messages.create(ask);
    expect(whole).toMatchObject({ stop_reason: "max_tokens", usage: { output_tokens: 12 } });
    const last = await anthropic.messages.stream(ask).finalMessage();
    expect(last.content).toEqual(whole.content);
    const { input_tokens } = await anthropic.messages.countTokens({ model: "stories", messages });
    expect(input_tokens).toBe(whole.usage.input_tokens + whole.usage.cache_read_input_tokens!);
  });

  test("a forced tool", async () => {
    const answer = await anthropic.messages
      .stream({
        model: "stories",
        max_tokens: 100,
        messages,
        tools: [{ name: weather.name, input_schema: weather.parameters }],
        tool_choice: { type: "tool", name: "weather" },
      })
      .finalMessage();
    expect(answer.stop_reason).toBe("tool_use");
    expect(answer.content).toMatchObject([
      { type: "tool_use", name: "weather", input: { city: expect.stringMatching(/Bern|Rome/) } },
    ]);
  });

  test("errors", async () => {
    const unknown = anthropic.messages.create({ model: "nobody", max_tokens: 1, messages });
    await expect(unknown).rejects.toBeInstanceOf(Anthropic.NotFoundError);
  });
});

describe("ollama", () => {
  test("chat and generate, whole and streamed", async () => {
    const options = { temperature: 0, num_predict: 12 };
    const whole = await ollama.chat({ model: "stories", messages, options });
    expect(whole).toMatchObject({ done: true, done_reason: "length", eval_count: 12 });
    let streamed = "";
    for await (const part of await ollama.chat({ model: "stories", messages, options, stream: true })) {
      streamed += part.message.content;
    }
    expect(streamed).toBe(whole.message.content);
    const raw = await ollama.generate({ model: "stories", prompt: story, raw: true, options });
    expect(raw.response!.length).toBeGreaterThan(5);
  });

  test("a format is kept", async () => {
    const { message } = await ollama.chat({ model: "stories", messages, format: weather.parameters });
    expect(["Bern", "Rome"]).toContain(JSON.parse(message.content).city);
  });

  test("list, show, ps, version", async () => {
    const { models } = await ollama.list();
    expect(models.map(({ name }) => name)).toEqual(["stories", "rough"]);
    expect(models[0]!.details).toMatchObject({ family: "llama", parameter_size: "260.03K", quantization_level: "F32" });
    const shown = await ollama.show({ model: "stories" });
    expect(shown.capabilities).toContain("completion");
    expect(JSON.stringify(shown.model_info)).toContain('"llama.context_length":512');
    expect((await ollama.ps()).models[0]!.size).toBeGreaterThan(1e6);
    expect((await ollama.version()).version).toBe("0.0.0");
  });

  test("errors", async () => {
    await expect(ollama.chat({ model: "nobody", messages })).rejects.toThrow('model "nobody"');
  });
});

describe("thoughts, as each client reads them", () => {
  const thinking = () =>
    startTestServer({
      answer: () => "<think>\nLet me see.\n</think>\n\nParis.",
      info: { chatTemplate: `{# detailed thinking on #}${fakeTemplate}` },
    });

  test("whole and streamed", async () => {
    const fake = await thinking();
    const model = createOpenAICompatible({ name: "fake", baseURL: `${fake.url}/v1` })("fake");
    expect(await generateText({ model, prompt: "Capital?" })).toMatchObject({
      text: "Paris.",
      reasoningText: "Let me see.",
    });
    expect(await streamText({ model, prompt: "Capital?" }).reasoningText).toBe("Let me see.");
    const claude = new Anthropic({ baseURL: fake.url, apiKey: "none" });
    const enabled = { type: "enabled" as const, budget_tokens: 1024 };
    const message = claude.messages.stream({ model: "fake", max_tokens: 2000, messages, thinking: enabled });
    expect((await message.finalMessage()).content).toEqual([
      { type: "thinking", thinking: "Let me see.", signature: "" },
      { type: "text", text: "Paris." },
    ]);
    const llama = await new Ollama({ host: fake.url }).chat({ model: "fake", messages, think: true });
    expect(llama.message).toMatchObject({ content: "Paris.", thinking: "Let me see." });
    await fake.stop();
  });
});

describe("the AI SDK over @ai-sdk/openai-compatible", () => {
  test("text, whole and streamed, with usage", async () => {
    const ask = {
      model: provider("stories"),
      prompt: "Tell me a story.",
      temperature: 0,
      maxOutputTokens: 12,
      maxRetries: 0,
    };
    const whole = await generateText(ask);
    expect(whole).toMatchObject({ finishReason: "length", usage: { outputTokens: 12 } });
    const stream = streamText(ask);
    let streamed = "";
    for await (const text of stream.textStream) streamed += text;
    expect(streamed).toBe(whole.text);
    expect((await stream.usage).outputTokens).toBe(12);
  });

  test("a tool, called", async () => {
    const { toolCalls } = await generateText({
      model: provider("stories"),
      prompt: "Weather?",
      tools: { weather: tool({ inputSchema: jsonSchema(weather.parameters) }) },
      toolChoice: "required",
      maxRetries: 0,
    });
    expect(toolCalls).toMatchObject([{ toolName: "weather", input: { city: expect.stringMatching(/Bern|Rome/) } }]);
  });

  test("an object by its schema", async () => {
    const { object } = await generateObject({
      model: provider("stories"),
      schema: jsonSchema<{ city: string }>(weather.parameters),
      prompt: "Weather?",
      maxRetries: 0,
    });
    expect(["Bern", "Rome"]).toContain(object.city);
  });
});
