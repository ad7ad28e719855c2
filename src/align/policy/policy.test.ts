import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { temporaryDirectory } from "../../base/testing.js";
import { createTestModel, gqa, swiglu, testConfig } from "../../models/testing.js";
import { createRuntime, type Runtime } from "../../runtime/index.js";
import { adamw, openTuning, train } from "../../train/index.js";
import { ruleReward } from "../rewards/index.js";
import {
  createPolicyMeter,
  createPolicySampler,
  createPolicyTraining,
  createRolloutRecords,
  curriculumPrompts,
  grpoObjective,
  type PolicyObjective,
  type PolicyTask,
  type PolicyTrainingOptions,
  reinforceObjective,
  shuffledPrompts,
} from "./index.js";

const config = testConfig({ vocabSize: 24, blocks: [{ attention: gqa(2), ffn: swiglu(32) }] });
const model = createTestModel(config, 4);
const tasks: PolicyTask[] = Array.from({ length: 12 }, (_, i) => ({
  ids: Int32Array.of(1, 3 + i, 4 + ((5 * i) % 16)),
  item: { prompt: [{ role: "user", content: `task ${i}` }] },
}));
const decode = (ids: ArrayLike<number>) => Array.from(ids).join(" ");
/** The share of even ids. */
const even = ruleReward("even", ({ answer }) => {
  const ids = answer.split(" ").map(Number);
  return ids.filter((id) => id % 2 === 0).length / ids.length;
});
const settings = { maxTokens: 8, temperature: 3 };
const stop = [2, 5, 9, 14, 17, 20];
const root = temporaryDirectory();

let runtime: Runtime;
beforeAll(async () => {
  runtime = await createRuntime({ threads: 1 });
});
afterAll(() => runtime.dispose());

async function setUp(objective: PolicyObjective, more: Partial<PolicyTrainingOptions> = {}) {
  const tuning = await openTuning(model, { lora: { rank: 4 }, seed: 1 });
  const sampler = createPolicySampler({ runtime, config, tuning, decode, stop, ...settings });
  const training = createPolicyTraining({
    ...{ runtime, stage: "policy", config, tuning, tasks, sampler, objective, ...settings },
    ...{ rewards: [{ reward: even }], plan: shuffledPrompts(tasks.length, 4, 0), samples: 6, length: 64, seed: 3 },
    ...more,
  });
  const run = (steps: number, stopAfter?: number, checkpoint?: string) => {
    const stopper = new AbortController();
    return train({
      ...{ runtime, stage: "policy", parameters: tuning.parameters, frozen: tuning.frozen },
      ...{ loss: training.loss, batches: training.batches, optimiser: adamw(), steps, learningRate: 0.02 },
      ...(checkpoint !== undefined && { checkpoint: { path: checkpoint } }),
      signal: stopper.signal,
      afterStep: async (step) => {
        if (step === stopAfter) stopper.abort(new Error("stopped"));
      },
    });
  };
  return { tuning, sampler, training, run };
}

describe("learning from its own answers", () => {
  const objectives = {
    "grpo, KL in the loss": grpoObjective({ loss: "grpo", beta: 0.01, maxTokens: 8 }),
    "dapo, no reference": grpoObjective({ maxTokens: 8 }),
    "gspo, two updates": grpoObjective({ loss: "gspo", updates: 2, maxTokens: 8 }),
    "cispo, KL weighted by the score": grpoObjective({ loss: "cispo", beta: 0.01, klWeight: "score", maxTokens: 8 }),
    "reinforce, aligner": reinforceObjective(),
    "reinforce, trl": reinforceObjective({ compat: "trl", penalty: 0.01 }),
  };

  test.each(Object.entries(objectives))("%s: the reward of other draws rises", async (_, objective) => {
    const { tuning, sampler, training, run } = await setUp(objective);
    const meter = createPolicyMeter(runtime, "measure", { config, temperature: 3, lora: tuning.lora! }, 64);
    const measure = async () => {
      const rewards = [{ reward: even }];
      const all = await meter({ tasks, sampler, rewards, samples: 16, seed: 99, weights: tuning.weights() });
      return all.reduce((sum, { reward }) => sum + reward! / all.length, 0);
    };
    const before = await measure();
    await run(16);
    expect(training.numbers.size).toBe(16 / objective.updates);
    expect(await measure()).toBeGreaterThan(before + 0.1);
  });

  test("activations that are computed again give the same parameters", async () => {
    const flats: Float32Array[] = [];
    for (const recompute of [false, true]) {
      const { tuning, run } = await setUp(grpoObjective({ beta: 0.01, maxTokens: 8 }), { recompute });
      await run(3);
      flats.push(tuning.parameters.flat);
    }
    for (const [i, value] of flats[1]!.entries()) expect(value).toBeCloseTo(flats[0]![i]!, 4);
  });

  test("ratios are 1 before the first update on a rollout, and only then", async () => {
    const { training, run } = await setUp(grpoObjective({ updates: 2, maxTokens: 8 }));
    const drifts: number[] = [];
    const source = training.loss;
    training.loss = {
      create: (...args) => {
        const inner = source.create(...args);
        return {
          async run(...request) {
            const result = await inner.run(...request);
            drifts.push(result.parts["log-ratio"]!);
            return result;
          },
        };
      },
    };
    await run(6);
    expect(drifts.filter((_, i) => i % 2 === 0)).toEqual([0, 0, 0]);
    for (const drift of drifts.filter((_, i) => i % 2 === 1)) expect(drift).toBeGreaterThan(1e-4);
  });

  test("a policy that is not the one of the rollout is noticed", async () => {
    const { tuning, training } = await setUp(grpoObjective({ maxTokens: 8 }));
    const gradients = new Float32Array(tuning.parameters.layout.size);
    const program = training.loss.create(runtime, "policy", tuning.parameters, gradients);
    const { feeds, weight } = await training.batches(0);
    await program.run({ ...tuning.frozen, ...feeds }, weight, true);
    const b = Object.entries(tuning.parameters.tensors).find(([name]) => name.endsWith("lora_B.weight"))![1];
    b.data[0] = 0.01;
    await expect(program.run({ ...tuning.frozen, ...feeds }, weight, true)).rejects.toThrow("ratios of exactly 1");
  });
});

describe("a run that was stopped", () => {
  test.each([
    ["between rollouts", grpoObjective({ beta: 0.01, maxTokens: 8 }), 3],
    ["between two updates on one rollout", grpoObjective({ updates: 2, maxTokens: 8 }), 3],
    ["with REINFORCE", reinforceObjective(), 2],
  ])("%s ends with the same bytes and numbers", async (name, objective, stopAfter) => {
    const directory = join(root, name);
    const whole = await setUp(objective);
    await whole.run(6);
    const checkpoint = join(root, `${name}.bin`);
    const records = createRolloutRecords(directory);
    const first = await setUp(objective, { records });
    await expect(first.run(6, stopAfter, checkpoint)).rejects.toThrow("stopped");
    const second = await setUp(objective, { records });
    await second.run(6, undefined, checkpoint);
    expect(second.tuning.parameters.flat).toEqual(whole.tuning.parameters.flat);
    expect(new Map([...second.training.numbers].sort(([a], [b]) => a - b))).toEqual(whole.training.numbers);
  });
});

describe("rewards and groups", () => {
  test("a reward that fails names itself, and the parameters stay", async () => {
    const broken = ruleReward("broken", () => {
      throw new Error("no such file");
    });
    const { tuning, run } = await setUp(grpoObjective({ maxTokens: 8 }), { rewards: [{ reward: broken }] });
    const start = tuning.parameters.flat.slice();
    await expect(run(2)).rejects.toThrow("no such file");
    expect(tuning.parameters.flat).toEqual(start);
  });

  test("nothing to judge by is refused", async () => {
    const silent = ruleReward("silent", () => null);
    const { run } = await setUp(grpoObjective({ maxTokens: 8 }), { rewards: [{ reward: silent }] });
    await expect(run(1)).rejects.toThrow("expected a score for some answer");
  });

  test("groups of one reward are replaced by other prompts, and counted", async () => {
    // Tasks with an even number always have the same reward.
    const some = ruleReward("some", ({ prompt, answer }) =>
      Number(prompt[0]!.content.slice(5)) % 2 === 0 ? 1 : Number(answer.length % 3 === 0),
    );
    const plan = () => [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
    const numbersOf = async (replacements: number) => {
      const more = { rewards: [{ reward: some }], plan: (rollout: number) => plan().slice(0, rollout === 0 ? 4 : 12) };
      const { training } = await setUp(grpoObjective({ maxTokens: 8 }), { ...more, replacements });
      await training.batches(0);
      return training.numbers.get(0)!;
    };
    const plain = await numbersOf(0);
    expect(plain.replaced).toBe(0);
    expect(plain.alike).toBeGreaterThanOrEqual(0.5);
    const dynamic = await numbersOf(3);
    expect(dynamic.replaced).toBeGreaterThanOrEqual(2);
    expect(dynamic.alike).toBe(plain.alike);
  });

  test("a number outside its limit is told, with its reason", async () => {
    const reasons: string[] = [];
    const { run } = await setUp(grpoObjective({ maxTokens: 8 }), {
      monitors: { limits: { length: { max: 1 } } },
      onLimit: (reason) => reasons.push(reason),
    });
    await run(1);
    expect(reasons).toEqual([expect.stringContaining("step 1: length (mean tokens of an answer) is")]);
  });
});

describe("advantages of objectives", () => {
  const answer = (reward: number | null, ended = true) => ({ reward, ended, tokens: 4 });

  test("grpo: unscorable answers count for nothing, cut ones where asked", () => {
    const groups = [
      [answer(1), answer(0), answer(null)],
      [answer(1, false), answer(0)],
    ];
    const plain = grpoObjective({ loss: "grpo", scale: "none", maxTokens: 8 }).valuesOf(groups);
    expect([...plain.advantages]).toEqual([0.5, -0.5, 0, 0.5, -0.5]);
    expect([...plain.weights]).toEqual([1, 1, 0, 1, 1]);
    expect(plain.denominator).toBe(4);
    const dropped = grpoObjective({ scale: "none", dropTruncated: true, maxTokens: 8 }).valuesOf(groups);
    expect([...dropped.weights]).toEqual([1, 1, 0, 0, 1]);
    expect(dropped.denominator).toBe(12); // tokens
  });

  test("reinforce: reward less 0.01 mean |log ratio|, less the others' mean", () => {
    const scored = (reward: number, policy: number[], reference: number[]) => ({
      ...answer(reward),
      policy: Float32Array.from(policy),
      reference: Float32Array.from(reference),
    });
    const { advantages, denominator } = reinforceObjective({ penalty: 0.1 }).valuesOf([
      [scored(1, [-1, -2], [-2, -1]), scored(0, [-1], [-1]), scored(0.5, [-1], [-3])],
    ]);
    // Rewards 1 - 0.1, 0, 0.5 - 0.2.
    expect([...advantages].map((x) => Number(x.toFixed(6)))).toEqual([0.75, -0.6, -0.15]);
    expect(denominator).toBe(3);
  });
});

describe("prompts", () => {
  test("every prompt once a pass, another order in the next", () => {
    const plan = shuffledPrompts(6, 4, 1);
    const taken = [0, 1, 2].flatMap((rollout) => [...plan(rollout)]);
    expect(taken.slice(0, 6).toSorted()).toEqual([0, 1, 2, 3, 4, 5]);
    expect(taken.slice(6).toSorted()).toEqual([0, 1, 2, 3, 4, 5]);
    expect(taken.slice(6)).not.toEqual(taken.slice(0, 6));
  });

  test("a curriculum goes from high pass rates to low ones and takes every prompt", () => {
    const rates = Array.from({ length: 60 }, (_, i) => (i % 11) / 10);
    const plan = curriculumPrompts(rates, { perRollout: 6, rollouts: 10, seed: 1 });
    const means = Array.from({ length: 10 }, (_, i) => plan(i).reduce((sum, task) => sum + rates[task]! / 6, 0));
    expect(means[0]).toBeGreaterThan(0.7);
    expect(means[9]).toBeLessThan(0.4);
    expect(means.slice(0, 5).reduce((a, b) => a + b)).toBeGreaterThan(means.slice(5).reduce((a, b) => a + b) + 0.5);
    const all = Array.from({ length: 10 }, (_, i) => [...plan(i)]).flat();
    expect(new Set(all).size).toBe(60);
    expect(curriculumPrompts(rates, { perRollout: 6, rollouts: 10, seed: 1 })(4)).toEqual(plan(4));
  });
});
