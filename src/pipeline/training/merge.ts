import { join } from "node:path";
import { createAttributeScorer, mergeRewardModels, rewardShape } from "../../align/index.js";
import { z } from "../../base/index.js";
import { readAllWeights } from "../../engine/index.js";
import { openRewardModel, type RewardModel, rewardHeadTensors, writeHub } from "../../models/index.js";
import { chatToolsOf, passesOf } from "./common.js";
import { files } from "./fields.js";
import { defineMethod, type MethodOutcome, type MethodWork, type OptionsOf } from "./method.js";
import { pairMeasures, readRewardPairs, rightAnswers } from "./reward-pairs.js";

const fields = {
  models: files("Reward models, as directories or stage:NAME; of an extrapolation the weak one, then the strong one."),
  factors: z.array(z.number()).min(1).optional().describe("What each model counts for; default: equal shares."),
  extrapolate: z
    .number()
    .optional()
    .describe(
      "ExPO: weak + this (strong - weak); above 1 it goes past the strong one (1.52 in HelpSteer2-Preference).",
    ),
  pairs: files("Preference pairs that accuracy is measured on: of the last model named, and of the result.").optional(),
  length: z.int().min(1).default(256).describe("Tokens of the longest pair."),
  overlong: z
    .enum(["refuse", "drop", "truncate-left", "truncate-right"])
    .default("refuse")
    .describe("What becomes of pairs longer than `length`."),
  badLines: z.enum(["refuse", "drop"]).default("refuse").describe("What becomes of lines that cannot be read."),
};

type MergeWork = MethodWork<OptionsOf<typeof fields>>;

/** Reward models added up, weight by weight. */
export const merge = defineMethod({
  group: "align",
  summary: "merge reward models, or extrapolate from a weak to a strong one",
  example: "models/chat --models out/regression/model --models out/scaled/model --extrapolate 1.52 --out out/expo",
  fields,
  inputs: { models: "model", pairs: "file" },
  makes: "reward",
  version: 1,
  problems({ models, factors, extrapolate }) {
    const problem = (field: string, holds: boolean, message: string) => (holds ? [] : [{ field, message }]);
    return [
      ...problem("models", models.length > 1, "name two or more"),
      ...problem("factors", !factors || factors.length === models.length, "one for each of the models"),
      ...problem("extrapolate", extrapolate === undefined || models.length === 2, "it goes from one model to another"),
      ...problem("extrapolate", extrapolate === undefined || !factors, "name this or factors, not both"),
    ];
  },
  async run(work) {
    const { options, directory, model } = work;
    const opened: RewardModel[] = [];
    try {
      for (const path of options.models) opened.push(await openRewardModel(path));
      const { extrapolate: alpha, factors } = options;
      const shares = alpha === undefined ? factors : [1 - alpha, alpha];
      const merged = mergeRewardModels(opened, shares ? { factors: shares } : {});
      const name = model.sidecars.name;
      await writeHub(merged.body, join(directory, "model"), { overwrite: true, name, head: merged.head });
      const told = (shares ?? opened.map(() => 1 / opened.length)).map((x) => x.toFixed(3)).join(", ");
      const outcome = options.pairs ? await measure(work, opened.at(-1)!, merged, options.pairs) : empty;
      return { ...outcome, notes: [`${opened.length} models with factors ${told}`, ...outcome.notes] };
    } finally {
      await Promise.all(opened.map(({ body }) => body.close()));
    }
  },
});

const empty: MethodOutcome = { measures: [], curves: [], notes: [] };

/** Accuracy of the last model named and of the merged one on the same pairs. */
async function measure(
  { options, runtime, stage, signal, onEvent }: MergeWork,
  last: RewardModel,
  merged: RewardModel,
  paths: readonly string[],
): Promise<MethodOutcome> {
  const { length, overlong, badLines } = options;
  const reading = { tools: chatToolsOf({ model: last.body }), length, overlong, badLines, where: stage, onEvent };
  const { pairs, notes } = await readRewardPairs(paths, reading);
  const { config } = last.body;
  const { attributes, bias } = last.head;
  const architecture = { config, attributes: attributes.length, bias: bias !== undefined };
  const { rows } = passesOf({ batch: 8, length });
  const score = createAttributeScorer(runtime, `${stage}_scores`, architecture, rewardShape(rows, length), signal);
  const rightOf = async ({ body, head }: RewardModel) => {
    const weights = { ...(await readAllWeights(config, body.weights)), ...rewardHeadTensors(head) };
    const samples = pairs.map(({ sample }) => sample);
    return rightAnswers(await score(samples, weights), head.weights);
  };
  const before = await rightOf(last);
  const told = pairMeasures(pairs, await rightOf(merged), { before });
  return { measures: told.measures, curves: [], notes: [...notes, ...told.notes] };
}
