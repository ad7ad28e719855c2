import { mean, z } from "../../base/index.js";
import {
  type Conversation,
  limitLength,
  readConversations,
  readWorkedQuestions,
  reasoningPair,
  renderTurns,
  type TokenSample,
} from "../../data/index.js";
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
  chatToolsOf,
  comparedMeasure,
  endNotes,
  loraOf,
  passesOf,
  runLoop,
  setAside,
  trainingCurves,
  writeTuned,
} from "./common.js";
import { boundProblems, files, sampleFields, trainingFields } from "./fields.js";
import { defineMethod, type MethodWork, type OptionsOf } from "./method.js";

const fields = {
  ...sampleFields,
  ...trainingFields,
  reasoning: z
    .boolean()
    .default(false)
    .describe(
      "Read worked questions (GSM8K's form), and teach each with its thoughts and without, by the system prompt.",
    ),
  carryOver: files("Samples of an earlier stage, of which a share is mixed in.").optional(),
  carryShare: z.number().gt(0).lt(1).default(0.02).describe("Share of the samples that `carryOver` gives."),
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
  version: 1,
  problems: boundProblems,
  async run(work) {
    const { options, model, seed, runtime, stage, signal } = work;
    const { train, held, notes } = await prepareSamples(work);
    const { rows, accumulate } = passesOf(options);
    const shape = fitShape([...train, ...held], { batch: rows, length: options.length });
    const lora = loraOf(options);
    const tuning = await openTuning(model, { seed, ...(lora && { lora }) });
    const packedModel = { config: model.config, ...(tuning.lora && { lora: tuning.lora }) };
    const scorer = createSampleScorer(runtime, `${stage}_scores`, packedModel, shape, signal);
    const before = await lossesOf(scorer, held, tuning.weights());
    const { batches, passesPerEpoch, fill } = sampleBatches(train, shape, seed);
    const result = await runLoop(work, {
      options,
      parameters: tuning.parameters,
      frozen: tuning.frozen,
      loss: packedLoss({ ...packedModel, shape, lossOf: sftLoss }),
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
    return {
      measures:
        held.length === 0
          ? []
          : [comparedMeasure({ name: "held-out loss", unit: "nats a token", better: "down" }, before, after)],
      curves: trainingCurves(result),
      notes: [...notes, ...endNotes(options, result), `${(100 * fill).toFixed(1)} % of the packed places hold tokens`],
    };
  },
});

async function prepareSamples(work: MethodWork<SftOptions>) {
  const { options, seed, onEvent, stage } = work;
  const tools = chatToolsOf(work);
  const conversations = await readAll(options.data, options.reasoning);
  const { train, held } = setAside(conversations, options.heldOut, seed);
  const carried = options.carryOver ? await readAll(options.carryOver, options.reasoning) : [];
  const wanted = Math.round((train.length * options.carryShare) / (1 - options.carryShare));
  const mixed = [...train, ...setAside(carried, Math.min(wanted, carried.length - 1), seed).held];
  const render = (list: readonly Conversation[]): TokenSample[] =>
    list.flatMap(({ messages, tools: described, where }) =>
      renderTurns(tools.template, tools.tokenizer, messages, {
        ...(described && { tools: described }),
        ...(where !== undefined && { where }),
      }),
    );
  const limit = (samples: TokenSample[]) =>
    samples.length === 0
      ? samples
      : limitLength(samples, { length: options.length, policy: options.overlong, where: stage, onEvent }).samples;
  const notes = [`${train.length} conversations to learn from, ${held.length} set aside`];
  return { train: limit(render(mixed)), held: limit(render(held)), notes };
}

async function readAll(paths: readonly string[], reasoning: boolean): Promise<Conversation[]> {
  const lists = await Promise.all(
    paths.map(async (path) =>
      reasoning
        ? (await readWorkedQuestions(path)).flatMap((question) => Object.values(reasoningPair(question)))
        : readConversations(path),
    ),
  );
  return lists.flat();
}

/** Mean loss of each sample, nats a token. */
async function lossesOf(
  scorer: SampleScorer,
  samples: readonly TokenSample[],
  weights: Parameters<SampleScorer>[1],
): Promise<number[]> {
  if (samples.length === 0) return [];
  const scores = await scorer(samples, weights);
  return scores.map(({ logProbs }) => -logProbs.reduce((sum, x) => sum + x, 0) / logProbs.length);
}
