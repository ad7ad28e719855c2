/**
 * @module Fine-tuning and preference training with LoRA (r 8, all linear layers) on chat pairs of HH-RLHF of at most 256
 * tokens a sequence, four samples an update: real tokens a second, and TRL on the same pairs in the same run.
 *
 * Real tokens are counted for everybody as TRL holds them: no padding, a pair's prompt with each of its answers; to compute
 * a shared prompt once is speed. The share of the matrix-product rate counts only what is computed: 4 operations for each
 * frozen weight of the blocks and token, 6 for those of adapters, 4 for each weight of the head and learnt token; neither
 * attention nor padding. Measurements take turns; the best of each is compared with the best of the others.
 */
import { type PreferenceSample, preferenceBatches, preferenceObjective, scorePairs } from "../src/align/index.js";
import { createRssMeter, formatBytes } from "../src/base/index.js";
import { sharedPath } from "../src/base/testing.js";
import {
  type BranchedSample,
  type PackableSample,
  type PreferencePair,
  packSamples,
  readPreferencePairs,
  renderPair,
  sampleLength,
  type TokenSample,
} from "../src/data/index.js";
import { chatTemplateOf, type Model, openModel } from "../src/models/index.js";
import { createRuntime, profileProgram, type Runtime, timeMs } from "../src/runtime/index.js";
import { f32Tensor } from "../src/tensor/index.js";
import { loadTokenizer } from "../src/tokenizer/index.js";
import {
  adamw,
  type Batch,
  buildStep,
  clipFactor,
  createNorm,
  createSampleScorer,
  createStep,
  deferScatters,
  type FrozenType,
  fitShape,
  openTuning,
  type PackedShape,
  packedLoss,
  roundFrozen,
  sampleBatches,
  sftLoss,
} from "../src/train/index.js";
import type { Bench } from "./main.js";
import { findPeers, type Peers, runPeer } from "./peers.js";
import { configOf, createGemm, randomParameters, shapes } from "./train-step.js";

type Mode = "sft" | "dpo";

interface Rates {
  /** Real tokens a second of the steps alone. */
  tokensPerSecond: number;
  /** The same with the reference's pass over each pair, as in a run of one epoch. */
  withReference?: number;
  shareOfGemm: number;
  /** Over the tokens a second of each peer, in the order of `peers`. */
  ratios: number[];
}

interface Result {
  model: string;
  mode: Mode;
  /** By what frozen matrices are multiplied in. */
  rates: Readonly<Record<FrozenType, Rates>>;
  gemmGflops: number;
  fill: number;
  /** Of the steps in f32. */
  peakRssBytes: number;
  peers: { name: string; tokensPerSecond: number }[];
  profile: { op: string; milliseconds: number }[];
  note?: string;
}

const modelPath = "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf";
const dataPath = "data/hh_rlhf/harmless-base_test.jsonl.gz";
const peerModes: Readonly<Record<Mode, readonly (readonly string[])[]>> = {
  sft: [["sft"], ["sft-packed", "--bf16"]],
  dpo: [["dpo"], ["dpo", "--bf16"]],
};
const [threads, rounds, pairCount, longest] = [2, 2, 40, 256];
const lora = { rank: 8, alpha: 16 };

export const tuneSft: Bench = (options) => runMode("sft", options);
export const tuneDpo: Bench = (options) => runMode("dpo", options);

async function runMode(mode: Mode, { json, args }: Parameters<Bench>[0]): Promise<void> {
  const [modelFile, dataFile] = [sharedPath(modelPath), sharedPath(dataPath)];
  if (!modelFile || !dataFile) {
    process.stderr.write(`needs ${modelPath} and ${dataPath} in the folder of large test data (ESPALIER_SHARED)\n`);
    return;
  }
  const say = (text: string) => process.stderr.write(`${text}\n`);
  const peers = await findPeers();
  if (typeof peers === "string") say(`no peers: ${peers}`);
  const smollm = await openModel(modelFile);
  const pairs = await readPairs(smollm, dataFile);
  const cases = [
    { name: "15M", model: randomModel(smollm), peers: "the peers' scripts know SmolLM2 alone" },
    { name: "SmolLM2-135M", model: smollm, peers },
  ].filter(({ name }) => args.length === 0 || args.includes(name));
  const results: Result[] = [];
  for (const { name, model, peers: own } of cases) {
    say(`${name}: ${mode}`);
    results.push(await measureCase({ mode, name, model, pairs, peers: own, say }));
  }
  await smollm.close();
  process.stdout.write(json ? `${JSON.stringify(results, null, 2)}\n` : results.map(render).join("\n"));
}

/** The pairs of one question and one answer with which the file begins, as the peers take them. */
async function readPairs(model: Model, path: string): Promise<BranchedSample[]> {
  const tokenizer = loadTokenizer(model.sidecars.tokenizer, model.path);
  const template = chatTemplateOf(model, tokenizer);
  const pairs = await readPreferencePairs(path, { bad: "drop" });
  const short = (pair: PreferencePair) => pair.prompt.length === 1;
  return pairs
    .filter(short)
    .slice(0, pairCount)
    .map((pair) => cut(renderPair(template, tokenizer, pair)));
}

/** Each answer with its prompt in at most `longest` tokens. */
function cut({ prompt, branches }: BranchedSample): BranchedSample {
  const room = longest - prompt.length;
  return {
    prompt,
    branches: branches.map(({ ids, learn }) => ({ ids: ids.slice(0, room), learn: learn.slice(0, room) })),
  };
}

/** The 15M shape of `train-step` under the ids of SmolLM2, wrapped into its vocabulary. */
function randomModel(model: Model): Model {
  const config = configOf(shapes[0]!);
  const { tensors } = randomParameters(config);
  return { ...model, config, weights: { ...model.weights, read: async (name: string) => tensors[name]! } };
}

interface Case {
  mode: Mode;
  name: string;
  model: Model;
  pairs: readonly BranchedSample[];
  peers: Peers | string;
  say: (text: string) => void;
}

async function measureCase({ mode, name, model, pairs, peers, say }: Case): Promise<Result> {
  const rss = createRssMeter();
  const runtime = await createRuntime({ threads });
  const gemm = await createGemm(runtime);
  const plain = await createRun(runtime, mode, model, pairs, "f32");
  await plain.pass();
  await plain.pass();
  const peakRssBytes = rss.peakBytes();
  rss.stop();
  const runs = { f32: plain, int8: await createRun(runtime, mode, model, pairs, "int8") };
  await runs.int8.pass();
  await gemm.run();
  const peerBest = new Map<string, number>();
  const best = { f32: unmeasured(), int8: unmeasured() };
  let gemmBest = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds; round++) {
    for (const [type, run] of entries(runs)) {
      gemmBest = Math.min(gemmBest, await timeMs(gemm.run));
      best[type].pass = Math.min(best[type].pass, await run.pass());
      if (run.reference) best[type].reference = Math.min(best[type].reference, await timeMs(run.reference));
      const rate = (1000 * run.realTokens) / best[type].pass;
      say(
        `  round ${round + 1}, ${type}: ${rate.toFixed(1)} tokens/s, product ${gemm.rate(gemmBest).toFixed(0)} GFLOP/s`,
      );
    }
    if (typeof peers !== "string") await runPeers(peers, mode, peerBest, say);
  }
  const profile = await runs.f32.profile();
  await runtime.dispose();
  const ratesOf = (type: FrozenType): Rates => {
    const { realTokens, flops, reference } = runs[type];
    const { pass, reference: referenceMs } = best[type];
    const tokensPerSecond = (1000 * realTokens) / pass;
    return {
      tokensPerSecond,
      ...(reference && { withReference: (1000 * realTokens) / (pass + referenceMs) }),
      shareOfGemm: flops / pass / 1e6 / gemm.rate(gemmBest),
      ratios: [...peerBest.values()].map((rate) => tokensPerSecond / rate),
    };
  };
  return {
    model: name,
    mode,
    rates: { f32: ratesOf("f32"), int8: ratesOf("int8") },
    gemmGflops: gemm.rate(gemmBest),
    fill: plain.fill,
    peakRssBytes,
    peers: [...peerBest].map(([peer, rate]) => ({ name: peer, tokensPerSecond: rate })),
    profile,
    ...(typeof peers === "string" && { note: `no peers: ${peers}` }),
  };
}

const unmeasured = () => ({ pass: Number.POSITIVE_INFINITY, reference: Number.POSITIVE_INFINITY });
const entries = <K extends string, V>(record: Record<K, V>) => Object.entries(record) as [K, V][];

async function runPeers(peers: Peers, mode: Mode, best: Map<string, number>, say: (text: string) => void) {
  for (const words of peerModes[mode]) {
    const result = (await runPeer(peers, "trl_bench.py", [...words, "--steps", "6"])) as { tokensPerSecond: number };
    const name = `TRL ${words.join(" ")}`;
    best.set(name, Math.max(best.get(name) ?? 0, result.tokensPerSecond));
    say(`  ${name}: ${result.tokensPerSecond} tokens/s`);
  }
}

/** Rows that hold about four samples: an update's. */
const rows: Readonly<Record<Mode, { batch: number; length: number }>> = {
  sft: { batch: 1, length: 384 },
  dpo: { batch: 1, length: 512 },
};

async function createRun(
  runtime: Runtime,
  mode: Mode,
  model: Model,
  pairs: readonly BranchedSample[],
  type: FrozenType,
) {
  const { config } = model;
  const wrap = (ids: Int32Array) => ids.map((id) => id % config.vocabSize);
  const answers = (branches: readonly TokenSample[]) => branches.map(({ ids, learn }) => ({ ids: wrap(ids), learn }));
  const wrapped = pairs.map(({ prompt, branches }) => ({ prompt: wrap(prompt), branches: answers(branches) }));
  const samples: PackableSample[] = mode === "dpo" ? wrapped : wrapped.map(chosenAlone);
  const shape = fitShape(samples, rows[mode]);
  const { batches: packed, fill } = packSamples(samples, shape);
  const tuning = await openTuning(model, { lora });
  const plain = { config, lora: tuning.lora! };
  const packedModel = { ...plain, frozen: type };
  const rounding = { runtime, name: "rounding", model: plain, shape, tuning, samples };
  const frozen = type === "int8" ? (await roundFrozen(rounding)).frozen : tuning.frozen;
  const all = () => ({ ...frozen, ...tuning.parameters.tensors });
  const scorer = createSampleScorer(runtime, "reference", packedModel, shape);
  const prepared = mode === "dpo" ? await preferenceRun(wrapped, shape) : sampleBatches(samples, shape, { seed: 0 });
  const loss = packedLoss({
    ...packedModel,
    shape,
    lossOf: mode === "dpo" ? preferenceObjective({}, shape) : sftLoss(),
  });
  const step = createUpdate(runtime, tuning.parameters, frozen, loss);
  const drawn = await Promise.all(Array.from({ length: prepared.passesPerEpoch }, async (_, i) => prepared.batches(i)));

  async function preferenceRun(own: readonly BranchedSample[], of: PackedShape) {
    const reference = await scorePairs(scorer, own, all());
    const known: PreferenceSample[] = own.map((pair, i) => ({ pair, reference: reference[i]! }));
    return preferenceBatches(known, of, { seed: 0 });
  }

  const learnt = packed.reduce((sum, { targetCount }) => sum + targetCount, 0);
  const computed = samples.reduce((sum, sample) => sum + sampleLength(sample), 0);
  const inBlocks = (tensors: typeof tuning.frozen) =>
    Object.entries(tensors).reduce(
      (sum, [weight, { data }]) => sum + (weight.startsWith("model.layers.") ? data.length : 0),
      0,
    );
  const perToken = 4 * inBlocks(tuning.frozen) + 6 * inBlocks(tuning.parameters.tensors);
  return {
    fill,
    realTokens: samples.reduce((sum, sample) => sum + realTokens(sample), 0),
    flops: perToken * computed + 4 * config.vocabSize * config.hiddenSize * learnt,
    /** Milliseconds of an update for each batch. */
    pass: () =>
      timeMs(async () => {
        for (const batch of drawn) await step(batch);
      }),
    ...(mode === "dpo" && { reference: async () => void (await scorer(wrapped, all())) }),
    async profile() {
      const graph = deferScatters(buildStep("profiled", tuning.parameters, loss));
      const { feeds, weight } = drawn[0]!;
      const inputs = { ...all(), ...feeds, denominator: f32Tensor([], [weight]) };
      const { operators } = await profileProgram(runtime, graph, inputs, { runs: 1 });
      return operators.map(({ op, milliseconds }) => ({ op, milliseconds }));
    },
  };
}

/** What TRL holds for it: each answer with its prompt. */
function realTokens(sample: PackableSample): number {
  if ("ids" in sample) return sample.ids.length;
  return sampleLength(sample) + sample.prompt.length * (sample.branches.length - 1);
}

function chosenAlone({ prompt, branches: [chosen] }: BranchedSample): TokenSample {
  const { ids, learn } = chosen!;
  return { ids: Int32Array.from([...prompt, ...ids]), learn: Uint8Array.from([...prompt.map(() => 0), ...learn]) };
}

type Tuned = Awaited<ReturnType<typeof openTuning>>;

/** Gradient, norm, clipping and AdamW for one batch. */
function createUpdate(
  runtime: Runtime,
  parameters: Tuned["parameters"],
  frozen: Tuned["frozen"],
  loss: ReturnType<typeof packedLoss>,
) {
  const gradients = new Float32Array(parameters.layout.size);
  const program = createStep(runtime, "tuning", parameters, gradients, loss);
  const norm = createNorm(runtime);
  const optimiser = adamw({ weightDecay: 0 });
  const state = optimiser.init(parameters.layout);
  const update = optimiser.createUpdate(runtime);
  const { layout, flat } = parameters;
  return async ({ feeds, weight }: Batch) => {
    await program.run({ ...frozen, ...feeds }, weight, true);
    const gradientScale = clipFactor(await norm(gradients), 1);
    await update({ layout, parameters: flat, gradients, state, learningRate: 1e-4, gradientScale });
  };
}

function render({ model, mode, rates, gemmGflops, fill, peers, note, peakRssBytes, profile }: Result): string {
  const ratesLine = (type: FrozenType) => {
    const { tokensPerSecond, withReference, shareOfGemm, ratios } = rates[type];
    return [
      `  ${type.padEnd(5)} ${tokensPerSecond.toFixed(1)} real tokens/s`,
      ...(withReference === undefined ? [] : [`${withReference.toFixed(1)} with the reference's pass`]),
      `${(100 * shareOfGemm).toFixed(1)} % of the product rate`,
      ...ratios.map((ratio, i) => `${ratio.toFixed(2)} times ${peers[i]!.name}`),
    ].join(", ");
  };
  return `${[
    `${model}, ${mode}: ${(100 * fill).toFixed(1)} % of the places filled; frozen matrices in f32 and in 8 bits`,
    ratesLine("f32"),
    ratesLine("int8"),
    ...peers.map(({ name, tokensPerSecond }) => `  ${name}: ${tokensPerSecond.toFixed(1)} tokens/s`),
    ...(note ? [`  ${note}`] : []),
    `  ONNX Runtime's product rate ${gemmGflops.toFixed(1)} GFLOP/s, peak memory in f32 ${formatBytes(peakRssBytes)}`,
    ...profile.slice(0, 12).map(({ op, milliseconds }) => `    ${op.padEnd(34)} ${milliseconds.toFixed(1)} ms`),
  ].join("\n")}\n`;
}
