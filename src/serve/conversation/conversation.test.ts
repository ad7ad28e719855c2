import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { temporaryDirectory } from "../../base/testing.js";
import { createFakeEngine, type FakeOptions } from "../testing.js";
import { besideEachOther, wrapText } from "./columns.js";
import { createLineReader, parseChatLine } from "./commands.js";
import { createConversation } from "./conversation.js";
import { type ChatSettings, describeSettings, setSetting } from "./settings.js";

const nemotron =
  "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] {# detailed thinking #}";

async function open(fake: FakeOptions, settings: ChatSettings = {}) {
  const engine = createFakeEngine({ ...fake, info: { chatTemplate: nemotron, ...fake.info } });
  const conversation = createConversation("fake", await engine.loadModel("fake.gguf"), settings);
  return { conversation, requests: engine.requests };
}

describe("a conversation", () => {
  test("keeps what was said, without the thoughts", async () => {
    const { conversation, requests } = await open({ answer: () => "<think>Hm.</think>\n\nYes." });
    const pieces: string[] = [];
    const answer = await conversation.say("Is it?", { onText: (kind, text) => pieces.push(`${kind}:${text}`) });
    expect(answer).toMatchObject({ text: "Yes.", thought: "Hm.", finish: "stop" });
    expect(pieces.join("")).toContain("thought:H");
    expect(pieces.at(-1)).toBe("text:.");
    await conversation.say("Sure?");
    expect(requests[1]!.text).toBe("<s>[user] Is it?\n[assistant] Yes.\n[user] Sure?\n[assistant] ");
    conversation.clear();
    expect(conversation.turns).toEqual([]);
  });

  test("the switch of thinking is the system prompt, and sets the sampling that nobody set", async () => {
    const { conversation, requests } = await open({}, { thinking: "on", system: "Be brief." });
    await conversation.say("Hi");
    expect(requests[0]!.text).toBe("<s>[system] detailed thinking on\n[user] Be brief.\n\nHi\n[assistant] ");
    expect(requests[0]!.sampling).toEqual({ temperature: 0.6, topP: 0.95 });
    conversation.settings = { thinking: "off", topK: 3, seed: 5, maxTokens: 4 };
    expect(await conversation.say("Again")).toMatchObject({ text: "Hell", finish: "length" });
    expect(requests[1]!.sampling).toEqual({ temperature: 0, topK: 3, seed: 5 });
  });

  test("a budget closes the thought", async () => {
    const answer = (prompt: string) => (prompt.endsWith("</think>\n\n") ? "Four." : "<think>one two three four five");
    const { conversation } = await open({ answer }, { thinkingBudget: 14 });
    expect(await conversation.say("2 + 2?")).toMatchObject({ thought: "one two", text: "Four." });
  });

  test("an answer that is stopped keeps what was said; one that fails leaves no turn", async () => {
    const { conversation } = await open({ answer: () => "one two three", tokenMs: 1 });
    const controller = new AbortController();
    const onText = (_: string, text: string) => text === "w" && controller.abort(new Error("enough"));
    const answer = await conversation.say("Count", { onText, signal: controller.signal });
    expect(answer.finish).toBe("aborted");
    expect(conversation.turns.at(-1)).toEqual({ role: "assistant", content: answer.text });
    const { conversation: failing } = await open({ crashAfter: () => 2 });
    await expect(failing.say("Hi")).rejects.toThrow("the end of its process");
    expect(failing.turns).toEqual([]);
    await expect(failing.say("x".repeat(5000))).rejects.toThrow("at most 2047 tokens");
  });

  test("is saved and loaded with its settings", async () => {
    const path = join(temporaryDirectory(), "chat.json");
    const { conversation } = await open({}, { temperature: 0.5, system: "Be brief." });
    await conversation.say("Hi");
    await conversation.save(path);
    const { conversation: other } = await open({});
    await other.load(path);
    expect(other.turns).toEqual(conversation.turns);
    expect(other.settings).toEqual({ temperature: 0.5, system: "Be brief." });
    const saved = JSON.parse(readFileSync(path, "utf8")) as { turns: unknown[] };
    writeFileSync(path, JSON.stringify({ ...saved, turns: saved.turns.slice(1) }));
    await expect(other.load(path)).rejects.toThrow(
      "expected questions and answers in turn, found two of assistant at turn 0",
    );
    writeFileSync(path, JSON.stringify({ ...saved, settings: { temprature: 1 } }));
    await expect(other.load(path)).rejects.toThrow("temprature");
    expect(other.turns).toHaveLength(2);
  });
});

describe("settings", () => {
  test("are set by name, shown, and taken back", () => {
    const set = (current: ChatSettings, ...words: [string, string?]) => setSetting(current, ...words);
    const settings = set(set(set({}, "temperature", "0.7"), "thinking", "off"), "system", "Be brief, please.");
    expect(settings).toEqual({ temperature: 0.7, thinking: "off", system: "Be brief, please." });
    expect(describeSettings(settings)).toEqual(["temperature 0.7", "system Be brief, please.", "thinking off"]);
    expect(set(settings, "thinking")).toEqual({ temperature: 0.7, system: "Be brief, please." });
  });

  test.each([
    ["top-p", "1.5", "a number from 0 to 1, found 1.5"],
    ["seed", "x", "a whole number, found x"],
    ["max-tokens", "0", "a whole number above 0"],
    ["thinking", "maybe", "on, off or auto"],
    ["colour", "red", "/set colour: expected one of temperature"],
    ["toString", "1", "expected one of temperature"],
  ])("%s %s is refused", (name, value, message) => {
    expect(() => setSetting({}, name, value)).toThrow(message);
  });

  test("a budget of thoughts that are off is refused", async () => {
    const { conversation } = await open({}, { thinking: "off", thinkingBudget: 5 });
    await expect(conversation.say("Hi")).rejects.toThrow("thinking-budget: expected thinking on or auto");
  });
});

describe("lines", () => {
  test.each([
    ["  hello  ", { kind: "say", text: "  hello  " }],
    ["   ", { kind: "nothing" }],
    ["/set top-p 0.9", { kind: "set", name: "top-p", value: "0.9" }],
    ["/set system Answer  in French.", { kind: "set", name: "system", value: "Answer  in French." }],
    ["/set seed", { kind: "set", name: "seed" }],
    ["/SET", { kind: "set" }],
    ["/save a chat.json", { kind: "save", path: "a chat.json" }],
    ["/load", { kind: "wrong", message: "expected /load FILE, found /load" }],
    ["/bye", { kind: "bye" }],
    ["/clear all", { kind: "wrong", message: "expected /clear alone, found /clear all" }],
    ["/nonsense", { kind: "wrong", message: "expected a command (/help lists them), found /nonsense" }],
  ])("%j", (line, command) => {
    expect(parseChatLine(line)).toEqual(command);
  });

  test("several make one text between marks", () => {
    const reader = createLineReader();
    expect([
      reader.push('"""'),
      reader.push("/bye is"),
      reader.open,
      reader.push(""),
      reader.push('no command"""'),
    ]).toEqual([undefined, undefined, true, undefined, { kind: "say", text: "/bye is\n\nno command" }]);
    expect(reader.push('"""on one line"""')).toEqual({ kind: "say", text: "on one line" });
    expect([reader.push('"""'), reader.push('"""')]).toEqual([undefined, { kind: "nothing" }]);
    expect(reader.push("/history")).toEqual({ kind: "history" });
  });
});

test("texts stand beside each other", () => {
  expect(wrapText("one two three", 7)).toEqual(["one two", "three"]);
  expect(wrapText("abcdefghij\nk", 4)).toEqual(["abcd", "efgh", "ij", "k"]);
  expect(besideEachOther("parent\n\nYes, it is.", "child\n\nNo.", 19)).toEqual([
    "parent   | child",
    "         |",
    "Yes, it  | No.",
    "is.      |",
  ]);
});
