import { expect, test } from "vitest";
import { ignoreEvents } from "../base/index.js";
import { temporaryDirectory } from "../base/testing.js";
import { gqa, swiglu, testConfig } from "../models/testing.js";
import { ggufBytes } from "../plan/index.js";
import { chooseThreads, chosen, type ThreadsRequest } from "./step-threads.js";
import { openStore } from "./store.js";

test("more threads are taken only where they are clearly faster", () => {
  expect(chosen([8.1, 7.8])).toBe(0);
  expect(chosen([8, 4.5, 4.3])).toBe(1);
  expect(chosen([8, 7.5, 4])).toBe(2);
});

/** Larger than the files that one thread is enough for. */
const config = testConfig({
  vocabSize: 70_000,
  tiedEmbeddings: false,
  hiddenSize: 256,
  heads: 4,
  headDim: 64,
  blocks: [{ attention: gqa(4), ffn: swiglu(256) }],
});

function requestOf(stepSeconds: Record<number, number>): ThreadsRequest & { timed: number[] } {
  const timed: number[] = [];
  return {
    config,
    type: "q8_0",
    depth: 64,
    llama: {
      version: async () => ({ package: "3.22.1", llamaCpp: "v0.5.0", gpu: false, devices: [], mathCores: 4 }),
      timeMany: async (files) =>
        files.map(({ stepThreads }) => {
          timed.push(stepThreads!);
          return { prefill: [], decode: [[stepSeconds[stepThreads!]!]] };
        }),
    },
    store: openStore(temporaryDirectory()),
    onEvent: ignoreEvents,
    signal: new AbortController().signal,
    timed,
  };
}

test("1, 2 and all threads are timed once; what was found stays", async () => {
  expect(ggufBytes(config, "q8_0")).toBeGreaterThan(32 * 2 ** 20);
  const request = requestOf({ 1: 8e-3, 2: 5e-3, 4: 4.8e-3 });
  expect(await chooseThreads(request)).toEqual({ threads: 4, stepThreads: 2 });
  expect(await chooseThreads(request)).toEqual({ threads: 4, stepThreads: 2 });
  expect(request.timed).toEqual([1, 2, 4]);
});

test("threads that were asked for are taken for prompts and steps", async () => {
  const request = { ...requestOf({}), threads: 3 };
  expect(await chooseThreads(request)).toEqual({ threads: 3, stepThreads: 3 });
  expect(request.timed).toEqual([]);
});
