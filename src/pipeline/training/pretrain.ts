import { EspalierError, mean, z } from "../../base/index.js";
import { passkeySamples, type TokenSample } from "../../data/index.js";
import { extendContext, type ModelConfig } from "../../models/index.js";
import type { Tensors } from "../../runtime/index.js";
import { loadTokenizer } from "../../tokenizer/index.js";
import {
  createSampleScorer,
  openTuning,
  type PackedModel,
  packedLoss,
  type SampleScorer,
  sampleBatches,
  sftLoss,
} from "../../train/index.js";
import {
  comparedMeasure,
  endNotes,
  frozenPart,
  loraOf,
  passesOf,
  runLoop,
  trainingCurves,
  writeTuned,
} from "./common.js";
import { boundProblems, files, trainingFields } from "./fields.js";
import { defineMethod, type Measure, type MethodWork, type OptionsOf } from "./method.js";
import { readTextSamples } from "./text-samples.js";

const fields = {
  data: files("Text: plain files or .gz; several are read one after the other."),
  heldOut: z.int().min(0).default(32).describe("Windows of each file that are set aside, by whole documents."),
  ...trainingFields,
  rope: z
    .enum(["none", "linear", "llama3", "theta"])
    .default("none")
    .describe("How positions are stretched for a longer context: all waves, slow ones (Llama 3.1), a larger base."),
  context: z
    .int()
    .min(2)
    .optional()
    .describe("Longest context of the model afterwards; default with `rope`: `length`."),
  factor: z.number().gt(1).optional().describe("What waves are stretched by; default: the ratio of the contexts."),
  passkeys: z
    .int()
    .min(0)
    .default(16)
    .describe("Questions for a number hidden in filler text, at each length, before and after; 0 leaves them out."),
  passkeyLengths: z
    .array(z.int().min(32))
    .min(1)
    .optional()
    .describe("Tokens of those texts; default: half of `length`, and `length`."),
  candidates: z.int().min(2).max(64).default(8).describe("Numbers that such a question chooses among."),
};

type PretrainOptions = OptionsOf<typeof fields>;

const learningRates = { lora: 2e-4, all: 5e-5 };

/** Continued pre-training on text, and extension of the context. */
export const pretrain = defineMethod({
  group: "train",
  summary: "go on with pre-training on text, and lengthen the context",
  example: "models/base --data books.txt --length 1024 --rope theta --context 4096 --out out/longer",
  fields,
  inputs: { data: "file" },
  makes: "policy",
  version: 1,
  problems: (options) => [...boundProblems(options), ...ropeProblems(options)],
  async run(work) {
    const { options, seed, runtime, stage, signal } = work;
    const old = work.model.config;
    const model = { ...work.model, config: contextOf(old, options) };
    const { train, held } = await readSamples(work);
    const { rows, accumulate } = passesOf(options);
    const shape = { batch: rows, length: options.length, targets: rows * options.length, sequences: rows * 64 };
    const lora = loraOf(options);
    const tuning = await openTuning(model, { seed, ...(lora && { lora }) });
    const packed = (config: ModelConfig): PackedModel => ({ config, ...(tuning.lora && { lora: tuning.lora }) });
    const scorerOf = (config: ModelConfig) =>
      createSampleScorer(runtime, `${stage}_scores`, packed(config), shape, signal);
    const scorer = scorerOf(model.config);
    const stretched = await lossesOf(scorer, held, tuning.weights());
    const before = options.rope === "none" ? stretched : await lossesOf(scorerOf(old), held, tuning.weights());
    const found = await retrievals(work, packed(old), tuning.weights());
    const { batches, passesPerEpoch } = sampleBatches(train, shape, { seed });
    const rounded = await frozenPart(work, { model: packed(model.config), shape, tuning, samples: train });
    const result = await runLoop(work, {
      options,
      parameters: tuning.parameters,
      frozen: rounded.frozen,
      loss: packedLoss({ ...rounded.model, shape, lossOf: sftLoss() }),
      batches,
      passesPerEpoch,
      accumulate,
      learningRate: learningRates[options.trainable],
      ...(held.length > 0 && {
        heldOutLoss: async ({ tensors }) => mean(await lossesOf(scorer, held, { ...tuning.frozen, ...tensors })),
      }),
    });
    const after = await lossesOf(scorer, held, tuning.weights());
    const foundAfter = await retrievals(work, packed(model.config), tuning.weights());
    await writeTuned({ ...work, model }, tuning);
    return {
      measures: [
        ...(held.length > 0 ? [lossMeasure(before, after)] : []),
        ...found.map((each, i) => retrievalMeasure(each, foundAfter[i]!, options.candidates)),
      ],
      curves: trainingCurves(result),
      notes: [
        `${train.length} windows of ${options.length} tokens to learn from, ${held.length} set aside`,
        ...(held.length > 0 ? [perplexityNote(before, after)] : []),
        ...(options.rope === "none" ? [] : ropeNotes(old, model.config, held.length > 0 ? stretched : [])),
        ...rounded.notes,
        ...endNotes(options, result),
      ],
    };
  },
});

function ropeProblems({ rope, context, factor }: PretrainOptions) {
  if (rope !== "none") return [];
  return Object.entries({ context, factor })
    .filter(([, value]) => value !== undefined)
    .map(([field]) => ({ field, message: "goes with rope linear, llama3 or theta" }));
}

/** @throws EspalierError for rows longer than the context, which would be learnt at positions that nobody asked for */
function contextOf(config: ModelConfig, { rope, context, factor, length }: PretrainOptions): ModelConfig {
  const extended =
    rope === "none"
      ? config
      : extendContext(config, { rope, context: context ?? length, ...(factor !== undefined && { factor }) });
  if (length <= extended.maxPositions) return extended;
  throw new EspalierError({
    where: "length",
    expected: `at most the context of ${extended.maxPositions} tokens`,
    found: String(length),
    fix: "lengthen the context with rope and context, or shorten the rows",
    exitCode: 2,
  });
}

async function readSamples({ options, model, seed }: MethodWork<PretrainOptions>) {
  const tokenizer = loadTokenizer(model.sidecars.tokenizer, model.path);
  const parts = await Promise.all(
    options.data.map(async (path) => readTextSamples(path, tokenizer, { ...options, seed })),
  );
  return { train: parts.flatMap(({ train }) => train), held: parts.flatMap(({ held }) => held) };
}

interface Retrieval {
  length: number;
  /** 1 where the right number was the most probable one. */
  right: number[];
}

/** Questions for hidden numbers, answered by log-probability. */
async function retrievals(
  { options, model, seed, runtime, stage, signal }: MethodWork<PretrainOptions>,
  packed: PackedModel,
  weights: Tensors,
): Promise<Retrieval[]> {
  const { length, passkeys, passkeyLengths, candidates } = options;
  if (passkeys === 0) return [];
  const tokenizer = loadTokenizer(model.sidecars.tokenizer, model.path);
  const found: Retrieval[] = [];
  for (const tokens of passkeyLengths ?? [Math.floor(length / 2), length]) {
    const samples = passkeySamples(tokenizer, { length: tokens, count: passkeys, candidates, seed });
    const targets = Math.max(...samples.map(({ branches }) => branches.reduce((sum, { ids }) => sum + ids.length, 0)));
    const shape = { batch: 1, length: tokens, targets, sequences: candidates };
    const scores = await createSampleScorer(
      runtime,
      `${stage}_passkey_${tokens}`,
      packed,
      shape,
      signal,
    )(samples, weights);
    const sums = scores.map(({ logProbs }) => logProbs.reduce((sum, x) => sum + x, 0));
    const right = samples.map((_, i) => {
      const [own, ...others] = sums.slice(i * candidates, (i + 1) * candidates);
      return others.every((other) => own! > other) ? 1 : 0;
    });
    found.push({ length: tokens, right });
  }
  return found;
}

function retrievalMeasure(before: Retrieval, after: Retrieval, candidates: number): Measure {
  const name = `retrieval at ${before.length} tokens`;
  const note = `share of hidden numbers that are more probable than ${candidates - 1} others; by chance ${(1 / candidates).toFixed(3)}`;
  return comparedMeasure({ name, better: "up", note }, before.right, after.right);
}

function lossMeasure(before: readonly number[], after: readonly number[]): Measure {
  return comparedMeasure({ name: "held-out loss", unit: "nats a token", better: "down" }, before, after);
}

function perplexityNote(before: readonly number[], after: readonly number[]): string {
  return `perplexity on text set aside: ${Math.exp(mean(before)).toFixed(2)} before, ${Math.exp(mean(after)).toFixed(2)} after`;
}

function ropeNotes(old: ModelConfig, now: ModelConfig, stretched: readonly number[]): string[] {
  const loss =
    stretched.length > 0 ? `; with the new positions and no step, ${mean(stretched).toFixed(3)} nats a token` : "";
  return [`context ${old.maxPositions} to ${now.maxPositions}${loss}`];
}

/** Mean loss of each window, nats a token. */
async function lossesOf(scorer: SampleScorer, samples: readonly TokenSample[], weights: Tensors): Promise<number[]> {
  if (samples.length === 0) return [];
  const scores = await scorer(samples, weights);
  return scores.map(({ logProbs }) => -logProbs.reduce((sum, x) => sum + x, 0) / logProbs.length);
}
