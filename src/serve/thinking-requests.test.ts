import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { fakeTemplate, startTestServer } from "./testing.js";

/** The switch of Llama-Nemotron: the template speaks of "detailed thinking". */
const nemotron = `{# detailed thinking on #}${fakeTemplate}`;
let answer = "";
const server = await startTestServer({
  answer: (prompt) => (prompt.endsWith("</think>\n\n") ? "Cut short." : answer),
  info: { chatTemplate: nemotron },
});
afterAll(() => server.stop());
beforeEach(() => {
  answer = "<think>\nLet me see.\n</think>\n\nParis.";
});

const turn = { role: "user", content: "Capital?" };
const asked = () => server.engine.requests.at(-1)!;
const openai = (more: object) => server.post("/v1/chat/completions", { model: "fake", messages: [turn], ...more });
const anthropic = (more: object) =>
  server.post("/v1/messages", { model: "fake", max_tokens: 1000, messages: [turn], ...more });
const ollama = (more: object) => server.post("/api/chat", { model: "fake", stream: false, messages: [turn], ...more });
const responses = (more: object) => server.post("/v1/responses", { model: "fake", input: "Capital?", ...more });

describe("OpenAI", () => {
  test("both names of the thought, in answers and in deltas", async () => {
    const { json } = await openai({});
    expect(json.choices[0].message).toMatchObject({
      content: "Paris.",
      reasoning_content: "Let me see.",
      reasoning: "Let me see.",
    });
    expect(json.usage.completion_tokens_details.reasoning_tokens).toBeGreaterThan(10);
    const { events } = await openai({ stream: true });
    const deltas = events.map(({ choices }) => choices[0].delta);
    for (const name of ["reasoning_content", "reasoning"]) {
      expect(deltas.map((delta) => delta[name] ?? "").join("")).toBe("Let me see.");
    }
    expect(deltas.map(({ content = "" }) => content).join("")).toBe("Paris.");
  });

  test("thinking sets the system prompt and the sampling", async () => {
    await openai({ thinking: "on" });
    expect(asked().text).toContain("<|im_start|>system\ndetailed thinking on<|im_end|>");
    expect(asked().sampling).toEqual({ temperature: 0.6, topP: 0.95 });
    await openai({ thinking: "off", top_p: 0.8 });
    expect(asked().text).toContain("<|im_start|>system\ndetailed thinking off<|im_end|>");
    expect(asked().sampling).toEqual({ temperature: 0, topP: 0.8 });
    await openai({ thinking: "auto" });
    expect(asked().text).not.toContain("detailed thinking");
    await openai({ thinking: true });
    expect(asked().text).toContain("detailed thinking on");
  });

  test("a budget closes the thought and lets the answer follow", async () => {
    const { json } = await openai({ thinking: { budget: 12 } });
    // Eight tokens are <think> and its line end, four are left for the thought.
    expect(json.choices[0].message).toMatchObject({ content: "Cut short.", reasoning: "Let" });
    expect(json.choices[0].finish_reason).toBe("stop");
    expect(asked().text.endsWith("<think>\nLet </think>\n\n")).toBe(true);
    const wide = await openai({ thinking: { budget: 500 } });
    expect(wide.json.choices[0].message).toMatchObject({ content: "Paris.", reasoning: "Let me see." });
  });

  test("reasoning_effort", async () => {
    await openai({ reasoning_effort: "none" });
    expect(asked().text).toContain("detailed thinking off");
    await openai({ reasoning_effort: "high" });
    expect(asked().text).toContain("detailed thinking on");
  });

  test("beside a format it is refused by name", async () => {
    const { status, json } = await openai({ thinking: "on", response_format: { type: "json_object" } });
    expect([status, json.error.param]).toEqual([400, "thinking"]);
  });

  test("log-probabilities are those of the answer", async () => {
    const { json } = await openai({ logprobs: true });
    const text = json.choices[0].logprobs.content.map(({ token }: { token: string }) => token).join("");
    expect(text.trim()).toBe("Paris.");
  });
});

test("Anthropic: blocks of thought, enabled, disabled and by our own field", async () => {
  const { json } = await anthropic({ thinking: { type: "enabled", budget_tokens: 500 } });
  expect(json.content).toEqual([
    { type: "thinking", thinking: "Let me see.", signature: "" },
    { type: "text", text: "Paris." },
  ]);
  expect(asked().text).toContain("detailed thinking on");
  await anthropic({ thinking: { type: "disabled" } });
  expect(asked().text).toContain("detailed thinking off");
  await anthropic({ thinking: "off" });
  expect(asked().text).toContain("detailed thinking off");
  const { events } = await anthropic({ stream: true });
  expect(events.map(({ delta }) => delta?.thinking ?? "").join("")).toBe("Let me see.");
  expect(events.filter(({ type }) => type === "content_block_stop")).toHaveLength(2);
});

test("Ollama: message.thinking, and think", async () => {
  const { json } = await ollama({ think: true });
  expect(json.message).toEqual({ role: "assistant", content: "Paris.", thinking: "Let me see." });
  expect(asked().text).toContain("detailed thinking on");
  await ollama({ think: false });
  expect(asked().text).toContain("detailed thinking off");
  await ollama({ thinking: "on" });
  expect(asked().text).toContain("detailed thinking on");
  expect((await ollama({ think: true, thinking: "on" })).json.error).toContain("only one of think and thinking");
});

test("Responses: an item of reasoning, and its effort", async () => {
  const { json } = await responses({ reasoning: { effort: "high" } });
  expect(json.output.map(({ type }: { type: string }) => type)).toEqual(["reasoning", "message"]);
  expect(json.output[0].content[0].text).toBe("Let me see.");
  expect(asked().text).toContain("detailed thinking on");
});

test("a model that was not trained to think refuses to, in the dialect's words", async () => {
  const plain = await startTestServer();
  const { status, json } = await plain.post("/api/chat", { model: "fake", messages: [turn], think: true });
  expect(status).toBe(400);
  expect(json.error).toContain("expected a model whose thinking can be turned on");
  await plain.stop();
});
