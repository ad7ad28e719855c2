import { join } from "node:path";
import {
  type AttributeScorer,
  createAttributeScorer,
  markBatch,
  markRewardLoss,
  openRewardTuning,
  pairBatch,
  pairRewardLoss,
  type RewardArchitecture,
  type RewardTuning,
  rewardShape,
} from "../../align/index.js";
import { EspalierError, mean, z } from "../../base/index.js";
import { createPackedBatches, helpSteerAttributes, type PackedBatch } from "../../data/index.js";
import { createRewardHead, openRewardModel, type RewardModel, writeHub } from "../../models/index.js";
import type { Batch, BuildLoss } from "../../train/index.js";
import {
  chatToolsOf,
  endNotes,
  frozenPart,
  loraOf,
  passesOf,
  runLoop,
  setAsideEvenly,
  trainingCurves,
} from "./common.js";
import { boundProblems, files, sampleFields, trainingFields } from "./fields.js";
import { defineMethod, type Measure, type MethodWork, type OptionsOf } from "./method.js";
import { markMeasures, meanMark, readMarkedSamples, squaredErrors } from "./reward-marks.js";
import {
  lengthGap,
  pairLosses,
  pairMeasures,
  type ReadRewardOptions,
  readRewardPairs,
  rightAnswers,
} from "./reward-pairs.js";

const fields = {
  ...sampleFields,
  ...trainingFields,
  objective: z
    .enum(["bradley-terry", "margin", "scaled", "regression"])
    .default("bradley-terry")
    .describe(
      "On pairs: bradley-terry, margin (asks for a gap of the pair's strength), scaled (counts a pair by its strength); on marked answers: regression.",
    ),
  init: z
    .string()
    .min(1)
    .optional()
    .describe("Reward model to begin with, its head included: a directory or stage:NAME."),
  attributes: z
    .array(z.string().min(1))
    .min(1)
    .optional()
    .describe("Fields of the marks, for regression; default: those of `init`, else HelpSteer's five."),
  attributeWeights: z
    .array(z.number())
    .min(1)
    .optional()
    .describe("What each attribute counts for in the one reward; default: those of `init`, else equal shares."),
  lowest: z.number().default(0).describe("Least mark, for regression."),
  highest: z.number().default(4).describe("Greatest mark, for regression."),
  centre: z
    .number()
    .min(0)
    .default(0)
    .describe("Factor of (chosen + rejected)^2, which keeps rewards around 0; 0.01 is usual."),
  bias: z
    .boolean()
    .default(false)
    .describe("Give the head a bias, which transformers leaves out when it loads the model."),
  pairs: files("Preference pairs that accuracy is measured on besides, before and after.").optional(),
  badLines: z.enum(["refuse", "drop"]).default("refuse").describe("What becomes of lines that cannot be read."),
};

type RewardOptions = OptionsOf<typeof fields>;
type RewardWork = MethodWork<RewardOptions>;

const learningRates = { lora: 2e-4, all: 1e-5 };

/** A reward model: the decoder with a linear head on the token that ends an answer. */
export const reward = defineMethod({
  group: "align",
  summary: "train a reward model on pairs or on marked answers",
  example: "models/chat --data pairs.jsonl --length 512 --overlong drop --out out/reward",
  fields,
  inputs: { data: "file", init: "model", pairs: "file" },
  makes: "reward",
  version: 1,
  problems: (options) => [...boundProblems(options), ...objectiveProblems(options)],
  async run(work) {
    const { options, directory, model, seed } = work;
    const start = await openStart(work);
    try {
      const lora = loraOf(options);
      const tuning = await openRewardTuning(start, { seed, ...(lora && { lora }) });
      const session = createSession(work, start, tuning);
      const other = options.pairs ? await readOtherPairs(session, options.pairs) : undefined;
      const samples = options.objective === "regression" ? await readMarks(session) : await readPairs(session);
      const before = options.init === undefined ? undefined : await measured(session, samples.held, other);
      const result = await trainOn(session, samples);
      const after = await measured(session, samples.held, other);
      const { body, head } = tuning.tuned();
      await writeHub(body, join(directory, "model"), { overwrite: true, name: model.sidecars.name, head });
      const own = samples.measure(after.held, before?.held);
      const besides = other?.measure(after.other, before?.other) ?? { measures: [], notes: [] };
      return {
        measures: [...own.measures, ...besides.measures],
        curves: trainingCurves(result.loop),
        notes: [...samples.notes, ...(other?.notes ?? []), ...own.notes, ...besides.notes, ...result.notes],
      };
    } finally {
      await start.body.close();
    }
  },
});

function objectiveProblems(options: RewardOptions): { field: string; message: string }[] {
  const { objective, attributes, attributeWeights, centre, lowest, highest, init } = options;
  const regression = objective === "regression";
  const problem = (field: string, holds: boolean, message: string) => (holds ? [] : [{ field, message }]);
  return [
    ...problem("attributes", !attributes || regression, "only regression reads marks"),
    ...problem("centre", centre === 0 || !regression, "marks have their own centre; it is for pairs"),
    ...problem("highest", lowest < highest, "the greatest mark must be above the least"),
    ...problem("attributeWeights", !attributeWeights || regression || init !== undefined, "pairs train one reward"),
    ...problem(
      "attributeWeights",
      !attributeWeights || !attributes || attributeWeights.length === attributes.length,
      "one for each of the attributes",
    ),
  ];
}

/** The reward model to begin with: `init`, or the stage's model with a head of zeros. Closing its body is the caller's. */
async function openStart({ options, model }: RewardWork): Promise<RewardModel> {
  const { attributes, attributeWeights: weights, init, bias, objective } = options;
  if (init === undefined) {
    const names = objective === "regression" ? (attributes ?? helpSteerAttributes) : ["reward"];
    const head = createRewardHead(model.config.hiddenSize, names, { bias, ...(weights && { weights }) });
    return { body: { ...model, close: async () => {} }, head };
  }
  const { body, head } = await openRewardModel(init);
  const names = head.attributes.join(", ");
  const fits = (!attributes || attributes.join(", ") === names) && (weights?.length ?? 1) <= head.attributes.length;
  if (fits) return { body, head: { ...head, ...(weights && { weights }) } };
  await body.close();
  throw new EspalierError({
    where: "attributes",
    expected: `those of ${init}: ${names}`,
    found: (attributes ?? weights)!.join(", "),
    exitCode: 2,
  });
}

type Session = ReturnType<typeof createSession>;

function createSession(work: RewardWork, start: RewardModel, tuning: RewardTuning) {
  type Weights = Parameters<AttributeScorer>[1];
  const { options, runtime, stage, signal, onEvent } = work;
  const { rows, accumulate } = passesOf(options);
  const shape = rewardShape(rows, options.length);
  const scorer = createAttributeScorer(runtime, `${stage}_scores`, tuning.architecture, shape, signal);
  const score = (samples: Parameters<AttributeScorer>[0], weights: Weights = tuning.weights()) =>
    samples.length === 0 ? Promise.resolve([]) : scorer(samples, weights);
  const reading: ReadRewardOptions = {
    tools: chatToolsOf(options.init === undefined ? work : { model: start.body }),
    length: options.length,
    overlong: options.overlong,
    badLines: options.badLines,
    where: stage,
    onEvent,
  };
  return { work, options, head: start.head, tuning, shape, accumulate, score, reading };
}

type Scores = number[][][];
interface Told {
  measures: Measure[];
  notes: string[];
}

/** What a training needs of its samples, of either kind. */
interface RewardSamples {
  train: Parameters<AttributeScorer>[0];
  held: Parameters<AttributeScorer>[0];
  lossOf(architecture: RewardArchitecture): BuildLoss;
  batchOf(packed: PackedBatch): Batch;
  /** Loss of the samples set aside, without strengths, margin and centring. */
  heldOutLoss(scores: Scores): number;
  measure(after: Scores, before: Scores | undefined): Told;
  notes: string[];
}

async function readPairs({ options, head, shape, reading, work }: Session): Promise<RewardSamples> {
  const { objective, centre, heldOut, data } = options;
  const kind = objective === "bradley-terry" ? "regular" : (objective as "margin" | "scaled");
  const { pairs, notes } = await readRewardPairs(data, { ...reading, strengths: kind !== "regular" });
  const { train, held } = setAsideEvenly(pairs, heldOut, work.seed, lengthGap);
  const { weights } = head;
  const strengthOf = kind === "regular" ? undefined : (sample: number) => train[sample]!.strength!;
  const right = (scores: Scores | undefined) => scores && rightAnswers(scores, weights);
  return {
    train: train.map(({ sample }) => sample),
    held: held.map(({ sample }) => sample),
    lossOf: (architecture) => pairRewardLoss({ ...architecture, shape, weights, kind, centre }),
    batchOf: (packed) => pairBatch(packed, shape, strengthOf),
    heldOutLoss: (scores) => mean(pairLosses(scores, weights)),
    measure: (after, before) =>
      pairMeasures(held, rightAnswers(after, weights), { before: right(before), ruleFrom: train }),
    notes: [
      ...notes,
      `${train.length} pairs to learn from, ${held.length} set aside, evenly over the difference in length`,
    ],
  };
}

async function readMarks({ options, head, shape, reading, work }: Session): Promise<RewardSamples> {
  const { attributes } = head;
  const range = [options.lowest, options.highest] as const;
  const { marked, notes } = await readMarkedSamples(options.data, { ...reading, attributes, range });
  const { train, held } = setAsideEvenly(marked, options.heldOut, work.seed, meanMark);
  const predicted = (scores: Scores) => scores.map(([answer]) => answer!);
  return {
    train: train.map(({ sample }) => sample),
    held: held.map(({ sample }) => sample),
    lossOf: (architecture) => markRewardLoss({ ...architecture, shape }),
    batchOf: (packed) => markBatch(packed, shape, attributes.length, (sample) => train[sample]!.marks),
    heldOutLoss: (scores) => mean(squaredErrors(held, predicted(scores))),
    measure: (after, before) => ({
      measures: markMeasures(attributes, train, held, predicted(after), before && predicted(before)),
      notes: [],
    }),
    notes: [...notes, `${train.length} answers to learn from, ${held.length} set aside, evenly over their marks`],
  };
}

async function readOtherPairs({ head, reading }: Session, paths: readonly string[]) {
  const { pairs, notes } = await readRewardPairs(paths, reading);
  const right = (scores: Scores) => rightAnswers(scores, head.weights);
  return {
    samples: pairs.map(({ sample }) => sample),
    measure: (after: Scores, before: Scores | undefined) =>
      pairMeasures(pairs, right(after), { of: " on `pairs`", before: before && right(before) }),
    notes,
  };
}

async function measured(
  { score }: Session,
  held: RewardSamples["held"],
  other: { samples: RewardSamples["held"] } | undefined,
): Promise<{ held: Scores; other: Scores }> {
  return { held: await score(held), other: await score(other?.samples ?? []) };
}

async function trainOn({ work, options, tuning, shape, accumulate, score }: Session, samples: RewardSamples) {
  const packed = createPackedBatches(samples.train, shape, { seed: work.seed });
  const { steps, fill } = packed.passOf(0);
  const { architecture } = tuning;
  const rounded = await frozenPart(work, {
    model: architecture,
    shape: { ...shape, targets: shape.batch * shape.length },
    tuning,
    samples: samples.train,
  });
  const loop = await runLoop(work, {
    options,
    parameters: tuning.parameters,
    frozen: rounded.frozen,
    loss: samples.lossOf({ ...architecture, frozen: options.frozen }),
    batches: (index) => samples.batchOf(packed.at(index)),
    passesPerEpoch: steps,
    accumulate,
    learningRate: learningRates[options.trainable],
    ...(samples.held.length > 0 && {
      heldOutLoss: async ({ tensors }) =>
        samples.heldOutLoss(await score(samples.held, { ...tuning.frozen, ...tensors })),
    }),
  });
  const epochs = (loop.losses.length * accumulate) / steps;
  const told = `${epochs.toFixed(2)} epochs; ${(100 * fill).toFixed(1)} % of the packed places hold tokens`;
  return { loop, notes: [...rounded.notes, ...endNotes(options, loop), told] };
}
