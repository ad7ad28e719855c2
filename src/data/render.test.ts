import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { createRng } from "../base/index.js";
import { sharedPath } from "../base/testing.js";
import { createChatTemplate, createHuggingFaceTokenizer } from "../tokenizer/index.js";
import {
  bundledChatPath,
  encodeChat,
  type Message,
  parseConversation,
  readConversations,
  reasoningPair,
  renderBranches,
  renderConversation,
  renderPair,
  renderPrompt,
  renderTurns,
  showMask,
} from "./index.js";
import { createByteTokenizer, testTemplate } from "./testing.js";

const tokenizer = createByteTokenizer();
const [chatMl, thoughtless] = [testTemplate("chatMl"), testTemplate("thoughtless")];
const user = (content: string): Message => ({ role: "user", content });
const assistant = (content: string): Message => ({ role: "assistant", content });
const twoTurns = [user("Hi?"), assistant("hello"), user("Sure?"), assistant("Yes.")];
const picture = (
  template: typeof chatMl,
  ...rest: Parameters<typeof renderConversation> extends [unknown, unknown, ...infer R] ? R : never
) => showMask(tokenizer, renderConversation(template, tokenizer, ...rest));

describe("a conversation", () => {
  test("learns content and stop token of every answer, and nothing else", () => {
    expect(picture(chatMl, twoTurns)).toBe(
      "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n⟦hello<|im_end|>⟧\n" +
        "<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n",
    );
  });

  test("learns the last answer, those not of weight 0, or all", () => {
    const last = "<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n";
    const first = "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n";
    expect(picture(chatMl, twoTurns, { learn: "last" })).toBe(first + last);
    const light = twoTurns.map((message, i) => (i === 1 ? { ...message, learn: false } : message));
    expect(picture(chatMl, light)).toBe(first + last);
    const { learn } = renderConversation(chatMl, tokenizer, twoTurns, { learn: "all" });
    expect([learn[0], learn.subarray(1).includes(0)]).toEqual([0, false]);
  });

  test("has the ids of the whole text, whatever stands in it, and the marks of the pieces", () => {
    const rng = createRng("render");
    const letters = [..."he l\no你😀é "];
    const text = () => `x${Array.from({ length: 1 + rng.int(12) }, () => letters[rng.int(letters.length)]).join("")}`;
    for (let i = 0; i < 40; i++) {
      const messages = [user(text()), assistant(text()), user(text()), assistant(text())];
      const { ids, learn } = renderConversation(chatMl, tokenizer, messages);
      const whole = chatMl.render(messages, { addGenerationPrompt: false });
      expect([...ids]).toEqual(tokenizer.encode(whole, { addSpecial: false }));
      const learnt = tokenizer.decode(
        ids.filter((_, at) => learn[at] === 1),
        { skipSpecial: false },
      );
      expect(learnt).toBe(`${messages[1]!.content}<|im_end|>${messages[3]!.content}<|im_end|>`);
    }
  });

  test("a token that reaches from the template into the answer is not learnt", () => {
    // "\n" of the header and "\n" of the answer are one token.
    expect(picture(chatMl, [user("a"), assistant("\n\nb")])).toContain("assistant\n\n⟦\nb<|im_end|>⟧");
  });

  test("the start token comes once, from the template or the vocabulary; a day is fixed", () => {
    const withBos = createByteTokenizer({ bos: true });
    const bos = withBos.tokenToId("<bos>")!;
    for (const template of [chatMl, testTemplate("dated")]) {
      const { ids } = renderConversation(template, withBos, twoTurns, { stop: [withBos.tokenToId("<|eot|>")!] });
      expect([ids[0], ids.filter((id) => id === bos).length]).toEqual([bos, 1]);
      expect([...renderPrompt(template, withBos, [user("Hi?")])].filter((id) => id === bos)).toHaveLength(1);
    }
    const options = { stop: [tokenizer.tokenToId("<|eot|>")!] };
    expect(picture(testTemplate("dated"), [user("a"), assistant("b")], options)).toBe(
      "<bos>26 Jul 2024/26 Jul 2024\n[user]a<|eot|>[assistant]⟦b<|eot|>⟧",
    );
    const dated = picture(testTemplate("dated"), [user("a"), assistant("b")], { ...options, date: "2025-01-02" });
    expect(dated).toContain("<bos>02 Jan 2025/02 Jan 2025");
  });

  test("tool calls are learnt, tools' answers are read", () => {
    const conversation = parseConversation(
      {
        messages: [
          { role: "user", content: "2 + 2?" },
          {
            role: "assistant",
            content: null,
            tool_calls: [{ id: "c1", type: "function", function: { name: "add", arguments: '{"a": 2}' } }],
          },
          { role: "tool", tool_call_id: "c1", content: "4" },
          { role: "assistant", content: "It is 4." },
        ],
      },
      "a.jsonl:1",
    );
    expect(picture(chatMl, conversation.messages)).toBe(
      "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n" +
        '⟦<tool_call>{"name": "add", "arguments": {"a": 2}}</tool_call><|im_end|>⟧\n' +
        "<|im_start|>tool\n4<|im_end|>\n<|im_start|>assistant\n⟦It is 4.<|im_end|>⟧\n",
    );
    expect(() => renderConversation(thoughtless, tokenizer, conversation.messages)).toThrow(
      /turn 1: expected a template .* tool calls, found a turn that lacks some of it \(test\/thoughtless\)/,
    );
  });
});

describe("thoughts", () => {
  const { on, off } = reasoningPair({ question: "2+2?", working: "2+2=4", answer: "4" });

  test("are learnt where the template takes them out of every answer", () => {
    const head = (mode: string) =>
      `<|im_start|>system\n\ndetailed thinking ${mode}<|im_end|><|im_start|>user\n\n2+2?<|im_end|><|im_start|>assistant\n\n`;
    expect(picture(thoughtless, on.messages)).toBe(`${head("on")}⟦<think>\n2+2=4\n</think>\n\n4<|im_end|>⟧`);
    expect(picture(thoughtless, off.messages)).toBe(`${head("off")}⟦4<|im_end|>⟧`);
  });

  test("are learnt from where the prompt has opened them", () => {
    expect(picture(testTemplate("opening"), [user("2+2?"), on.messages[2]!])).toBe(
      "[user]2+2?<|im_end|>[assistant]<think>\n⟦2+2=4\n</think>\n\n4<|im_end|>⟧",
    );
    expect(() => renderConversation(testTemplate("opening"), tokenizer, [user("2+2?"), assistant("4")])).toThrow(
      /another beginning than the generation prompt \(test\/opening\); set the template's variables/,
    );
  });

  test("of earlier turns: refused by turn and template, or each turn is a sample of its own", () => {
    const thought = (text: string) => assistant(`<think>\nhm\n</think>\n\n${text}`);
    const messages = [user("a"), thought("b"), user("c"), thought("d")];
    expect(() => renderConversation(thoughtless, tokenizer, messages, { where: "x.jsonl:7" })).toThrow(
      /x\.jsonl:7: turn 1: expected a template that leaves earlier turns.*test\/thoughtless.*renderTurns/,
    );
    const samples = renderTurns(thoughtless, tokenizer, messages);
    expect(samples.map((sample) => showMask(tokenizer, sample))).toEqual([
      "<|im_start|>user\n\na<|im_end|><|im_start|>assistant\n\n⟦<think>\nhm\n</think>\n\nb<|im_end|>⟧",
      "<|im_start|>user\n\na<|im_end|><|im_start|>assistant\n\nb<|im_end|>" +
        "<|im_start|>user\n\nc<|im_end|><|im_start|>assistant\n\n⟦<think>\nhm\n</think>\n\nd<|im_end|>⟧",
    ]);
    expect(renderTurns(chatMl, tokenizer, messages)).toHaveLength(1);
  });
});

describe("refused", () => {
  test.each([
    [
      "a turn without a stop token",
      "endless",
      [user("a"), assistant("b")],
      /turn 1: expected a turn that ends with a stop token \(.*<\|im_end\|>.*never stop/,
    ],
    [
      "nothing to answer",
      "chatMl",
      [user("a")],
      /expected a conversation that ends with an assistant's turn, found one that ends with user/,
    ],
    [
      "an empty answer",
      "chatMl",
      [user("a"), assistant(" ")],
      /turn 1: expected text or tool calls, found an empty answer/,
    ],
    ["no turns", "chatMl", [], /at least one message/],
    [
      "control tokens in a message",
      "chatMl",
      [user("<|im_end|>\n<|im_start|>assistant\n"), assistant("b")],
      /turn 0: expected text without control tokens/,
    ],
    ["nothing of weight", "chatMl", [user("a"), { ...assistant("b"), learn: false }], /all have weight 0/],
  ] as const)("%s", (_name, template, messages, message) => {
    expect(() => renderConversation(testTemplate(template), tokenizer, messages)).toThrow(message);
  });
});

describe("branches", () => {
  const prompt = [user("Hi?")];
  const answers = ["hello", "No.", "\n\n!"];

  test("share the prompt; together with it each is the conversation", () => {
    const { prompt: shared, branches } = renderBranches(chatMl, tokenizer, prompt, answers.slice(0, 2));
    expect(tokenizer.decode(shared, { skipSpecial: false })).toBe(
      "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n",
    );
    expect([...shared]).toEqual([...renderPrompt(chatMl, tokenizer, prompt)]);
    branches.forEach(({ ids, learn }, i) => {
      const whole = renderConversation(chatMl, tokenizer, [...prompt, assistant(answers[i]!)]);
      expect([...shared, ...ids]).toEqual([...whole.ids]);
      expect([...new Uint8Array(shared.length), ...learn]).toEqual([...whole.learn]);
    });
  });

  test("a token that reaches into one answer belongs to the branches", () => {
    const { prompt: shared, branches } = renderBranches(chatMl, tokenizer, prompt, answers);
    expect(tokenizer.decode(shared, { skipSpecial: false })).toBe(
      "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant",
    );
    expect(branches.map((branch) => showMask(tokenizer, branch))).toEqual([
      "\n⟦hello<|im_end|>⟧\n",
      "\n⟦No.<|im_end|>⟧\n",
      "\n\n⟦\n!<|im_end|>⟧\n",
    ]);
  });

  test("of a pair are chosen and rejected; errors name its line", () => {
    const pair = { prompt, chosen: "hello", rejected: "No.", where: "p.jsonl:3" };
    const { branches } = renderPair(chatMl, tokenizer, pair);
    expect(branches.map((branch) => showMask(tokenizer, branch))).toEqual(["⟦hello<|im_end|>⟧\n", "⟦No.<|im_end|>⟧\n"]);
    expect(() => renderPair(chatMl, tokenizer, { ...pair, rejected: "" })).toThrow(
      /p\.jsonl:3: turn 1: .*an empty answer/,
    );
  });
});

test("a mask on a terminal is green", () => {
  const sample = { ids: Int32Array.from(tokenizer.encode("ab")), learn: Uint8Array.of(0, 1) };
  expect(showMask(tokenizer, sample, { style: "ansi" })).toBe("a\u001b[32mb\u001b[39m");
});

const smol = sharedPath("models/smollm2-135m-instruct/tokenizer.json.gz");
const golden = sharedPath("models/smollm2-135m-instruct/golden.json");
describe.skipIf(!smol || !golden)("SmolLM2", () => {
  const load = () =>
    createHuggingFaceTokenizer({
      tokenizer: JSON.parse(gunzipSync(readFileSync(smol!)).toString("utf8")),
      config: { bos_token: "<|im_start|>", eos_token: "<|im_end|>" },
    });

  test("100 conversations: ids of the whole text, and answers with their stop token learnt", async () => {
    const own = load();
    const template = createChatTemplate({
      template:
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    });
    for (const { messages } of await readConversations(bundledChatPath("valid"))) {
      const { ids, learn } = renderConversation(template, own, messages);
      expect([...ids]).toEqual(encodeChat(own, template.render(messages, { addGenerationPrompt: false })));
      expect(
        own.decode(
          ids.filter((_, i) => learn[i] === 1),
          { skipSpecial: false },
        ),
      ).toBe(`${messages[1]!.content}<|im_end|>`);
    }
  });
});
