import { mean, z } from "../../base/index.js";
import type { TokenSample } from "../../data/index.js";
import {
  createSampleScorer,
  fitShape,
  openTuning,
  packedLoss,
  type SampleScorer,
  sampleBatches,
  sftLoss,
} from "../../train/index.js";
import {
  type ChatTools,
  chatToolsOf,
  comparedMeasure,
  endNotes,
  frozenPart,
  loraOf,
  measuredBefore,
  passesOf,
  runLoop,
  trainingCurves,
  writeTuned,
} from "./common.js";
import { boundProblems, files, sampleFields, trainingFields } from "./fields.js";
import { defineMethod, type MethodWork, type OptionsOf } from "./method.js";
import { answerBothWays, reasoningMeasures, reasoningSamples } from "./reasoning-measures.js";
import { mixSources, readSources, renderLessons, sampleSources, splitSources } from "./sft-samples.js";

const fields = {
  ...sampleFields,
  ...trainingFields,
  weights: z
    .array(z.number().positive())
    .optional()
    .describe("Shares of the files of `data`, one for each; default: every sample once an epoch."),
  carryOver: files("Samples of an earlier stage, of which a share is mixed in.").optional(),
  carryShare: z.number().gt(0).lt(1).default(0.02).describe("Share of the samples that `carryOver` gives."),
  reasoning: z
    .boolean()
    .default(false)
    .describe(
      "Read worked questions (GSM8K's form), and teach each with its thoughts and without, by the system prompt.",
    ),
  average: z
    .enum(["tokens", "sequences"])
    .default("tokens")
    .describe(
      "What the loss is a mean over: all learnt tokens, or answers, so that short ones count as much as long ones.",
    ),
  answers: z.int().min(0).default(32).describe("Questions set aside that are answered both ways (`reasoning`)."),
  answerTokens: z.int().min(1).default(256).describe("Tokens of such an answer at most."),
};

type SftOptions = OptionsOf<typeof fields>;

/** Peak rates where none is named: adapters start at zero and bear more. */
const learningRates = { lora: 2e-4, all: 2e-5 };

/** Supervised fine-tuning on conversations: only what the assistant writes is learnt, its stop token included. */
export const sft = defineMethod({
  group: "train",
  summary: "fine-tune on conversations (supervised)",
  example: "models/chat --data conversations.jsonl --epochs 2 --out out/sft",
  fields,
  inputs: { data: "file", carryOver: "file" },
  makes: "policy",
  version: 3,
  problems: (options) => [...boundProblems(options), ...weightProblems(options)],
  async run(work) {
    const { options, model, seed, runtime, stage, signal } = work;
    const tools = chatToolsOf(work);
    const { mixture, held, questions, notes } = await prepareSamples(work, tools);
    const { rows, accumulate } = passesOf(options);
    const shape = fitShape([...mixture.all, ...held.flat()], { batch: rows, length: options.length });
    const answer = (of: typeof model, note: string) =>
      answerBothWays(work, of, { questions, tools, maxTokens: options.answerTokens }, note);
    const lora = loraOf(options);
    const tuning = await openTuning(model, { seed, ...(lora && { lora }) });
    const packedModel = { config: model.config, ...(tuning.lora && { lora: tuning.lora }) };
    const scorer = createSampleScorer(runtime, `${stage}_scores`, packedModel, shape, signal);
    const before = await measuredBefore(work, async () => ({
      ...(questions.length > 0 && { answers: await answer(model, "before") }),
      losses: await lossesOf(scorer, held, tuning.weights()),
    }));
    const { batches, passesPerEpoch, fill } = sampleBatches(mixture.samplesOf, shape, {
      seed,
      average: options.average,
    });
    const rounded = await frozenPart(work, { model: packedModel, shape, tuning, samples: mixture.all });
    const result = await runLoop(work, {
      options,
      parameters: tuning.parameters,
      frozen: rounded.frozen,
      loss: packedLoss({ ...rounded.model, shape, lossOf: sftLoss(options.average) }),
      batches,
      passesPerEpoch,
      accumulate,
      learningRate: learningRates[options.trainable],
      ...(held.length > 0 && {
        heldOutLoss: async ({ tensors }) => mean(await lossesOf(scorer, held, { ...tuning.frozen, ...tensors })),
      }),
    });
    const after = await lossesOf(scorer, held, tuning.weights());
    await writeTuned(work, tuning);
    const answersAfter = before.answers && (await answer(tuning.tuned(), "after"));
    return {
      measures: [
        ...(held.length === 0
          ? []
          : [comparedMeasure({ name: "held-out loss", unit: "nats a token", better: "down" }, before.losses, after)]),
        ...(before.answers && answersAfter ? reasoningMeasures(before.answers, answersAfter) : []),
      ],
      curves: trainingCurves(result),
      notes: [
        ...notes,
        ...rounded.notes,
        ...endNotes(options, result),
        `${(100 * fill).toFixed(1)} % of the packed places hold tokens`,
      ],
      ...(before.answers && answersAfter && { samples: reasoningSamples(before.answers, answersAfter) }),
    };
  },
});

function weightProblems({ data, weights }: Pick<SftOptions, "data" | "weights">) {
  if (!weights || weights.length === data.length) return [];
  return [{ field: "weights", message: `${weights.length} weights for ${data.length} files: give one for each` }];
}

async function prepareSamples({ options, seed, onEvent, stage }: MethodWork<SftOptions>, tools: ChatTools) {
  const { data, reasoning, carryOver, carryShare, weights, heldOut, length, overlong, answers } = options;
  const plan = { length, overlong, stage, onEvent };
  const { train, held } = splitSources(await readSources(data, reasoning), heldOut, seed);
  const carried = carryOver && sampleSources(tools, await readSources(carryOver, reasoning), plan);
  const mixture = mixSources(sampleSources(tools, train, plan), {
    weights,
    carried: carried && { sources: carried, share: carryShare },
    seed,
  });
  const count = train.reduce((sum, { lessons }) => sum + lessons.length, 0);
  const kind = reasoning ? "questions, each with thoughts and without," : "conversations";
  return {
    mixture,
    held: renderLessons(tools, held, plan),
    questions: held.flatMap(({ question }) => question ?? []).slice(0, answers),
    notes: [`${count} ${kind} to learn from, ${held.length} set aside`, ...mixture.notes],
  };
}

/** Mean loss of each lesson, nats a token; what belongs to one question is no two independent values. */
async function lossesOf(
  scorer: SampleScorer,
  lessons: readonly (readonly TokenSample[])[],
  weights: Parameters<SampleScorer>[1],
): Promise<number[]> {
  if (lessons.length === 0) return [];
  const lessonOf = lessons.flatMap((samples, lesson) => samples.map(() => lesson));
  const sums = lessons.map(() => ({ loss: 0, tokens: 0 }));
  for (const { sample, logProbs } of await scorer(lessons.flat(), weights)) {
    const sum = sums[lessonOf[sample]!]!;
    sum.tokens += logProbs.length;
    for (const logProb of logProbs) sum.loss -= logProb;
  }
  return sums.map(({ loss, tokens }) => loss / tokens);
}
