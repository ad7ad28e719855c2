// The inference engine on a real, tiny model: every field of a request has its effect, and its numbers are our engine's.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { EspalierError } from "../src/base/index.js";
import { repositoryPath, temporaryDirectory } from "../src/base/testing.js";
import { createEngine } from "../src/engine/index.js";
import { type CompletionRequest, createInferenceEngine, type LoadedModel } from "../src/llamacpp/index.js";
import { type Model, openModel, writeGguf } from "../src/models/index.js";
import { createRuntime } from "../src/runtime/index.js";

const directory = temporaryDirectory();
const file = join(directory, "stories.gguf");
const rough = join(directory, "rough.gguf");
const engine = createInferenceEngine();
const options = { threads: 1, contextSize: 256, sequences: 3, cache: "f32" } as const;
let parent: Model;
let model: LoadedModel;
let prompt: number[];

beforeAll(async () => {
  parent = await openModel(repositoryPath("models/stories260K"));
  await writeGguf(parent, file);
  await writeGguf(parent, rough, { type: "q8_0" });
  model = await engine.loadModel(file, options);
  prompt = [1, ...(await model.tokenize("Once upon a time, there was a"))];
});
afterAll(async () => {
  await engine.dispose();
  await parent.close();
});

/** Keeps the answer going. */
const noEnd = { 1: -100, 2: -100 };

const complete = (request: Partial<CompletionRequest> = {}) => model.complete({ prompt, maxTokens: 24, ...request });

test("says what was loaded", () => {
  expect(model.info).toMatchObject({
    gguf: file,
    architecture: "llama",
    parameters: 260_032,
    fileType: "F32",
    contextSize: 256,
    trainContextSize: 512,
    sequences: 3,
    embeddingLength: 64,
    vocabSize: 512,
    bosToken: "<s>",
    eosToken: "</s>",
    // To llama.cpp a second <s> ends a text, too.
    endIds: [1, 2],
    addBos: true,
  });
  expect(model.info.memoryBytes).toBeGreaterThan(model.info.bytes);
});

test("tokens and texts", async () => {
  const text = "Once upon a time, <s> é €";
  const ids = await model.tokenize(text);
  expect(await model.detokenize(ids)).toBe(text);
  expect(await model.tokenize("<s>", { special: true })).toEqual([1]);
  expect(await model.detokenize([1, 403], { special: true })).toContain("<s>");
});

describe("one request", () => {
  test("the likeliest tokens are those of our engine, and the text comes as it is made", async () => {
    const { generate } = await import("../src/engine/index.js");
    const runtime = await createRuntime({ threads: 1 });
    const ours = await generate(createEngine(runtime, parent), prompt, { maxTokens: 24 });
    let streamed = "";
    const made = await complete({ onText: (text) => (streamed += text) });
    expect(made.ids).toEqual(ours.ids);
    expect(made.finish).toBe("length");
    expect(made.text).toBe(streamed);
    expect(made.tokens.map(({ text }) => text).join("")).toBe(made.text);
    expect(made.text.startsWith(" little")).toBe(true);
    expect(made.timings).toMatchObject({ generatedTokens: 24 });
    await runtime.dispose();
  });

  test("log-probabilities of prompt and answer lie within 1e-3 of our engine's", async () => {
    const made = await complete({ maxTokens: 8, logprobs: 3, promptLogprobs: 2 });
    const ids = [...prompt, ...made.ids];
    const rows = await ourLogProbabilities(ids);
    const scored = [...made.promptTokens!, ...made.tokens];
    expect(scored[0]!.logprob).toBeUndefined();
    for (let i = 1; i < ids.length; i++) {
      const row = rows[i - 1]!;
      expect(scored[i]!.id).toBe(ids[i]);
      expect(Math.abs(scored[i]!.logprob! - row[ids[i]!]!)).toBeLessThan(1e-3);
      const best = [...row.keys()].sort((a, b) => row[b]! - row[a]!).slice(0, scored[i]!.top!.length);
      expect(scored[i]!.top!.map(({ id }) => id)).toEqual(best);
      for (const { id, logprob } of scored[i]!.top!) expect(Math.abs(logprob - row[id]!)).toBeLessThan(1e-3);
    }
    expect(made.promptTokens![1]!.top).toHaveLength(2);
    expect(made.tokens[0]!.top).toHaveLength(3);
    const texts = made.promptTokens!.map(({ text }) => text).join("");
    expect(texts).toBe(await model.detokenize(prompt, { special: true }));
  });

  test("log-probabilities are those before temperature, penalties and bias", async () => {
    const [plain] = (await complete({ maxTokens: 1, logprobs: 1 })).tokens;
    const { id, logprob } = plain!;
    const [other] = (
      await complete({ maxTokens: 1, logprobs: 1, sampling: { temperature: 2, seed: 5, logitBias: { [id]: -100 } } })
    ).tokens;
    expect(other!.id).not.toBe(id);
    expect(other!.top![0]).toMatchObject({ id });
    expect(other!.top![0]!.logprob).toBeCloseTo(logprob!, 5);
  });

  test("no new tokens: the prompt alone is scored", async () => {
    const made = await complete({ maxTokens: 0, promptLogprobs: 0 });
    expect(made).toMatchObject({ text: "", ids: [], finish: "length" });
    expect(made.promptTokens!.slice(1).every(({ logprob, top }) => logprob! < 0 && top!.length === 0)).toBe(true);
  });
});

test("prompts that begin alike are scored from where they part", async () => {
  const endings = [
    [300, 301, 302],
    [300, 303],
    [300, 301, 302, 304],
  ];
  const own = await engine.loadModel(file, { ...options, sequences: 1 });
  const scored = (ids: number[], promptLogprobs: number) => own.complete({ prompt: ids, maxTokens: 1, promptLogprobs });
  const cached: number[] = [];
  for (const [i, ending] of endings.entries()) {
    const ids = [...prompt, ...ending];
    const made = await scored(ids, 3 - i);
    cached.push(made.timings.cachedTokens);
    const rows = await ourLogProbabilities(ids);
    for (const [at, { logprob, top }] of made.promptTokens!.entries()) {
      if (at === 0) continue;
      expect(Math.abs(logprob! - rows[at - 1]![ids[at]!]!)).toBeLessThan(1e-3);
      expect(top).toHaveLength(3 - i);
    }
  }
  // All but the token before the first that differs; the last prompt parts from the second where that did from the first.
  expect(cached).toEqual([0, prompt.length, prompt.length]);
  // More likeliest tokens than were kept: from the beginning.
  expect((await scored([...prompt, 300], 5)).timings.cachedTokens).toBe(0);
  await own.complete({ prompt: [...prompt.slice(0, 4), 310, 311], maxTokens: 1 });
  expect((await scored([...prompt, 300], 5)).timings.cachedTokens).toBe(3);
  await own.unload();
});

async function ourLogProbabilities(ids: number[]): Promise<number[][]> {
  const runtime = await createRuntime({ threads: 1 });
  const ours = createEngine(runtime, parent);
  const { data } = await ours.logits(await ours.forward([ids]));
  await runtime.dispose();
  return ids.map((_, i) => {
    const row = [...data.subarray(i * 512, (i + 1) * 512)] as number[];
    const most = Math.max(...row);
    const logTotal = most + Math.log(row.reduce((sum, value) => sum + Math.exp(value - most), 0));
    return row.map((value) => value - logTotal);
  });
}

describe("sampling", () => {
  const drawn = async (sampling: CompletionRequest["sampling"]) => (await complete({ sampling: sampling! })).ids;

  test("a seed gives the same draws, another one others", async () => {
    const first = await drawn({ temperature: 1, seed: 7 });
    expect(await drawn({ temperature: 1, seed: 7 })).toEqual(first);
    expect(await drawn({ temperature: 1, seed: 8 })).not.toEqual(first);
  });

  test("one candidate leaves nothing to draw: top-k 1, top-p 0, min-p 1", async () => {
    const greedy = await drawn({});
    for (const cut of [{ topK: 1 }, { topP: 0 }, { minP: 1 }]) {
      expect(await drawn({ temperature: 3, seed: 1, ...cut })).toEqual(greedy);
    }
    expect(await drawn({ temperature: 3, seed: 1 })).not.toEqual(greedy);
  });

  test("penalties and bias change what is likeliest", async () => {
    const greedy = await drawn({});
    const repeated = (ids: readonly number[]) => ids.length - new Set(ids).size;
    expect(repeated(greedy)).toBeGreaterThan(0);
    for (const penalty of [{ presencePenalty: 50 }, { frequencyPenalty: 50 }, { repeatPenalty: 1e6 }]) {
      expect(repeated(await drawn(penalty))).toBe(0);
    }
    expect(await drawn({ logitBias: { [greedy[0]!]: -100 } })).not.toContain(greedy[0]);
    expect(await drawn({ logitBias: { 300: 100 } })).toEqual(Array(24).fill(300));
  });
});

describe("ends", () => {
  test("a stop text is held back and no part of the answer", async () => {
    const { text } = await complete();
    const stop = text.slice(8, 12);
    let streamed = "";
    const made = await complete({ stop: ["never said", stop], onText: (piece) => (streamed += piece) });
    expect(made).toMatchObject({ text: text.slice(0, text.indexOf(stop)), finish: "stop", stopText: stop });
    expect(streamed).toBe(made.text);
    expect(made.tokens.map((token) => token.text).join("")).toBe(made.text);
  });

  test("the end token is one, and is no part of the answer", async () => {
    const made = await complete({ sampling: { logitBias: { 2: 100 } } });
    expect(made).toMatchObject({ text: "", ids: [], finish: "stop" });
  });

  test("the context is a bound that is kept to, never shifted", async () => {
    const made = await complete({ maxTokens: 10_000, sampling: { logitBias: noEnd } });
    expect(made.finish).toBe("length");
    expect(prompt.length + made.ids.length).toBe(256);
    const failure = await complete({ prompt: Array(256).fill(403) }).catch((error: unknown) => error);
    expect(failure).toMatchObject({ exitCode: 2, expected: "a prompt of at most 255 tokens (the context has 256)" });
    expect((await complete({ prompt: Array(256).fill(403), maxTokens: 0 })).finish).toBe("length");
  });

  test("grammars hold", async () => {
    const schema = {
      type: "object",
      properties: { name: { enum: ["Tim", "Lily"] }, old: { type: "boolean" } },
      required: ["name", "old"],
    };
    const made = await complete({ grammar: { kind: "schema", schema }, maxTokens: 60 });
    expect(["Tim", "Lily"]).toContain((JSON.parse(made.text) as { name: string }).name);
    expect(made.finish).toBe("stop");
    const chosen = await complete({
      grammar: { kind: "gbnf", text: 'root ::= " cat" | " dog"' },
      sampling: { temperature: 2, seed: 4 },
    });
    expect([" cat", " dog"]).toContain(chosen.text);
    await expect(complete({ grammar: { kind: "gbnf", text: "root ::= (" } })).rejects.toThrow("a GBNF grammar");
  });

  test("an abort gives back what was made; one that waits, nothing", async () => {
    const controller = new AbortController();
    // The whole vocabulary beside each token makes the answer slow.
    const endless = { maxTokens: 240, logprobs: 512, sampling: { logitBias: noEnd }, signal: controller.signal };
    const made = await complete({ ...endless, onText: () => controller.abort() });
    expect(made.finish).toBe("aborted");
    expect(made.ids.length).toBeGreaterThanOrEqual(1);
    expect(made.ids.length).toBeLessThan(240);
    expect(await complete(endless)).toMatchObject({ finish: "aborted", ids: [] });
    expect(model.load()).toEqual({ running: 0, waiting: 0 });
  });

  test("ids outside the vocabulary and empty prompts are refused", async () => {
    await expect(complete({ prompt: [1, 512] })).rejects.toThrow("expected token ids from 0 to 511, found 512");
    await expect(complete({ prompt: [] })).rejects.toThrow("a prompt of at least one token");
    await expect(complete({ sampling: { logitBias: { 600: 1 } } })).rejects.toThrow("logit bias");
  });
});

test("requests together say what each says alone, and a known beginning is not evaluated again", async () => {
  const requests = Array.from({ length: 7 }, (_, seed) => ({
    maxTokens: 10 + seed,
    sampling: { temperature: 1, seed },
  }));
  const alone: (readonly number[])[] = [];
  for (const request of requests) alone.push((await complete(request)).ids);
  const together = requests.map((request) => complete(request));
  expect(model.load()).toEqual({ running: 3, waiting: 4 });
  const made = await Promise.all(together);
  expect(made.map(({ ids }) => ids)).toEqual(alone);
  expect(made.at(-1)!.timings).toMatchObject({ cachedTokens: prompt.length - 1, promptTokens: 1 });
});

test("embeddings have length 1 and tell texts apart", async () => {
  const [a, b, again] = await Promise.all([model.embed(prompt), model.embed([1, 300, 301]), model.embed(prompt)]);
  const dot = (x: Float32Array, y: Float32Array) => x.reduce((sum, value, i) => sum + value * y[i]!, 0);
  expect(a).toHaveLength(64);
  expect(dot(a, a)).toBeCloseTo(1, 5);
  expect(dot(a, again)).toBeCloseTo(1, 5);
  expect(dot(a, b)).toBeLessThan(0.99);
});

test("a draft changes the speed and never the text", async () => {
  const drafted = await engine.loadModel(file, { ...options, draft: rough });
  for (const sampling of [{}, { temperature: 1, seed: 3 }]) {
    const request = { prompt, maxTokens: 60, sampling };
    const [plain, fast] = [await model.complete(request), await drafted.complete(request)];
    expect(fast.ids).toEqual(plain.ids);
    expect(fast.text).toBe(plain.text);
    const { draftedTokens = 0, acceptedTokens = 0 } = fast.timings;
    expect(draftedTokens).toBeGreaterThan(10);
    expect(acceptedTokens).toBeLessThanOrEqual(draftedTokens);
    expect(plain.timings.draftedTokens).toBeUndefined();
  }
  await drafted.unload();
  await expect(drafted.complete({ prompt, maxTokens: 1 })).rejects.toThrow("one that was unloaded");
});

describe("what goes wrong", () => {
  test("a missing file, and a file of another format", async () => {
    await expect(engine.loadModel("nowhere.gguf")).rejects.toThrow("nowhere.gguf: expected a .gguf file");
    const path = join(directory, "not.gguf");
    writeFileSync(path, "certainly not a model");
    const failure = await engine.loadModel(path).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(EspalierError);
    expect(String(failure)).toContain(path);
  });

  test.skipIf(process.platform !== "linux")("the end of its process fails its requests and nothing else", async () => {
    const before = new Set(workers());
    const own = await engine.loadModel(file, options);
    const [pid] = workers().filter((worker) => !before.has(worker));
    const request = { prompt, maxTokens: 240, sampling: { logitBias: noEnd } };
    const failures = [0, 1].map(() =>
      own.complete({ ...request, onText: () => process.kill(pid!, "SIGABRT") }).catch((error: unknown) => error),
    );
    for (const failure of await Promise.all(failures)) {
      expect(failure).toBeInstanceOf(EspalierError);
      expect(String(failure)).toContain(
        `${file}: expected llama.cpp to run it, found the end of its process (SIGABRT)`,
      );
    }
    expect((await complete({ maxTokens: 3 })).ids).toHaveLength(3);
    const [one, two] = await Promise.all([
      own.complete({ prompt, maxTokens: 3 }),
      own.complete({ prompt, maxTokens: 3 }),
    ]);
    expect(one.ids).toEqual(two.ids);
    expect(workers()).toHaveLength(before.size + 1);
    await own.unload();
    expect(workers()).toHaveLength(before.size);
  });

  test("loading can be stopped", async () => {
    const controller = new AbortController();
    const loading = engine.loadModel(file, { ...options, signal: controller.signal });
    controller.abort(new Error("enough"));
    await expect(loading).rejects.toThrow("enough");
  });
});

function workers(): number[] {
  return readFileSync(`/proc/${process.pid}/task/${process.pid}/children`, "utf8")
    .split(" ")
    .filter(Boolean)
    .map(Number)
    .filter((pid) => readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("inference/worker"));
}
