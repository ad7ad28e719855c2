/** Real models against numbers computed by independent implementations (NumPy in float32, PyTorch in float64). */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { repositoryPath, sharedPath } from "../base/testing.js";
import { type Model, openModel } from "../models/index.js";
import { createRuntime, type Runtime } from "../runtime/index.js";
import { f32Tensor } from "../tensor/index.js";
import { loadTokenizer, type Tokenizer } from "../tokenizer/index.js";
import { createEngine, type Engine, generate, scoreSequences } from "./index.js";

function goldenFile<T>(name: string): T {
  return JSON.parse(readFileSync(repositoryPath(`test/golden/${name}`), "utf8")) as T;
}

interface StoriesGolden {
  prompt_ids: number[];
  top10_logits_after_prompt: [id: number, logit: number][];
  greedy_ids: number[];
  greedy_text: string;
  first_story_ids: number[];
  story_nll: { tokens: number; nll: number }[];
}

interface StepGolden {
  token_ids: number[][];
  loss_mean_nats_per_predicted_token: number;
  logits_first_sequence_last_position_first16: number[];
  logits_second_sequence_position_10_first16: number[];
}

interface InstructGolden {
  prompts: {
    text: string;
    ids: number[];
    first_logits_first8: number[];
    last_logits_first8: number[];
    last_top5: [number, number][];
  }[];
  texts: { file: string; mean_nll_512: number; first_ids: number[]; nll_first8: number[] }[];
  chats: { ids: number[]; greedy_ids: number[] }[];
}

let runtime: Runtime;
beforeAll(async () => {
  runtime = await createRuntime({ threads: 2 });
});
afterAll(() => runtime.dispose());

interface Opened {
  model: Model;
  engine: Engine;
  tokenizer: Tokenizer;
}

async function openEngine(path: string): Promise<Opened> {
  const model = await openModel(path);
  return { model, engine: createEngine(runtime, model), tokenizer: loadTokenizer(model.sidecars.tokenizer!, path) };
}

/** Logits of one row after running the ids. */
async function logitsAt(engine: Engine, ids: number[], row: number): Promise<Float32Array> {
  const x = await engine.forward([ids]);
  const width = engine.config.hiddenSize;
  const { data } = await engine.logits(f32Tensor([1, width], x.data.subarray(row * width, (row + 1) * width)));
  return data;
}

function worstDifference(logits: Float32Array, expected: readonly (readonly [id: number, logit: number])[]): number {
  return Math.max(...expected.map(([id, logit]) => Math.abs(logits[id]! - logit)));
}

/** First stories of the corpus as the golden NLLs take them: stripped, start token first, at most 256 ids. */
function storyIds(tokenizer: Tokenizer, text: string, count: number): number[][] {
  const stories = text.split("<|endoftext|>").map((story) => story.trim());
  return stories.slice(0, count).map((story) => tokenizer.encode(story).slice(0, 256));
}

function corpus(): string | undefined {
  const path = sharedPath("data/tinystories/tinystories_head_2MiB.txt.gz");
  return path && gunzipSync(readFileSync(path)).toString("utf8");
}

describe("stories260K", () => {
  const golden = goldenFile<StoriesGolden>("models/stories260K.json");
  let stories: Opened;
  beforeAll(async () => {
    stories = await openEngine(repositoryPath("models/stories260K"));
  });
  afterAll(() => stories.model.close());

  test("logits after the prompt", async () => {
    const logits = await logitsAt(stories.engine, golden.prompt_ids, 0);
    expect(worstDifference(logits, golden.top10_logits_after_prompt)).toBeLessThan(2e-4);
  });

  test("200 greedy steps with the kv cache, byte for byte", async () => {
    const { ids, finish } = await generate(stories.engine, golden.prompt_ids, { maxTokens: 200, stop: [] });
    expect(ids).toEqual(golden.greedy_ids.slice(1));
    expect(finish).toBe("length");
    const expected = readFileSync(repositoryPath("test/golden/models/stories260K-greedy-200.txt"), "utf8");
    expect(stories.tokenizer.decode([...golden.prompt_ids, ...ids]).trim()).toBe(expected.trim());
  });

  test("loss and logits of the float64 reference step", async () => {
    const step = goldenFile<StepGolden>("stories260K_step.json");
    const scores = await scoreSequences(stories.engine, step.token_ids);
    const loss = scores.reduce((sum, { nll }) => sum + nll, 0) / scores.reduce((sum, { tokens }) => sum + tokens, 0);
    expect(Math.abs(loss - step.loss_mean_nats_per_predicted_token)).toBeLessThan(1e-5);
    const [first, second] = step.token_ids as [number[], number[]];
    const last = await logitsAt(stories.engine, first, first.length - 1);
    const tenth = await logitsAt(stories.engine, second, 10);
    const indexed = (logits: number[]) => logits.map((logit, id) => [id, logit] as const);
    expect(worstDifference(last, indexed(step.logits_first_sequence_last_position_first16))).toBeLessThan(2e-4);
    expect(worstDifference(tenth, indexed(step.logits_second_sequence_position_10_first16))).toBeLessThan(2e-4);
  });

  test.skipIf(!corpus())("NLL of 20 stories, padded and batched", async () => {
    const sequences = storyIds(stories.tokenizer, corpus()!, 20);
    expect(sequences[0]!.slice(0, 64)).toEqual(golden.first_story_ids);
    const scores = await scoreSequences(stories.engine, sequences, { batchTokens: 1500 });
    scores.forEach(({ tokens, nll }, i) => {
      expect(tokens).toBe(golden.story_nll[i]!.tokens);
      expect(Math.abs(nll / golden.story_nll[i]!.nll - 1)).toBeLessThan(1e-4);
    });
  });
});

const tinyPath = sharedPath("models/tinystories-656K");
describe.skipIf(!tinyPath)("tinystories-656K (shared)", () => {
  const golden = goldenFile<StoriesGolden>("models/tinystories-656K.json");
  let tiny: Opened;
  beforeAll(async () => {
    tiny = await openEngine(tinyPath!);
  });
  afterAll(() => tiny.model.close());

  test("prompt ids, logits and 120 greedy steps", async () => {
    const ids = tiny.tokenizer.encode("Once upon a time");
    expect(ids).toEqual(golden.prompt_ids);
    const logits = await logitsAt(tiny.engine, ids, ids.length - 1);
    expect(worstDifference(logits, golden.top10_logits_after_prompt)).toBeLessThan(2e-4);
    const made = await generate(tiny.engine, ids, { maxTokens: 120, stop: [] });
    expect([...ids, ...made.ids]).toEqual(golden.greedy_ids);
    expect(tiny.tokenizer.decode(golden.greedy_ids).trim()).toBe(golden.greedy_text.trim());
  });

  test.skipIf(!corpus())("NLL of 20 stories", async () => {
    const scores = await scoreSequences(tiny.engine, storyIds(tiny.tokenizer, corpus()!, 20));
    scores.forEach(({ tokens, nll }, i) => {
      expect(tokens).toBe(golden.story_nll[i]!.tokens);
      expect(Math.abs(nll / golden.story_nll[i]!.nll - 1)).toBeLessThan(1e-4);
    });
  });
});

const instructPath = sharedPath("models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
describe.skipIf(!instructPath)("SmolLM2-135M-Instruct, Q4_1 GGUF (shared)", () => {
  const golden = goldenFile<InstructGolden>("models/smollm2-135m-instruct.json");
  let instruct: Opened;
  beforeAll(async () => {
    instruct = await openEngine(instructPath!);
  });
  afterAll(() => instruct.model.close());

  test("logits of five prompts within 2e-3", { timeout: 180_000 }, async () => {
    for (const { text, ids, ...expected } of golden.prompts) {
      expect(instruct.tokenizer.encode(text)).toEqual(ids);
      const first = await logitsAt(instruct.engine, ids, 0);
      const last = await logitsAt(instruct.engine, ids, ids.length - 1);
      const indexed = (logits: number[]) => logits.map((logit, id) => [id, logit] as const);
      expect(worstDifference(first, indexed(expected.first_logits_first8))).toBeLessThan(2e-3);
      expect(worstDifference(last, indexed(expected.last_logits_first8))).toBeLessThan(2e-3);
      expect(worstDifference(last, expected.last_top5)).toBeLessThan(2e-3);
    }
  });

  test("greedy answers to three chats", { timeout: 180_000 }, async () => {
    for (const { ids, greedy_ids } of golden.chats) {
      expect((await generate(instruct.engine, ids, { maxTokens: 48 })).ids).toEqual(greedy_ids);
    }
  });

  test("NLL of two texts within 1e-4 relative", { timeout: 180_000 }, async () => {
    for (const { file, mean_nll_512, first_ids, nll_first8 } of golden.texts) {
      const text = gunzipSync(readFileSync(sharedPath(`data/${file}`)!)).toString("utf8");
      const ids = instruct.tokenizer.encode(text.slice(0, 20_000)).slice(0, 512);
      expect(ids.slice(0, first_ids.length)).toEqual(first_ids);
      const [score] = await scoreSequences(instruct.engine, [ids]);
      expect(score!.tokens).toBe(511);
      expect(Math.abs(score!.nll / 511 / mean_nll_512 - 1)).toBeLessThan(1e-4);
      const first = await scoreSequences(instruct.engine, [ids.slice(0, 9)]);
      expect(first[0]!.nll).toBeCloseTo(
        nll_first8.reduce((a, b) => a + b),
        3,
      );
    }
  });
});
