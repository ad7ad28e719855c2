import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { EspalierError } from "../base/index.js";
import { temporaryDirectory } from "../base/testing.js";
import type { Tokenizer } from "../tokenizer/index.js";
import { createBatches } from "./batches.js";
import { bundledTextPath, readDocuments, readTextFile, splitDocuments } from "./text.js";
import { createSequences, sequenceAt, sliceSequences, splitText } from "./windows.js";

/** One token a character, its code; 1 starts a document. */
const letters: Tokenizer = {
  vocabSize: 128,
  bosTokenId: 1,
  eosTokenIds: [2],
  addBos: true,
  encode: (text) => [...text].map((character) => character.charCodeAt(0)),
  decode: (ids) => String.fromCharCode(...Array.from(ids)),
  idToToken: (id) => String.fromCharCode(id),
  tokenToId: (token) => token.charCodeAt(0),
  isSpecial: (id) => id < 3,
};

const codes = (text: string): number[] => [...text].map((character) => character.charCodeAt(0));

describe("documents", () => {
  test("end at the mark where there is one", () => {
    expect(splitDocuments("a b\n<|endoftext|>\n\n c\n\nd <|endoftext|>\n")).toEqual(["a b", "c\n\nd"]);
  });

  test("are runs of paragraphs otherwise", () => {
    const text = "one\n\ntwo\r\n \r\nthree\nfour\n\n\n\nfive";
    expect(splitDocuments(text, { minLength: 6 })).toEqual(["one\n\ntwo", "three\nfour", "five"]);
    expect(splitDocuments(text, { separator: "none" })).toEqual([text]);
  });

  test("of great length are cut at a line, a sentence or a word", () => {
    const cut = (text: string) => splitDocuments(text, { maxLength: 10 });
    expect(cut("one two\nthree four. five")).toEqual(["one two", "three", "four.", "five"]);
    expect(cut("a. bcd. efgh ij")).toEqual(["a. bcd.", "efgh ij"]);
    expect(cut("aaaaaaaaa😀b")).toEqual(["aaaaaaaaa", "😀b"]);
    const long = "A sentence of some length. ".repeat(4000);
    const parts = splitDocuments(long);
    expect(parts.length).toBe(Math.ceil(long.length / 20_000));
    expect(parts.join(" ")).toBe(long.trim());
    expect(splitDocuments(long, { separator: "none" })).toEqual([long.trim()]);
  });

  test("are read from plain and packed files alike", async () => {
    const folder = temporaryDirectory();
    const text = "Once upon a time — 你好\n<|endoftext|>\nThe end.";
    writeFileSync(join(folder, "a.txt"), text);
    writeFileSync(join(folder, "b.txt.gz"), gzipSync(text));
    expect(await readTextFile(join(folder, "a.txt"))).toBe(text);
    expect(await readDocuments(join(folder, "b.txt.gz"))).toEqual(["Once upon a time — 你好", "The end."]);
  });

  test.each([
    ["truncated gzip", gzipSync("x".repeat(1000)).subarray(0, 20), /a gzip file/],
    ["not UTF-8", Buffer.from([0x41, 0xff, 0xfe, 0x42]), /UTF-8/],
    ["white space only", Buffer.from(" \n\n "), /white space only/],
  ])("%s is an error that says so", async (_name, bytes, message) => {
    const path = join(temporaryDirectory(), "bad.txt");
    writeFileSync(path, bytes);
    await expect(readDocuments(path)).rejects.toThrow(message);
    await expect(readDocuments(path)).rejects.toThrow(EspalierError);
  });

  test("of the bundled text: no story is in both parts", async () => {
    const [train, valid] = [
      await readDocuments(bundledTextPath("train")),
      await readDocuments(bundledTextPath("valid")),
    ];
    expect([train.length, valid.length]).toEqual([2066, 250]);
    const seen = new Set(train);
    expect(valid.filter((story) => seen.has(story))).toEqual([]);
    expect(valid[0]).toMatch(/^One day, a little girl named Lily found a needle in her room/);
  });
});

describe("sequences", () => {
  test("packed: documents follow each other, each after its mark; the incomplete rest is dropped", () => {
    const sequences = createSequences(letters, ["abc", "defgh"], { length: 4 });
    expect(sequences).toMatchObject({ count: 2, documents: 2, skipped: 0 });
    expect([...sequenceAt(sequences, 0)]).toEqual([1, ...codes("abc")]);
    expect([...sequenceAt(sequences, 1)]).toEqual([1, ...codes("def")]);
  });

  test("document: one sequence from each that is long enough", () => {
    const sequences = createSequences(letters, ["abcdef", "ab", "ghijkl"], { length: 4, packing: "document" });
    expect(sequences).toMatchObject({ count: 2, documents: 3, skipped: 1 });
    expect([...sequences.ids]).toEqual([1, ...codes("abc"), 1, ...codes("ghi")]);
  });

  test("stop at the count wanted and say how many documents that took", () => {
    const sequences = createSequences(letters, ["abcdefgh", "ijk", "lmn"], { length: 3, maxCount: 2 });
    expect(sequences).toMatchObject({ count: 2, documents: 1 });
    expect(sliceSequences(sequences, 1, 9)).toMatchObject({ count: 1, ids: Int32Array.from(codes("cde")) });
  });

  const documents = Array.from({ length: 40 }, (_, i) => String.fromCharCode(48 + i).repeat(11));
  const parts = [
    { name: "training", sequences: "rest" },
    { name: "calibration", sequences: 5 },
    { name: "heldOut", sequences: 3 },
  ] as const;

  test("parts share no document, and the same seed deals the same way", () => {
    const split = splitText(letters, documents, parts, { length: 6, seed: 7 });
    const of = (name: keyof typeof split): Set<number> => new Set([...split[name].ids].filter((id) => id !== 1));
    expect([split.calibration.count, split.heldOut.count]).toEqual([5, 3]);
    // Five sequences of 6 take three documents of 12 tokens, three take two: 35 documents, 70 sequences are left.
    expect(split.training).toMatchObject({ count: 70, documents: 35 });
    const all = [...of("training"), ...of("calibration"), ...of("heldOut")];
    expect(new Set(all).size).toBe(all.length);
    expect(splitText(letters, documents, parts, { length: 6, seed: 7 })).toEqual(split);
    expect(splitText(letters, documents, parts, { length: 6, seed: 8 })).not.toEqual(split);
  });

  test("too short a text: says what there is and what it takes", () => {
    const run = () => splitText(letters, documents.slice(0, 4), parts, { length: 6, seed: 7, where: "a.txt" });
    // 5 + 3 + 1 sequences of 6 tokens; 4 documents of 12 tokens.
    expect(run).toThrow(
      /a\.txt: expected at least 54 tokens.*calibration 5.*found 48 tokens in 4 documents; name a longer/,
    );
  });

  test("a length that is no length is refused", () => {
    expect(() => createSequences(letters, documents, { length: 0.5 })).toThrow(/whole number/);
  });
});

describe("batches", () => {
  const sequences = createSequences(letters, ["abcdefghi"], { length: 2 });

  test("every sequence once per pass, in another order each time; batches run over the end of a pass", () => {
    const batches = createBatches(sequences, { batchSize: 2, seed: 1 });
    expect(batches.stepsPerEpoch).toBe(3);
    const indices = Array.from({ length: 5 }, (_, step) => batches.at(step).indices).flat();
    expect([...indices.slice(0, 5)].sort()).toEqual([0, 1, 2, 3, 4]);
    expect([...indices.slice(5)].sort()).toEqual([0, 1, 2, 3, 4]);
    expect(indices.slice(5)).not.toEqual(indices.slice(0, 5));
  });

  test("a batch is a function of its step, so that a run resumes anywhere", () => {
    const forwards = createBatches(sequences, { batchSize: 3, seed: "x" });
    const expected = [0, 1, 2, 3].map((step) => forwards.at(step));
    const backwards = createBatches(sequences, { batchSize: 3, seed: "x" });
    expect([3, 2, 1, 0].map((step) => backwards.at(step)).reverse()).toEqual(expected);
  });

  test("without shuffling, in order", () => {
    const batches = createBatches(sequences, { batchSize: 2, seed: 0, shuffle: false });
    expect([...batches.at(1).ids]).toEqual([...sequenceAt(sequences, 2), ...sequenceAt(sequences, 3)]);
  });
});
