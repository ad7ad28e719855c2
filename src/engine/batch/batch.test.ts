import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createRng } from "../../base/index.js";
import { repositoryPath } from "../../base/testing.js";
import { createLora, type Model, mergeLora, openModel, resolveLora } from "../../models/index.js";
import { createRuntime, type Runtime } from "../../runtime/index.js";
import { f32Tensor } from "../../tensor/index.js";
import { createEngine, generate } from "../index.js";
import { mixedConfig, randomModel, referenceLogits } from "../testing.js";
import { drawToken, uniformAt } from "./draw.js";
import {
  type BatchSequence,
  createBatchGenerator,
  readAllWeights,
  roundMatrices,
  type WeightTensors,
} from "./index.js";

let runtime: Runtime;
let model: Model;
let weights: WeightTensors;
beforeAll(async () => {
  runtime = await createRuntime({ threads: 1 });
  model = await openModel(repositoryPath("models/stories260K"));
  weights = await readAllWeights(model.config, model.weights);
});
afterAll(async () => {
  await runtime.dispose();
  await model.close();
});

const rng = createRng("batch prompts");
const promptOf = (length: number) => [1, ...Array.from({ length: length - 1 }, () => 3 + rng.int(500))];

const first = (answers: BatchSequence[][]): BatchSequence => answers[0]![0]!;

describe("stories260K", () => {
  const prompts = [3, 17, 40, 5, 9, 70, 12].map(promptOf);

  test("greedy answers equal those of the engine, prompts of several lengths, more than there are slots", async () => {
    const engine = createEngine(runtime, model);
    const sampler = createBatchGenerator(runtime, model.config, weights, { width: 4 });
    const options = { temperature: 0, maxTokens: 90 };
    const answers = await sampler.generate(
      prompts.map((ids) => ({ ids })),
      options,
    );
    for (const [i, prompt] of prompts.entries()) {
      const alone = await generate(engine, prompt, options);
      expect([...answers[i]![0]!.ids]).toEqual(alone.ids);
      expect(answers[i]![0]!.finish).toBe(alone.finish);
    }
  });

  test("sampled answers are the same bits whatever else is in the batch, in whatever order", async () => {
    const sampler = createBatchGenerator(runtime, model.config, weights, { width: 20 });
    const options = { seed: 5, maxTokens: 70, temperature: 0.8, topP: 0.95 };
    const keyed = prompts.map((ids, key) => ({ ids, key, samples: 3 }));
    const all = await sampler.generate(keyed, options);
    const reversed = (await sampler.generate(keyed.toReversed(), options)).toReversed();
    expect(reversed).toEqual(all);
    for (const prompt of keyed) expect((await sampler.generate([prompt], options))[0]).toEqual(all[prompt.key]);
    expect(all[5]![0]!.ids).not.toEqual(all[5]![1]!.ids);
  });

  test("matrices in 8 bits, an adapter beside them: nearly the odds of the merged model, the same bits in any company", async () => {
    const lora = resolveLora(model.config, { rank: 2 });
    const { tensors } = createLora(model.config, lora, 1);
    for (const { data } of Object.values(tensors))
      for (let i = 0; i < data.length; i++) data[i]! += 0.05 * rng.normal();
    const merged = await readAllWeights(model.config, mergeLora(model, { ...lora, tensors }).weights);
    const rounded = roundMatrices(model.config, weights);
    const sampler = createBatchGenerator(
      runtime,
      model.config,
      { ...weights, ...tensors },
      { width: 8, lora, rounded },
    );
    const plain = createBatchGenerator(runtime, model.config, merged, { width: 8 });
    const options = { seed: 5, maxTokens: 40 };
    const keyed = prompts.map((ids, key) => ({ ids, key, samples: 2 }));
    const all = await sampler.generate(keyed, options);
    expect((await sampler.generate([keyed[3]!], options))[0]).toEqual(all[3]);
    const exact = await plain.generate(keyed, options);
    // Draws take the same uniform numbers: answers agree until the odds of a draw differ by enough.
    const gaps = all.flatMap((answers, p) =>
      answers.flatMap(({ ids, logProbs }, s) => {
        const other = exact[p]![s]!;
        const agreed = ids.findIndex((id, t) => id !== other.ids[t]);
        return [...logProbs.subarray(0, agreed < 0 ? ids.length : agreed)].map((x, t) =>
          Math.abs(x - other.logProbs[t]!),
        );
      }),
    );
    expect(gaps.length).toBeGreaterThan(100);
    expect(gaps.reduce((a, b) => a + b) / gaps.length).toBeLessThan(0.06);
    expect(Math.max(...gaps)).toBeGreaterThan(1e-5);
  });

  test("its log-probabilities are those of the engine, untruncated and at temperature 1", async () => {
    const engine = createEngine(runtime, model);
    const sampler = createBatchGenerator(runtime, model.config, weights, { width: 4 });
    for (const temperature of [0, 0.5, 1]) {
      const options = { temperature, topK: 5, maxTokens: 20, seed: 3 };
      const answers = (await sampler.generate([{ ids: prompts[2]!, samples: 2 }], options))[0]!;
      for (const { ids, logProbs } of answers) {
        const whole = [...prompts[2]!, ...ids];
        const targets = [...whole.slice(1), 0];
        const expected = await engine.targetLogProbs(await engine.forward([whole]), targets);
        const own = expected.subarray(prompts[2]!.length - 1, whole.length - 1);
        for (const [i, value] of logProbs.entries()) expect(value).toBeCloseTo(own[i]!, 4);
      }
    }
  });

  test("ends at stop ids, lengths and the longest context", async () => {
    const sampler = createBatchGenerator(runtime, model.config, weights, { width: 2 });
    const free = first(await sampler.generate([{ ids: prompts[0]! }], { temperature: 0, maxTokens: 12 }));
    const stop = free.ids[4]!;
    const at = free.ids.indexOf(stop);
    const stopped = first(await sampler.generate([{ ids: prompts[0]! }], { temperature: 0, stop: [stop] }));
    expect([...stopped.ids]).toEqual([...free.ids.subarray(0, at + 1)]);
    expect(stopped.finish).toBe("stop");
    const long = promptOf(model.config.maxPositions - 2);
    const ended: string[] = [];
    const onEnd = (_: unknown, prompt: number, sample: number) => ended.push(`${prompt}.${sample}`);
    const options = { temperature: 0, stop: [], maxTokens: 9, onEnd };
    const [cut, full] = (await sampler.generate([{ ids: prompts[1]! }, { ids: long }], options)).map(
      ([answer]) => answer!,
    ) as [BatchSequence, BatchSequence];
    expect([cut.finish, cut.ids.length, full.finish, full.ids.length]).toEqual(["length", 9, "context", 3]);
    expect(ended).toEqual(["1.0", "0.0"]);
  });

  test("samples with other weights once they are updated, or changed where they lie", async () => {
    const sampler = createBatchGenerator(runtime, model.config, weights, { width: 2 });
    const run = async () =>
      (await sampler.generate([{ ids: prompts[0]! }], { temperature: 0, maxTokens: 8 }))[0]![0]!.ids;
    const before = await run();
    const norm = weights["model.norm.weight"]!;
    const flipped = f32Tensor(
      norm.shape,
      norm.data.map((value) => -value),
    );
    sampler.updateWeights({ "model.norm.weight": flipped });
    expect(await run()).not.toEqual(before);
    flipped.data.set(norm.data);
    expect(await run()).toEqual(before);
  });

  test("refuses what it cannot sample from", async () => {
    const { "model.norm.weight": norm, ...rest } = weights;
    expect(() => createBatchGenerator(runtime, model.config, rest)).toThrow(
      "weight model.norm.weight: expected f32[64]",
    );
    const sampler = createBatchGenerator(runtime, model.config, weights);
    expect(() => sampler.updateWeights({ "model.nrom.weight": norm! })).toThrow("found model.nrom.weight");
    await expect(sampler.generate([{ ids: [] }])).rejects.toThrow("prompt 0: expected 1 to 512 tokens");
    await expect(sampler.generate([{ ids: [1, 900] }])).rejects.toThrow("prompt 0, token 1: expected an id below 512");
    await expect(sampler.generate([{ ids: [1] }], { topP: 0 })).rejects.toThrow("topP: expected above 0 and at most 1");
    sampler.updateWeights({
      "model.norm.weight": f32Tensor(
        norm!.shape,
        norm!.data.map(() => Number.NaN),
      ),
    });
    await expect(sampler.generate([{ ids: [1] }])).rejects.toThrow("prompt 0: logits after 1 tokens: expected finite");
  });
});

test("a model with a block of every kind samples from the distribution that its definition gives", async () => {
  const random = randomModel(mixedConfig, 1);
  const sampler = createBatchGenerator(runtime, mixedConfig, await readAllWeights(mixedConfig, random.weights), {
    width: 20,
  });
  const ids = [4, 8, 15, 16, 23];
  const answers = (await sampler.generate([{ ids, samples: 400 }], { maxTokens: 1, stop: [], seed: 2 }))[0]!;
  const row = (await referenceLogits(random, ids)).at(-1)!;
  const total = row.reduce((sum, logit) => sum + Math.exp(logit), 0);
  const counts = new Array<number>(mixedConfig.vocabSize).fill(0);
  for (const answer of answers) {
    counts[answer.ids[0]!]!++;
    expect(answer.logProbs[0]).toBeCloseTo(row[answer.ids[0]!]! - Math.log(total), 4);
  }
  // Chi-squared over the tokens that 400 draws should meet five times or more, the rest as one: the 99.9 % point of
  // 36 degrees of freedom, 68, bounds it for any number of classes up to 37.
  const expected = row.map((logit) => (400 * Math.exp(logit)) / total);
  const often = expected.flatMap((value, id) => (value >= 5 ? [[counts[id]!, value]] : []));
  const rest = expected.reduce((sum, value) => sum + (value < 5 ? value : 0), 0);
  const restCount = 400 - often.reduce((sum, [count]) => sum + count!, 0);
  const chi = [...often, [restCount, rest]].reduce((sum, [count, value]) => sum + (count! - value!) ** 2 / value!, 0);
  expect(chi).toBeLessThan(68);
});

describe("draws", () => {
  const odds = Float32Array.of(0.25, 1, 0, 0.5, 0.25); // of 2: probabilities 1/8, 1/2, 0, 1/4, 1/8
  const all = (options: { topK?: number; topP?: number }) =>
    [0, 0.1, 0.3, 0.6, 0.7, 0.8, 0.95].map((u) => drawToken(odds, u, { topK: 0, topP: 1, ...options }));

  test("fall on tokens in the order of their ids", () => {
    expect(all({})).toEqual([0, 0, 1, 1, 3, 3, 4]); // bounds 1/8, 5/8, 7/8
  });

  test("are truncated to the likeliest, most probable first", () => {
    expect(all({ topK: 2 })).toEqual([1, 1, 1, 1, 3, 3, 3]); // 1 has 2/3
    expect(all({ topP: 0.75 })).toEqual([1, 1, 1, 1, 3, 3, 3]);
    expect(all({ topP: 0.76 })).toEqual([1, 1, 1, 3, 3, 3, 0]); // 0 before 4, which is as likely; bounds 4/7, 6/7
    expect(all({ topK: 2, topP: 0.6 })).toEqual([1, 1, 1, 1, 1, 1, 1]); // 2/3 of what topK keeps
    expect(all({ topK: 100 })).toEqual([1, 1, 1, 3, 3, 0, 4]);
  });

  test("have a number of their own for each prompt, sample and position", () => {
    const at = [uniformAt(1, 0, 0, 5), uniformAt(1, 0, 0, 6), uniformAt(1, 0, 1, 5), uniformAt(1, 1, 0, 5)];
    expect(new Set([...at, uniformAt(2, 0, 0, 5)]).size).toBe(5);
    expect(uniformAt(1, "a", 0, 5)).toBe(uniformAt(1, "a", 0, 5));
  });
});
