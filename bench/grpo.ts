/**
 * @module A whole step of GRPO of SmolLM2-135M with LoRA, sampling included: completion tokens a second, the share of the
 * rate of a matrix product that its multiplications reach, peak memory, and TRL beside it in the same run.
 *
 * `npm run bench -- grpo [PROMPTS]`: 4 answers of at most 64 tokens to each prompt; 1 prompt a step as in the peer's
 * script, then 8 (or as many as named). Prompts of 20 tokens, rank 8, no KL as in TRL's defaults.
 *
 * Multiplications: 2 for each weight and token in sampling and in the old log-probabilities, 4 in the gradient pass
 * (forwards, and the slope of the inputs), the head's 2 in sampling, 2 and 4 besides; prompts once for their answers.
 */
import {
  createPolicySampler,
  createPolicyTraining,
  grpoObjective,
  type PolicyTask,
  policyShape,
  ruleReward,
  shuffledPrompts,
} from "../src/align/index.js";
import { createRng, createRssMeter, formatBytes } from "../src/base/index.js";
import { sharedPath } from "../src/base/testing.js";
import { modelParameters, openModel } from "../src/models/index.js";
import { createRuntime, measureProductRate } from "../src/runtime/index.js";
import { loadTokenizer } from "../src/tokenizer/index.js";
import { adamw, type FrozenType, openTuning, roundFrozen, train } from "../src/train/index.js";
import type { Bench } from "./main.js";
import { findPeers, runPeer } from "./peers.js";

const [samples, maxTokens, warmUp, timed] = [4, 64, 1, 3];

interface StepRate {
  prompts: number;
  /** What frozen matrices are multiplied in: while training, and for new tokens of up to 8 answers at a time. */
  frozen: FrozenType;
  /** Completion tokens of a step, mean. */
  tokens: number;
  /** Completion tokens a second of the best step, and of all. */
  best: number;
  mean: number;
  shareOfProductRate: number;
}

interface Result {
  model: string;
  steps: StepRate[];
  productGigaflops: number;
  peakRssBytes: number;
  trl?: { tokensPerSecond: number; ratios: number[] };
  note?: string;
}

export const grpo: Bench = async ({ json, args }) => {
  const path = sharedPath("models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
  if (!path) throw new Error("no SmolLM2 among the optional test data");
  const rss = createRssMeter();
  const runtime = await createRuntime({ threads: 2 });
  const product = await measureProductRate(runtime);
  const steps: StepRate[] = [];
  for (const prompts of args.length > 0 ? args.map(Number) : [1, 8]) {
    for (const frozen of ["f32", "int8"] as const) {
      steps.push(await measureSteps(runtime, path, { prompts, frozen, product }));
      process.stderr.write(`${prompts} prompts a step, ${frozen}: ${steps.at(-1)!.mean.toFixed(1)} tokens/s\n`);
    }
  }
  rss.stop();
  await runtime.dispose();
  const result: Result = {
    model: "SmolLM2-135M-Instruct, LoRA rank 8",
    steps,
    productGigaflops: product / 1e9,
    peakRssBytes: rss.peakBytes(),
    ...(await besideTrl(steps)),
  };
  process.stdout.write(json ? `${JSON.stringify(result, null, 2)}\n` : render(result));
};

async function besideTrl(steps: readonly StepRate[]): Promise<Pick<Result, "trl" | "note">> {
  const peers = await findPeers();
  if (typeof peers === "string") return { note: `no peers: ${peers}` };
  const args = ["grpo", "--steps", String(timed + 2)];
  const { tokensPerSecond } = (await runPeer(peers, "trl_bench.py", args)) as { tokensPerSecond: number };
  return { trl: { tokensPerSecond, ratios: steps.map(({ mean }) => mean / tokensPerSecond) } };
}

async function measureSteps(
  runtime: Awaited<ReturnType<typeof createRuntime>>,
  path: string,
  { prompts, frozen, product }: { prompts: number; frozen: FrozenType; product: number },
): Promise<StepRate> {
  const model = await openModel(path);
  const tokenizer = loadTokenizer(model.sidecars.tokenizer, path);
  const { config } = model;
  const tuning = await openTuning(model, { lora: { rank: 8, alpha: 16 } });
  const rng = createRng("grpo bench");
  const tasks: PolicyTask[] = Array.from({ length: 64 }, () => ({
    ids: Int32Array.from({ length: 20 }, () => 100 + rng.int(config.vocabSize - 100)),
    item: { prompt: [{ role: "user", content: "" }] },
  }));
  const reward = ruleReward("commas", ({ answer }) => answer.split(",").length - 1 + answer.length / 1e6);
  const width = prompts * samples;
  const rounded =
    frozen === "int8"
      ? await roundFrozen({
          ...{ runtime, name: "rounding", model: { config, lora: tuning.lora! }, shape: policyShape(320), tuning },
          samples: tasks.map(({ ids }) => ({ ids, learn: new Uint8Array(ids.length).fill(1, 1) })),
        })
      : undefined;
  const sampler = createPolicySampler({
    ...{ runtime, config, tuning, maxTokens, width, int8: rounded !== undefined && width <= 8 },
    decode: (ids) => tokenizer.decode(ids),
    stop: config.eosTokenIds,
  });
  const training = createPolicyTraining({
    ...{ runtime, stage: `grpo_${prompts}_${frozen}`, config, tuning, tasks, sampler, samples, length: 320, seed: 0 },
    ...(rounded && { int8: rounded.frozen }),
    ...{ rewards: [{ reward }], objective: grpoObjective({ maxTokens }) },
    plan: shuffledPrompts(tasks.length, prompts, 0),
  });
  const marks: { seconds: number; tokens: number }[] = [];
  let last = performance.now();
  await train({
    ...{
      runtime,
      stage: `grpo_${prompts}_${frozen}`,
      parameters: tuning.parameters,
      frozen: rounded?.frozen ?? tuning.frozen,
    },
    ...{ loss: training.loss, batches: training.batches, optimiser: adamw(), learningRate: 1e-5 },
    steps: warmUp + timed,
    afterStep: async (step) => {
      const now = performance.now();
      const tokens = training.numbers.get(step - 1)!.length * prompts * samples;
      marks.push({ seconds: (now - last) / 1000, tokens });
      last = now;
    },
  });
  await model.close();
  const measured = marks.slice(warmUp);
  const seconds = measured.reduce((sum, mark) => sum + mark.seconds, 0);
  const tokens = measured.reduce((sum, mark) => sum + mark.tokens, 0);
  const prompt = timed * prompts * 20;
  const head = config.vocabSize * config.hiddenSize;
  const flops = (modelParameters(config) - head) * (tokens + prompt) * (2 + 2 + 4) + head * tokens * (2 + 2 + 6);
  return {
    prompts,
    frozen,
    tokens: tokens / timed,
    best: Math.max(...measured.map((mark) => mark.tokens / mark.seconds)),
    mean: tokens / seconds,
    shareOfProductRate: flops / seconds / product,
  };
}

function render({ model, steps, productGigaflops, peakRssBytes, trl, note }: Result): string {
  return [
    `${model}: ${samples} answers of at most ${maxTokens} tokens to a prompt, whole steps with sampling`,
    ...steps.map(
      ({ prompts, frozen, tokens, mean, best, shareOfProductRate }, i) =>
        `${prompts} prompts a step, ${frozen.padEnd(4)} ${mean.toFixed(1).padStart(7)} completion tokens/s (best ${best.toFixed(1)}), ${tokens.toFixed(0)} a step, ${(100 * shareOfProductRate).toFixed(0)} % of the product rate${trl ? `, ${trl.ratios[i]!.toFixed(2)} times TRL` : ""}`,
    ),
    `product rate ${productGigaflops.toFixed(0)} GFLOP/s, peak memory ${formatBytes(peakRssBytes)}`,
    trl ? `TRL, 1 prompt a step  ${trl.tokensPerSecond.toFixed(1)} completion tokens/s` : (note ?? ""),
    "",
  ].join("\n");
}
