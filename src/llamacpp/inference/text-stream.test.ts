import { expect, test } from "vitest";
import { createStopFilter, createTextDecoder } from "./text-stream.js";

/** A vocabulary of bytes: an id is a byte of UTF-8. */
const bytes = (ids: readonly number[]) => Buffer.from(ids).toString("utf8");

test("characters come whole", () => {
  const decoder = createTextDecoder(bytes);
  const pushed = [...Buffer.from("aé€🙂b")].map((byte) => decoder.push(byte));
  expect(pushed).toEqual(["a", undefined, "é", undefined, undefined, "€", undefined, undefined, undefined, "🙂", "b"]);
  expect(decoder.end()).toBe("");
});

test("an incomplete character at the end is said to be one", () => {
  const decoder = createTextDecoder(bytes);
  expect([decoder.push(0x61), decoder.push(0xe2), decoder.push(0x82)]).toEqual(["a", undefined, undefined]);
  expect(decoder.end()).toBe("\uFFFD");
  expect(decoder.end()).toBe("");
});

test("white space at the beginning depends on what stands before", () => {
  // As SentencePiece vocabularies do: the space of the first token is dropped.
  const words = ["<s>", " Once", " upon"];
  const detokenize = (ids: readonly number[]) =>
    ids
      .map((id) => words[id]!)
      .join("")
      .replace(/^ /, "");
  const first = createTextDecoder(detokenize);
  expect([first.push(1), first.push(2)]).toEqual(["Once", " upon"]);
  const after = createTextDecoder(detokenize, 1);
  expect([after.push(2), after.push(1)]).toEqual([" upon", " Once"]);
});

/** What each token lets through, and the rest. */
function filtered(texts: readonly (string | undefined)[], stops: readonly string[]) {
  const filter = createStopFilter(stops);
  const out: string[] = [];
  for (const [id, text] of texts.entries()) {
    out.push(
      filter
        .push({ id }, text)
        .map((token) => token.text)
        .join(""),
    );
    if (filter.stopped !== undefined) return { out, stopped: filter.stopped };
  }
  out.push(
    filter
      .end("")
      .map((token) => token.text)
      .join(""),
  );
  return { out, stopped: filter.stopped };
}

test("what may begin a stop text waits", () => {
  expect(filtered(["a", "b", "<e", "nd", ">", "c"], ["<end>"])).toEqual({
    out: ["a", "b", "", "", ""],
    stopped: "<end>",
  });
  expect(filtered(["a", "<e", "n", "x", "<"], ["<end>"])).toEqual({
    out: ["a", "", "", "<enx", "", "<"],
    stopped: undefined,
  });
});

test("the earliest stop text ends the answer, inside a token too", () => {
  expect(filtered(["one two", " three. four"], ["four", "."])).toEqual({ out: ["one two", " three"], stopped: "." });
  // "aab" is begun twice.
  expect(filtered(["a", "a", "a", "b"], ["aab"])).toEqual({ out: ["", "", "a", ""], stopped: "aab" });
});

test("tokens of one character go together, and the last of them has its text", () => {
  const filter = createStopFilter([]);
  expect(filter.push({ id: 1 }, undefined)).toEqual([]);
  expect(filter.push({ id: 2, logprob: -1 }, "é")).toEqual([
    { id: 1, text: "" },
    { id: 2, logprob: -1, text: "é" },
  ]);
  expect(filter.push({ id: 3 }, undefined)).toEqual([]);
  expect(filter.end("\uFFFD")).toEqual([{ id: 3, text: "\uFFFD" }]);
});
