import { afterAll, afterEach, describe, expect, test } from "vitest";
import { startTestServer } from "../testing.js";

let answer = "Hello there.";
const pulled: string[] = [];
const server = await startTestServer(
  { answer: () => answer },
  {
    version: "1.2.3",
    async pull(name, { onEvent }) {
      onEvent({ event: "progress", stage: "pull", done: 5, total: 10, unit: "bytes" });
      pulled.push(name.repository);
      if (name.repository === "a/broken") throw new Error("cut");
      return {
        repository: name.repository,
        commit: "c",
        path: "/nowhere/new.gguf",
        files: [],
        bytes: 10,
        fetchedBytes: 10,
      };
    },
  },
);
afterAll(() => server.stop());
afterEach(() => {
  answer = "Hello there.";
});

const turn = { role: "user", content: "Hi" };
const chat = (more: object = {}) =>
  server.post("/api/chat", { model: "fake", messages: [turn], stream: false, ...more });
const generate = (more: object = {}) =>
  server.post("/api/generate", { model: "fake", prompt: "Hi", stream: false, ...more });
const asked = () => server.engine.requests.at(-1)!;

test("a chat, whole, with durations in nanoseconds", async () => {
  const { json } = await chat();
  expect(json).toMatchObject({
    model: "fake",
    message: { role: "assistant", content: "Hello there." },
    done: true,
    done_reason: "stop",
    prompt_eval_count: 22,
    prompt_eval_duration: 10e6,
    eval_count: 12,
    eval_duration: 20e6,
    timings: { predicted_per_second: 600 },
  });
  expect(json.total_duration).toBeGreaterThan(0);
});

test("lines of JSON are the default, the last with the reason", async () => {
  const { events, headers } = await chat({ stream: undefined });
  expect(headers.get("content-type")).toBe("application/x-ndjson");
  expect(events.map(({ message }) => message.content).join("")).toBe("Hello there.");
  expect(events.map(({ done }) => done).filter(Boolean)).toHaveLength(1);
  expect(events.at(-1)).toMatchObject({ done: true, done_reason: "stop", eval_count: 12 });
});

test("generate continues in the chat's form, or raw", async () => {
  const { json } = await generate({ system: "Be brief." });
  expect(json).toMatchObject({ response: "Hello there.", done: true });
  expect(asked().text).toContain("system\nBe brief.<|im_end|>\n<|im_start|>user\nHi");
  await generate({ raw: true });
  expect(asked().text).toBe("<s>Hi");
  const { events } = await generate({ stream: true });
  expect(events.map(({ response }) => response).join("")).toBe("Hello there.");
});

describe("options", () => {
  const defaults = { temperature: 0.8, topK: 40, topP: 0.9, repeatPenalty: 1.1 };
  const cases: [options: object, sampling: object][] = [
    [{}, {}],
    [{ temperature: 0 }, { temperature: 0 }],
    [{ top_k: 5 }, { topK: 5 }],
    [{ top_p: 0.5 }, { topP: 0.5 }],
    [{ min_p: 0.1 }, { minP: 0.1 }],
    [{ seed: 7 }, { seed: 7 }],
    [{ repeat_penalty: 1.5 }, { repeatPenalty: 1.5 }],
    [{ presence_penalty: 1 }, { presencePenalty: 1 }],
    [{ frequency_penalty: 1 }, { frequencyPenalty: 1 }],
  ];
  test.each(cases)("%j reach the sampler", async (options, sampling) => {
    await chat({ options });
    expect(asked().sampling).toEqual({ ...defaults, ...sampling });
  });

  test("num_predict and stop end the answer", async () => {
    expect((await chat({ options: { num_predict: 5 } })).json).toMatchObject({
      message: { content: "Hello" },
      done_reason: "length",
    });
    expect((await chat({ options: { num_predict: -1 } })).json.done_reason).toBe("stop");
    expect((await chat({ options: { stop: " t" } })).json.message.content).toBe("Hello");
  });

  test("a context larger than the model's is refused by name, a smaller one is enough", async () => {
    expect((await chat({ options: { num_ctx: 2048 } })).status).toBe(200);
    const { status, json } = await chat({ options: { num_ctx: 4096 } });
    expect(status).toBe(400);
    expect(json.error).toContain("options.num_ctx: expected at most 2048, found 4096");
    expect((await chat({ options: { mirostat: 1 } })).json.error).toBe("options.mirostat: this field is not supported");
    expect((await chat({ options: { num_thread: 4 } })).status).toBe(200);
  });
});

test("format", async () => {
  await chat({ format: "json" });
  expect(asked().grammar).toEqual({ kind: "json" });
  await generate({ format: { type: "object", properties: { a: { type: "integer" } } } });
  expect(asked().grammar).toEqual({
    kind: "schema",
    schema: { type: "object", properties: { a: { type: "integer" } } },
  });
});

test("tools and their results", async () => {
  const tools = [
    {
      type: "function",
      function: { name: "weather", description: "d", parameters: { type: "object", properties: {} } },
    },
  ];
  answer = '{"name": "weather", "parameters": {"city": "Bern"}}';
  const { json } = await chat({ tools });
  expect(json.message.tool_calls).toMatchObject([{ function: { name: "weather", arguments: { city: "Bern" } } }]);
  await chat({ tools, messages: [turn, json.message, { role: "tool", tool_name: "weather", content: "rain" }] });
  expect(asked().text).toContain('<tool_call>{"name": "weather", "arguments": {"city": "Bern"}}</tool_call>');
  expect(asked().text).toContain("tool\nrain");
});

test("log-probabilities", async () => {
  const { json } = await chat({ logprobs: true, top_logprobs: 1, options: { num_predict: 1 } });
  expect(json.logprobs).toEqual([
    { token: "H", logprob: -0.5, bytes: [72], top_logprobs: [{ token: "H", logprob: -0.5, bytes: [72] }] },
  ]);
});

test("keep_alive holds, frees, and is told by /api/ps", async () => {
  const before = Date.now();
  await chat({ keep_alive: "1h" });
  const { json } = await server.get("/api/ps");
  expect(json.models[0]).toMatchObject({ name: "fake", size: 2000, context_length: 2048 });
  expect(Date.parse(json.models[0].expires_at) - before).toBeGreaterThan(3_500_000);
  const freed = await server.post("/api/generate", { model: "fake", keep_alive: 0 });
  expect(freed.json.done_reason).toBe("unload");
  expect((await server.get("/api/ps")).json.models).toEqual([]);
  expect((await server.post("/api/chat", { model: "fake", keep_alive: -1 })).json.done_reason).toBe("load");
  const { expires_at } = (await server.get("/api/ps")).json.models[0];
  expect(Date.parse(expires_at) - before).toBeGreaterThan(99 * 365 * 86_400_000);
  expect((await chat({ keep_alive: "soon" })).json.error).toContain("keep_alive: expected a duration");
});

test("pull tells its progress, and the model is served from then on", async () => {
  const { events } = await server.post("/api/pull", { model: "hf:a/model:Q8_0" });
  expect(events.map(({ status }) => status)).toEqual([
    "pulling manifest",
    "pulling a/model",
    "verifying sha256 digest",
    "writing manifest",
    "success",
  ]);
  expect(events[1]).toMatchObject({ total: 10, completed: 5 });
  const { json } = await server.get("/api/tags");
  expect(json.models.map(({ name }: { name: string }) => name)).toContain("hf:a/model:Q8_0");
  expect((await server.post("/api/pull", { model: "hf:a/model:Q8_0", stream: false })).json).toEqual({
    status: "success",
  });
  expect(pulled).toEqual(["a/model", "a/model"]);
});

test("a pull that fails says so in its stream, and a wrong name at once", async () => {
  const { events } = await server.post("/api/pull", { model: "hf:a/broken" });
  expect(events.at(-1)).toEqual({ error: "cut" });
  expect((await server.post("/api/pull", { model: "https://example.org/x.gguf" })).status).toBe(400);
});

test("version, and errors as Ollama has them", async () => {
  expect((await server.get("/api/version")).json).toEqual({ version: "1.2.3" });
  const unknown = await chat({ model: "nobody" });
  expect([unknown.status, Object.keys(unknown.json)]).toEqual([404, ["error"]]);
  expect((await chat({ template: "x" })).json).toEqual({ error: "template: this field is not supported" });
  expect((await generate({ suffix: "x" })).json).toEqual({ error: "suffix: this field is not supported" });
  expect((await generate({ images: ["x"] })).json.error).toContain("images are not supported");
  expect((await server.get("/api/nothing")).json.error).toContain("no such endpoint");
});
