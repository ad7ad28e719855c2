import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { sharedPath } from "../base/testing.js";
import { createChatTemplate, templateDate } from "./chat-template.js";
import { loadTokenizer } from "./load.js";
import { createStreamDecoder } from "./stream.js";
import { randomTexts, readGolden, readModelSource, readVectors, vectorSource } from "./testing.js";
import { toGgufVocabulary } from "./to-gguf.js";
import { toTokenizerFiles } from "./to-json.js";
import type { Tokenizer, TokenizerSource } from "./types.js";

const plain = { addSpecial: false, parseSpecial: false } as const;
const names = ["llama-spm", "llama-bpe", "smollm2"] as const;

/** What a file would hold. */
function throughJson(source: TokenizerSource): TokenizerSource {
  return { kind: "hf", ...JSON.parse(JSON.stringify(toTokenizerFiles(source))) };
}

function expectSameIds(a: Tokenizer, b: Tokenizer, texts: readonly string[]): void {
  for (const text of texts) expect(b.encode(text), JSON.stringify(text)).toEqual(a.encode(text));
}

describe.each(names)("%s", (name) => {
  const vectors = readVectors(name);
  const source = vectorSource(vectors);

  test("ids are llama.cpp's, and decode to the text", () => {
    const tokenizer = loadTokenizer(source);
    expect(tokenizer.vocabSize).toBe(vectors.vocabSize);
    for (const { text, ids } of vectors.cases) {
      const options = name === "smollm2" ? { addSpecial: false } : plain;
      expect(tokenizer.encode(text, options), JSON.stringify(text)).toEqual(ids);
      expect(tokenizer.decode(ids, { skipSpecial: false })).toBe(text);
    }
  });

  test("the same ids as tokenizer.json, and from there as GGUF again", () => {
    const tokenizer = loadTokenizer(source);
    const json = throughJson(source);
    const texts = vectors.cases.map(({ text }) => text);
    expectSameIds(tokenizer, loadTokenizer(json), texts);
    const { metadata, notices } = toGgufVocabulary(json);
    expect(notices).toEqual([]);
    expectSameIds(tokenizer, loadTokenizer({ kind: "gguf", metadata }), texts);
    expect(metadata["tokenizer.ggml.pre"]).toBe(vectors.metadata["tokenizer.ggml.pre"]);
  });
});

test("a model without a tokenizer: the message says what is missing, and where", () => {
  expect(() => loadTokenizer(undefined, "models/bare")).toThrow(/models\/bare.*tokenizer\.json.*none/s);
});

describe("special tokens", () => {
  test("of Llama 3: start token first, two end tokens, found in the text unless it is plain", () => {
    const tokenizer = loadTokenizer(vectorSource(readVectors("llama-bpe")));
    expect(tokenizer).toMatchObject({ bosTokenId: 128000, eosTokenIds: [128001, 128009], addBos: true });
    expect(tokenizer.encode("3")).toEqual([128000, 18]);
    expect(tokenizer.encode("3<|eot_id|>3", { addSpecial: false })).toEqual([18, 128009, 18]);
    expect(tokenizer.encode("3<|eot_id|>3", plain)).not.toContain(128009);
    expect(tokenizer.decode([128000, 18, 128009])).toBe("3");
    expect(tokenizer.decode([128000, 18, 128009], { skipSpecial: false })).toBe("<|begin_of_text|>3<|eot_id|>");
  });

  test("of Llama 2: a space goes before the text and after each of them", () => {
    const source = vectorSource(readVectors("llama-spm"));
    for (const tokenizer of [loadTokenizer(source), loadTokenizer(throughJson(source))]) {
      expect(tokenizer).toMatchObject({ bosTokenId: 1, eosTokenIds: [2], addBos: true, unknownTokenId: 0 });
      // "▁Hello" is 15043: both times with its space.
      expect(tokenizer.encode("Hello</s>Hello")).toEqual([1, 15043, 2, 15043]);
      expect(tokenizer.decode([1, 15043, 2, 15043])).toBe("Hello Hello");
    }
  });

  test("white space is taken where the token says so", () => {
    const source = readModelSource("stories260K") as { kind: "hf"; tokenizer: Record<string, unknown> };
    const added = { id: 512, content: "<x>", special: true, lstrip: true, rstrip: true, single_word: true };
    const tokenizer = { ...source.tokenizer, added_tokens: [added] };
    const { encode, tokenToId } = loadTokenizer({ kind: "hf", tokenizer });
    const a = tokenToId("▁a")!;
    expect(encode("a  <x>  a", { addSpecial: false })).toEqual([a, 512, a]);
    expect(encode("b<x>", { addSpecial: false })).not.toContain(512);
  });
});

describe("stories260K", () => {
  const source = readModelSource("stories260K");
  const tokenizer = loadTokenizer(source);
  const golden = readGolden("stories260K") as Record<string, number[]> & { greedy_text: string };

  test("ids and text are those of the reference", () => {
    expect(tokenizer.encode(golden.greedy_text)).toEqual(golden.greedy_ids);
    expect(tokenizer.decode(golden.greedy_ids!)).toBe(golden.greedy_text);
    const stories = gunzipSync(
      readFileSync(new URL("../../data/tinystories/valid.txt.gz", import.meta.url)),
    ).toString();
    const first = stories.slice(0, stories.indexOf("\n<|endoftext|>"));
    expect(tokenizer.encode(first).slice(0, golden.first_story_ids!.length)).toEqual(golden.first_story_ids);
  });

  test("has the same ids as a GGUF vocabulary", () => {
    const { metadata, notices } = toGgufVocabulary(source);
    expect(notices).toEqual([]);
    expect(metadata).toMatchObject({
      "tokenizer.ggml.model": "llama",
      "tokenizer.ggml.bos_token_id": 1,
      "tokenizer.ggml.eos_token_id": 2,
      "tokenizer.ggml.add_bos_token": true,
      "tokenizer.ggml.add_space_prefix": true,
    });
    expectSameIds(tokenizer, loadTokenizer({ kind: "gguf", metadata }), [
      ...randomTexts(500, "gguf"),
      golden.greedy_text,
    ]);
  });

  test("unknown characters become bytes and come back", () => {
    for (const text of randomTexts(300, "bytes")) {
      // `▁` is how the vocabulary spells a space, so it alone does not come back.
      expect(tokenizer.decode(tokenizer.encode(text, plain))).toBe(text.replaceAll("▁", " "));
    }
  });

  test("rows beyond the tokenizer get names of their own; too few rows are an error", () => {
    const { metadata } = toGgufVocabulary(source, { vocabSize: 514, chatTemplate: "x" });
    expect((metadata["tokenizer.ggml.tokens"] as string[]).slice(511)).toEqual(
      ["�", "[PAD512]", "[PAD513]"].map((x, i) => (i === 0 ? tokenizer.idToToken(511) : x)),
    );
    expect((metadata["tokenizer.ggml.token_type"] as Int32Array)[513]).toBe(5);
    expect(metadata["tokenizer.chat_template"]).toBe("x");
    expect(() => toGgufVocabulary(source, { vocabSize: 500 })).toThrow(/500 rows of the embedding table/);
  });

  test("an id without a token shows", () => {
    expect(tokenizer.decode([403, 600])).toBe("Once\ufffd");
    expect(tokenizer.idToToken(600)).toBeUndefined();
  });
});

describe("decoding id by id", () => {
  const tokenizers = [
    loadTokenizer(readModelSource("stories260K")),
    loadTokenizer(vectorSource(readVectors("smollm2"))),
  ];

  test.each(tokenizers)("the pieces are the text, and no piece ends inside a character", (tokenizer) => {
    for (const text of [
      "Once upon a time",
      " two  spaces",
      ...(tokenizer.vocabSize === 512 ? randomTexts(200, "s") : []),
    ]) {
      const ids = tokenizer.encode(text, plain);
      const decoder = createStreamDecoder(tokenizer);
      const pieces = ids.map((id) => decoder.push(id));
      expect([...pieces, decoder.end()].join("")).toBe(tokenizer.decode(ids));
      for (const piece of pieces) expect(piece).not.toMatch(/\ufffd/);
    }
  });

  test("goes on after a prompt: the space before the next word stays", () => {
    const [tokenizer] = tokenizers;
    const decoder = createStreamDecoder(tokenizer!, { after: tokenizer!.encode("Once upon a") });
    expect(decoder.push(tokenizer!.tokenToId("▁time")!)).toBe(" time");
  });

  test("a character that never comes is given up at the end", () => {
    const [tokenizer] = tokenizers;
    const decoder = createStreamDecoder(tokenizer!);
    const [first, second, third] = tokenizer!.encode("好", plain).slice(-3);
    expect([decoder.push(first!), decoder.push(second!)]).toEqual(["", ""]);
    expect(decoder.end()).toBe("\ufffd");
    expect([first, second, third].map((id) => decoder.push(id!))).toEqual(["", "", "好"]);
  });
});

describe("chat templates", () => {
  const { chats, metadata } = readVectors("smollm2");
  const template = metadata["tokenizer.chat_template"];

  test("render as transformers does", () => {
    const { render } = createChatTemplate({ template });
    for (const { messages, rendered } of chats!) expect(render(messages)).toBe(rendered);
    const { messages, rendered } = chats![0]!;
    expect(`${render(messages, { addGenerationPrompt: false })}<|im_start|>assistant\n`).toBe(rendered);
  });

  test("get start and end token, and variables", () => {
    const source = {
      template: "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ mood }}",
      bosToken: "<s>",
      eosToken: "</s>",
    };
    const { render } = createChatTemplate(source);
    expect(render([{ role: "user", content: "hi" }], { variables: { mood: "!" } })).toBe("<s>hi</s>!");
    const named = [{ name: "default", template: "a" }];
    expect(createChatTemplate({ template: named }).render([])).toBe("a");
  });

  test.each([
    ["none", undefined, /found none; this is a base model/],
    ["broken", "{% for message in %}", /expected a Jinja template/],
  ])("%s: says what to do", (_name, template, message) => {
    expect(() => createChatTemplate({ template }, "m")).toThrow(message);
  });

  test("a template that refuses a conversation says why", () => {
    const { render } = createChatTemplate({ template: "{{ raise_exception('roles must alternate') }}" });
    expect(() => render([])).toThrow(/roles must alternate/);
  });
});

const smollm = sharedPath("models/smollm2-135m-instruct/tokenizer.json.gz");
describe.skipIf(!smollm)("SmolLM2 tokenizer.json in full", () => {
  test("ids are those of the reference, chats included", () => {
    const json = JSON.parse(gunzipSync(readFileSync(smollm!)).toString("utf8"));
    const tokenizer = loadTokenizer({ kind: "hf", tokenizer: json });
    const { cases } = readVectors("smollm2");
    for (const { text, ids } of cases) expect(tokenizer.encode(text)).toEqual(ids);
    const { metadata, notices } = toGgufVocabulary({ kind: "hf", tokenizer: json });
    expect([metadata["tokenizer.ggml.pre"], notices]).toEqual(["smollm", []]);
    expectSameIds(tokenizer, loadTokenizer({ kind: "gguf", metadata }), randomTexts(500, "smollm"));
  });
});

const tiny = sharedPath("models/tinystories-656K/tokenizer.json");
describe.skipIf(!tiny)("tinystories-656K, merges across words and no bytes", () => {
  const read = (name: string): Record<string, unknown> =>
    JSON.parse(readFileSync(sharedPath(`models/tinystories-656K/${name}.json`)!, "utf8"));
  const source: TokenizerSource = {
    kind: "hf",
    tokenizer: tiny && read("tokenizer"),
    config: tiny ? read("tokenizer_config") : {},
  };

  test("ids are those of the reference; a run of unknown characters is one unknown token", () => {
    const tokenizer = loadTokenizer(source);
    const golden = read("golden") as { prompt_ids: number[]; greedy_ids: number[]; greedy_text: string };
    expect(tokenizer.encode("Once upon a time")).toEqual(golden.prompt_ids);
    expect(tokenizer.decode(golden.greedy_ids)).toBe(golden.greedy_text.trimStart());
    expect(tokenizer.encode("你好", plain).filter((id) => id === 0)).toEqual([0]);
  });

  test("as GGUF it says what llama.cpp will do otherwise", () => {
    const { notices } = toGgufVocabulary(source);
    expect(notices).toEqual([
      expect.stringMatching(/may cut some text otherwise/),
      expect.stringMatching(/no byte tokens/),
    ]);
  });
});

test("templates that write a day write the one given, or today's", () => {
  const template =
    "{{ strftime_now('%d %b %Y, %A %-x') }}|{{ date_string }}|{% if strftime_now is defined %}clock{% endif %}";
  const chat = createChatTemplate({ template });
  expect(chat.render([], { date: templateDate })).toBe("26 Jul 2024, Friday %-x|26 Jul 2024|clock");
  expect(chat.render([])).toMatch(/^\d\d [A-Z][a-z]{2} \d{4}, [A-Z][a-z]+day %-x\|\|clock$/);
});
