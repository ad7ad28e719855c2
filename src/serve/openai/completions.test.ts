import { afterAll, expect, test } from "vitest";
import { startTestServer } from "../testing.js";

const server = await startTestServer({ answer: () => " there." });
afterAll(() => server.stop());
const ask = (more: object = {}) => server.post("/v1/completions", { model: "fake", prompt: "Hi", ...more });
const asked = () => server.engine.requests.at(-1)!;

test("text goes on after the start token, sixteen tokens at most", async () => {
  const { json } = await ask();
  expect(json).toMatchObject({
    object: "text_completion",
    choices: [{ index: 0, text: " there.", logprobs: null, finish_reason: "stop" }],
    usage: { prompt_tokens: 3, completion_tokens: 7 },
  });
  expect(asked()).toMatchObject({ prompt: [258, 72, 105], maxTokens: 16, sampling: { temperature: 1 } });
});

test("prompts of token ids are taken as they are", async () => {
  const { json } = await ask({ prompt: [72, 105], echo: true });
  expect(asked().prompt).toEqual([72, 105]);
  expect(json.choices[0].text).toBe("Hi there.");
  expect((await ask({ prompt: [72, 259] })).json.error).toMatchObject({ param: "prompt" });
});

test("several prompts, several answers to each", async () => {
  const { json } = await ask({ prompt: ["A", "B"], n: 2, seed: 3, echo: true });
  expect(json.choices.map(({ index, text }: { index: number; text: string }) => [index, text])).toEqual([
    [0, "A there."],
    [1, "A there."],
    [2, "B there."],
    [3, "B there."],
  ]);
  expect(server.engine.requests.slice(-4).map(({ sampling }) => sampling!.seed)).toEqual([3, 4, 3, 4]);
  const ids = await ask({ prompt: [[72], [105]], echo: true });
  expect(ids.json.choices.map(({ text }: { text: string }) => text)).toEqual(["H there.", "i there."]);
});

test("echo with logprobs scores the prompt: what evaluation harnesses ask", async () => {
  const { json } = await ask({
    prompt: [72, 105, 33],
    max_tokens: 1,
    logprobs: 1,
    echo: true,
    temperature: 0,
    seed: 1,
  });
  expect(json.choices[0].logprobs).toEqual({
    tokens: ["H", "i", "!", " "],
    token_logprobs: [null, -0.5, -0.5, -0.5],
    top_logprobs: [null, { i: -0.5 }, { "!": -0.5 }, { " ": -0.5 }],
    text_offset: [0, 1, 2, 3],
  });
  expect(asked()).toMatchObject({ maxTokens: 1, logprobs: 1, promptLogprobs: 1 });
});

test("max_tokens: 0 only scores, and only with echo", async () => {
  const { json } = await ask({ max_tokens: 0, logprobs: 0, echo: true });
  expect(json.choices[0]).toMatchObject({ text: "Hi", finish_reason: "length" });
  expect(json.choices[0].logprobs.top_logprobs).toBeNull();
  expect((await ask({ max_tokens: 0 })).status).toBe(400);
});

test("a stream, with echo before it and usage after it", async () => {
  const { events } = await ask({ stream: true, echo: true, stream_options: { include_usage: true } });
  expect(events.map(({ choices }) => choices[0]?.text ?? "").join("")).toBe("Hi there.");
  expect(events.at(-2).choices[0].finish_reason).toBe("stop");
  expect(events.at(-1).usage.completion_tokens).toBe(7);
  const listed = await ask({ stream: true, logprobs: 0, max_tokens: 2 });
  expect(listed.events.flatMap(({ choices }) => choices[0]?.logprobs?.text_offset ?? [])).toEqual([0, 1]);
});

test.each([
  [{ stop: "er" }, { text: " th" }],
  [{ max_tokens: 3 }, { text: " th", finish_reason: "length" }],
])("%j gives %j", async (fields, choice) => {
  expect((await ask(fields)).json.choices[0]).toMatchObject(choice);
});

test("sampling and format reach the model", async () => {
  await ask({
    temperature: 0.1,
    top_p: 0.2,
    top_k: 3,
    min_p: 0.4,
    frequency_penalty: 0.5,
    presence_penalty: 0.6,
    repeat_penalty: 1.7,
    logit_bias: { 5: 1 },
  });
  expect(asked().sampling).toEqual({
    temperature: 0.1,
    topP: 0.2,
    topK: 3,
    minP: 0.4,
    frequencyPenalty: 0.5,
    presencePenalty: 0.6,
    repeatPenalty: 1.7,
    logitBias: { 5: 1 },
  });
  await ask({ response_format: { type: "json_object" } });
  expect(asked().grammar).toEqual({ kind: "json" });
});

test.each([
  [{ suffix: "x" }, "suffix"],
  [{ best_of: 2 }, "best_of"],
  [{ stream: true, echo: true, logprobs: 1 }, "echo"],
  [{ prompt: [] }, "prompt"],
  [{ prompt: Array(40).fill("a") }, "prompt"],
  [{ logprobs: 1000 }, "logprobs"],
  [{ model: "fake|other" }, "model"],
  [{ stream_options: { include_usage: true } }, "stream_options"],
])("%j is refused by name", async (fields, param) => {
  const { status, json } = await ask(fields);
  expect([status, json.error.param]).toEqual([400, param]);
});
