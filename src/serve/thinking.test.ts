import { describe, expect, test } from "vitest";
import {
  createThinkingSplitter,
  dropThoughts,
  opensThought,
  type SplitterOptions,
  setThinking,
  splitThinking,
  thinkingSwitchOf,
} from "./thinking.js";

/** What a splitter gives piece by piece, joined. */
function inPieces(text: string, size: number, options?: SplitterOptions) {
  const splitter = createThinkingSplitter(options);
  let [thinking, answer] = ["", ""];
  for (let i = 0; i < text.length; i += size) {
    const piece = splitter.push(text.slice(i, i + size));
    thinking += piece.thinking;
    answer += piece.answer;
  }
  const last = splitter.end();
  return { thinking: thinking + last.thinking, answer: answer + last.answer, state: splitter.state };
}

describe("splitting", () => {
  const cases: [text: string, thinking: string, answer: string][] = [
    ["<think>\nLet me see.\n</think>\n\nParis.", "Let me see.", "Paris."],
    ["<think></think>\nParis.", "", "Paris."],
    ["  <think>a</think>b", "a", "b"],
    ["Paris is <think>not</think> here.", "", "Paris is <think>not</think> here."],
    ["<think>never closed </thin", "never closed </thin", ""],
    ["<think>if a < b and </b> then\n\n 2 </think> c", "if a < b and </b> then\n\n 2", "c"],
    ["<think>a</think>b </think> c", "a", "b </think> c"],
    ["<thinking> of you", "", "<thinking> of you"],
    ["<thi", "", "<thi"],
    ["", "", ""],
  ];

  test.each(cases)("%j", (text, thinking, answer) => {
    expect(splitThinking(text)).toEqual({ thinking, answer });
    for (const size of [1, 2, 3, 5, 7]) expect(inPieces(text, size)).toMatchObject({ thinking, answer });
  });

  test("a thought that the prompt has opened", () => {
    expect(opensThought("<|assistant|>\n<think>\n")).toBe(true);
    expect(opensThought("<think>\n\n</think>\n\n")).toBe(false);
    for (const size of [1, 4, 100]) {
      expect(inPieces("\nHm.\n</think>\n\nYes.", size, { opened: true })).toEqual({
        thinking: "Hm.",
        answer: "Yes.",
        state: "answer",
      });
    }
  });

  test("nothing certain is held back", () => {
    const splitter = createThinkingSplitter();
    expect(splitter.push("<think>")).toEqual({ thinking: "", answer: "" });
    expect(splitter.push("one <")).toEqual({ thinking: "one", answer: "" });
    expect(splitter.push("b two</thi")).toEqual({ thinking: " <b two", answer: "" });
    expect(splitter.state).toBe("thinking");
    expect(splitter.push("nk>\n\nA")).toEqual({ thinking: "", answer: "A" });
    expect(splitter.push(" b ")).toEqual({ thinking: "", answer: " b " });
  });
});

describe("the switch", () => {
  test("is read off the template, then off the name", () => {
    const ultra = "{%- else %}{%- set system_message = \"detailed thinking on\" %}{{ content.split('</think>')[-1] }}";
    expect(thinkingSwitchOf({ chatTemplate: ultra })).toBe("system");
    expect(thinkingSwitchOf({ name: "Llama 3.1 Nemotron Nano 8B v1", chatTemplate: "{{ '</think>' }}" })).toBe(
      "system",
    );
    expect(thinkingSwitchOf({ name: "Llama-3_3-Nemotron-Super-49B-v1_5" })).toBe("no_think");
    expect(thinkingSwitchOf({ chatTemplate: "{% if '/no_think' in m %}{% set ns.enable_thinking = false %}" })).toBe(
      "no_think",
    );
    expect(thinkingSwitchOf({ chatTemplate: "{% if enable_thinking is false %}</think>" })).toBe("variable");
    expect(thinkingSwitchOf({ chatTemplate: "<think>\n</think>" })).toBe("always");
    // The 70B and 51B are instruct models without the switch.
    expect(thinkingSwitchOf({ name: "Llama-3.1-Nemotron-70B-Instruct-HF" })).toBe("none");
    expect(thinkingSwitchOf({})).toBe("none");
  });

  const user = { role: "user", content: "What is 2 + 2?" };

  test("is the whole system prompt of Llama-Nemotron, and the user's own moves to the user turn", () => {
    expect(setThinking([user], "on", "system")).toEqual({
      messages: [{ role: "system", content: "detailed thinking on" }, user],
      variables: {},
      sampling: { temperature: 0.6, topP: 0.95 },
    });
    const own = { role: "system", content: "Answer in French." };
    expect(setThinking([own, user], "off", "system")).toEqual({
      messages: [
        { role: "system", content: "detailed thinking off" },
        { role: "user", content: "Answer in French.\n\nWhat is 2 + 2?" },
      ],
      variables: {},
      sampling: { temperature: 0 },
    });
    const contrary = { role: "system", content: "detailed thinking on" };
    expect(setThinking([contrary, user], "off", "system").messages).toEqual([
      { role: "system", content: "detailed thinking off" },
      user,
    ]);
  });

  test("is a word that v1.5 looks for, beside the user's own text", () => {
    const own = { role: "system", content: "Answer in French." };
    expect(setThinking([own, user], "off", "no_think").messages[0]!.content).toBe("/no_think\n\nAnswer in French.");
    expect(setThinking([user], "off", "no_think").messages).toEqual([{ role: "system", content: "/no_think" }, user]);
    const off = { role: "system", content: "/no_think" };
    expect(setThinking([off, user], "on", "no_think").messages).toEqual([user]);
  });

  test("is a variable of other templates", () => {
    expect(setThinking([user], "off", "variable")).toEqual({
      messages: [user],
      variables: { enable_thinking: false },
      sampling: { temperature: 0 },
    });
  });

  test("auto changes nothing, and what cannot be had is refused", () => {
    expect(setThinking([user], "auto", "system")).toEqual({ messages: [user], variables: {}, sampling: {} });
    expect(setThinking([user], "off", "none")).toEqual({ messages: [user], variables: {}, sampling: {} });
    expect(() => setThinking([user], "on", "none", "a.gguf")).toThrow(
      "a.gguf: expected a model whose thinking can be turned on",
    );
    expect(() => setThinking([user], "off", "always")).toThrow("cannot be kept from thinking");
  });
});

test("earlier thoughts leave the conversation", () => {
  const messages = [
    { role: "user", content: "a </think> b" },
    { role: "assistant", content: "<think>\nhm\n</think>\n\nYes." },
    { role: "assistant", content: "No." },
  ];
  expect(dropThoughts(messages).map(({ content }) => content)).toEqual(["a </think> b", "Yes.", "No."]);
});
