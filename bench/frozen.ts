/**
 * @module LoRA on SmolLM2-135M beside frozen matrices in f32 and in 8 bits, on answers of HH-RLHF: tokens a second, what
 * rounding does to the loss of samples set aside and to their log-probabilities (as a reference's), and the loss that two
 * trainings from one start end with, both measured in f32. Differences are paired by sample, with 95 % intervals.
 *
 * `npm run bench -- frozen [STEPS]`: 60 steps of one row of 384 tokens each way, after which the adapters are compared.
 */
import { createRssMeter, formatBytes, type Interval, mean, pairedInterval } from "../src/base/index.js";
import { sharedPath } from "../src/base/testing.js";
import { type PackableSample, readPreferencePairs, renderPair, type TokenSample } from "../src/data/index.js";
import { chatTemplateOf, type Model, openModel } from "../src/models/index.js";
import { createRuntime, type Runtime } from "../src/runtime/index.js";
import { loadTokenizer } from "../src/tokenizer/index.js";
import {
  adamw,
  createSampleScorer,
  type FrozenType,
  fitShape,
  openTuning,
  packedLoss,
  roundFrozen,
  sampleBatches,
  sftLoss,
  train,
} from "../src/train/index.js";
import type { Bench } from "./main.js";

const modelPath = "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf";
const dataPath = "data/hh_rlhf/harmless-base_test.jsonl.gz";
const [heldOut, longest, row] = [96, 256, 384];

interface Trained {
  tokensPerSecond: number;
  peakRssBytes: number;
  /** Mean loss of each sample set aside under the merged model, in f32. */
  losses: number[];
}

export const frozenBench: Bench = async ({ json, args }) => {
  const [modelFile, dataFile] = [sharedPath(modelPath), sharedPath(dataPath)];
  if (!modelFile || !dataFile) throw new Error(`needs ${modelPath} and ${dataPath} in the folder of large test data`);
  const steps = Number(args[0] ?? 60);
  const runtime = await createRuntime({ threads: 2 });
  const model = await openModel(modelFile);
  const samples = await readSamples(model, dataFile);
  const [held, learnt] = [samples.slice(0, heldOut), samples.slice(heldOut)];
  const trained = {
    f32: await trainOne(runtime, model, "f32", { held, learnt, steps }),
    int8: await trainOne(runtime, model, "int8", { held, learnt, steps }),
  };
  const result = {
    model: "SmolLM2-135M-Instruct, LoRA rank 8",
    steps,
    tokensPerSecond: { f32: trained.f32.tokensPerSecond, int8: trained.int8.tokensPerSecond },
    gain: trained.int8.tokensPerSecond / trained.f32.tokensPerSecond,
    peakRssBytes: { f32: trained.f32.peakRssBytes, int8: trained.int8.peakRssBytes },
    ...(await compareStart(runtime, model, held)),
    trained: {
      f32: mean(trained.f32.losses),
      int8: mean(trained.int8.losses),
      difference: pairedInterval(trained.int8.losses, trained.f32.losses),
    },
  };
  await model.close();
  await runtime.dispose();
  process.stdout.write(json ? `${JSON.stringify(result, null, 2)}\n` : render(result));
};

async function readSamples(model: Model, path: string): Promise<TokenSample[]> {
  const tokenizer = loadTokenizer(model.sidecars.tokenizer, model.path);
  const template = chatTemplateOf(model, tokenizer);
  const pairs = await readPreferencePairs(path, { bad: "drop" });
  return pairs
    .filter(({ prompt }) => prompt.length === 1)
    .map((pair) => {
      const { prompt, branches } = renderPair(template, tokenizer, pair);
      const { ids, learn } = branches[0]!;
      return { ids: Int32Array.from([...prompt, ...ids]), learn: Uint8Array.from([...prompt.map(() => 0), ...learn]) };
    })
    .filter(({ ids }) => ids.length <= longest);
}

interface Parts {
  held: readonly PackableSample[];
  learnt: readonly PackableSample[];
  steps: number;
}

async function trainOne(runtime: Runtime, model: Model, type: FrozenType, { held, learnt, steps }: Parts) {
  const rss = createRssMeter();
  const tuning = await openTuning(model, { lora: { rank: 8, alpha: 16 } });
  const packed = { config: model.config, lora: tuning.lora! };
  const shape = fitShape([...held, ...learnt], { batch: 1, length: row });
  const rounding = { runtime, name: "rounding", model: packed, shape, tuning, samples: learnt };
  const frozen = type === "int8" ? (await roundFrozen(rounding)).frozen : tuning.frozen;
  let begun = 0;
  let tokens = 0;
  await train({
    ...{ runtime, stage: `frozen_${type}`, parameters: tuning.parameters, frozen },
    loss: packedLoss({ ...packed, frozen: type, shape, lossOf: sftLoss() }),
    batches: sampleBatches(learnt, shape, { seed: 0 }).batches,
    ...{ optimiser: adamw({ weightDecay: 0 }), steps, learningRate: 2e-4 },
    // The first step compiles.
    afterStep: async (step) => {
      if (step === 1) begun = performance.now();
      else tokens += row;
    },
  });
  const tokensPerSecond = (1000 * tokens) / (performance.now() - begun);
  process.stderr.write(`${type}: ${tokensPerSecond.toFixed(0)} tokens/s\n`);
  rss.stop();
  const scorer = createSampleScorer(runtime, "held", packed, shape);
  const scores = await scorer(held, tuning.weights());
  const losses = scores.map(({ logProbs }) => -mean([...logProbs]));
  return { tokensPerSecond, peakRssBytes: rss.peakBytes(), losses } satisfies Trained;
}

/** What rounding does to the model before any training. */
async function compareStart(runtime: Runtime, model: Model, held: readonly PackableSample[]) {
  const tuning = await openTuning(model, { lora: { rank: 8, alpha: 16 } });
  const packed = { config: model.config, lora: tuning.lora! };
  const shape = fitShape(held, { batch: 1, length: row });
  const { frozen } = await roundFrozen({ runtime, name: "start", model: packed, shape, tuning, samples: held });
  const plain = await createSampleScorer(runtime, "plain", packed, shape)(held, tuning.weights());
  const weights = { ...frozen, ...tuning.parameters.tensors };
  const rounded = await createSampleScorer(runtime, "rounded", { ...packed, frozen: "int8" }, shape)(held, weights);
  const losses = [plain, rounded].map((scores) => scores.map(({ logProbs }) => -mean([...logProbs])));
  const gaps = plain.flatMap(({ logProbs }, i) =>
    Array.from(logProbs, (x, t) => Math.abs(x - rounded[i]!.logProbs[t]!)),
  );
  const sums = [plain, rounded].map((scores) => scores.map(({ logProbs }) => logProbs.reduce((a, b) => a + b, 0)));
  return {
    start: { f32: mean(losses[0]!), int8: mean(losses[1]!), difference: pairedInterval(losses[1]!, losses[0]!) },
    reference: { tokenGap: mean(gaps), answerDifference: pairedInterval(sums[1]!, sums[0]!) },
  };
}

interface Compared {
  f32: number;
  int8: number;
  difference: Interval;
}

function render(result: {
  model: string;
  steps: number;
  tokensPerSecond: { f32: number; int8: number };
  gain: number;
  peakRssBytes: { f32: number; int8: number };
  start: Compared;
  reference: { tokenGap: number; answerDifference: Interval };
  trained: Compared;
}): string {
  const { tokensPerSecond, gain, peakRssBytes, start, reference, trained } = result;
  const number = (x: number) => x.toFixed(4);
  const interval = ({ mean: middle, low, high }: Interval) => `${number(middle)} (${number(low)} to ${number(high)})`;
  const line = (name: string, a: string, b: string, c: string) =>
    `${name.padEnd(44)} ${a.padStart(9)} ${b.padStart(9)}  ${c}`;
  return `${[
    `${result.model}, ${heldOut} samples set aside, ${result.steps} steps`,
    line("frozen matrices", "f32", "int8", "difference (95 %)"),
    line("tokens/s", tokensPerSecond.f32.toFixed(0), tokensPerSecond.int8.toFixed(0), `x ${gain.toFixed(2)}`),
    line("peak memory", formatBytes(peakRssBytes.f32), formatBytes(peakRssBytes.int8), ""),
    line("loss at the start, nats a token", number(start.f32), number(start.int8), interval(start.difference)),
    line(
      "loss after training, measured in f32",
      number(trained.f32),
      number(trained.int8),
      interval(trained.difference),
    ),
    line("log-probability of an answer, nats", "", "", interval(reference.answerDifference)),
    line("gap of a token's log-probability, nats", "", "", number(reference.tokenGap)),
  ].join("\n")}\n`;
}
