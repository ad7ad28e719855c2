import { join } from "node:path";
import { type CombinedScores, type RewardItem, scoreAnswers } from "../../align/index.js";
import { EspalierError, meanInterval, pairedInterval, writeFileAtomic, z } from "../../base/index.js";
import { type PromptTask, readPromptTasks, renderPrompt } from "../../data/index.js";
import { createBatchGenerator, readAllWeights } from "../../engine/index.js";
import { chatToolsOf } from "./common.js";
import { files } from "./fields.js";
import { defineMethod, type MethodOutcome, type MethodWork, type OptionsOf } from "./method.js";
import { openRewards, rewardFields, rewardFiles, rewardInputs, rewardItemOf, rewardProblems } from "./rewards.js";

const fields = {
  data: files("Prompts, one a line; a row with `answers: [...]` has those judged, for the others the model answers."),
  ...rewardFields,
  samples: z.int().min(2).default(4).describe("Answers of the model to each prompt."),
  temperature: z.number().min(0).default(1).describe("Of the answers."),
  topP: z.number().gt(0).max(1).default(1).describe("Keep the most probable tokens up to this probability."),
  maxTokens: z.int().min(1).default(256).describe("Tokens of an answer; one that does not end by then is left out."),
  pairing: z
    .enum(["best-worst", "all"])
    .default("best-worst")
    .describe("Pairs of a prompt: its best answer and its worst, or every two that differ enough."),
  minGap: z
    .number()
    .min(0)
    .default(0)
    .describe("Pairs whose scores differ by no more than this are ties, and left out."),
};

type RankOptions = OptionsOf<typeof fields>;

/** Several answers to each prompt, judged: the best and the worst become preference pairs with both scores. */
export const rank = defineMethod({
  group: "align",
  summary: "rank answers by a reward and write preference pairs",
  example: "models/chat --data prompts.jsonl --reward-model out/reward/model --samples 8 --out out/pairs",
  fields,
  inputs: { data: "file", ...rewardInputs },
  reads: rewardFiles,
  makes: "data",
  version: 1,
  problems: rewardProblems,
  async run(work): Promise<MethodOutcome> {
    const { options, directory, runtime, signal } = work;
    const tasks = (await Promise.all(options.data.map((path) => readPromptTasks(path)))).flat();
    const { rewards, dispose } = await openRewards(runtime, options);
    try {
      const { asked, blank, unended } = await answersOf(work, tasks);
      const items = asked.flatMap(({ task, answers }) =>
        answers.map(
          ({ text, tokens }): RewardItem => ({ ...rewardItemOf(task), answer: text, ...(tokens && { tokens }) }),
        ),
      );
      if (items.length === 0) throw noAnswers(unended, options.maxTokens);
      const scores = await scoreAnswers(rewards, items, signal);
      const ranked = withScores(asked, scores);
      const { pairs, ties } = pairsOf(ranked, options);
      await writeLines(join(directory, "answers.jsonl"), ranked);
      await writeLines(join(directory, "data.jsonl"), pairs);
      return outcomeOf({ scores, pairs, ties, blank, unended, prompts: tasks.length });
    } finally {
      await dispose();
    }
  },
});

interface Answer {
  text: string;
  /** Of a sampled one. */
  tokens?: number;
}

interface Asked {
  task: PromptTask;
  answers: Answer[];
}

/** The answers that the file has, and the model's to prompts without any. */
async function answersOf(work: MethodWork<RankOptions>, tasks: readonly (PromptTask & { where: string })[]) {
  const given = tasks.map((task) => givenAnswers(task));
  const open = tasks.filter((_, i) => !given[i]);
  const sampled = open.length > 0 ? await sampleAnswers(work, open) : { answers: [], unended: 0 };
  let [next, blank] = [0, 0];
  const asked = tasks.map((task, i): Asked => {
    const answers = given[i] ?? sampled.answers[next++]!;
    const filled = answers.filter(({ text }) => text.trim() !== "");
    blank += answers.length - filled.length;
    return { task, answers: filled };
  });
  return { asked, blank, unended: sampled.unended };
}

function givenAnswers({ fields: { answers }, where }: PromptTask & { where: string }): Answer[] | undefined {
  if (answers === undefined) return undefined;
  if (Array.isArray(answers) && answers.length > 1 && answers.every((text) => typeof text === "string")) {
    return answers.map((text: string) => ({ text }));
  }
  const found = Array.isArray(answers) ? `${answers.length} of them, or no text` : typeof answers;
  throw new EspalierError({ where, expected: "two texts or more in `answers`", found, exitCode: 2 });
}

async function sampleAnswers(
  { model, options, runtime, seed, signal, onEvent, stage }: MethodWork<RankOptions>,
  tasks: readonly PromptTask[],
): Promise<{ answers: Answer[][]; unended: number }> {
  const { tokenizer, template } = chatToolsOf({ model });
  const sampler = createBatchGenerator(runtime, model.config, await readAllWeights(model.config, model.weights));
  const prompts = tasks.map(({ prompt }, i) => ({
    ids: renderPrompt(template, tokenizer, prompt),
    samples: options.samples,
    key: i,
  }));
  const { temperature, topP, maxTokens } = options;
  const total = tasks.length * options.samples;
  let done = 0;
  const onEnd = () => onEvent({ event: "progress", stage, done: ++done, total, unit: "answers" });
  const sequences = await sampler.generate(prompts, { temperature, topP, maxTokens, seed, signal, onEnd });
  let unended = 0;
  const answers = sequences.map((own) => {
    const ended = own.filter(({ finish }) => finish === "stop");
    unended += own.length - ended.length;
    return ended.map(({ ids }) => ({ text: tokenizer.decode([...ids.slice(0, -1)]).trim(), tokens: ids.length }));
  });
  return { answers, unended };
}

interface RankedPrompt {
  prompt: PromptTask["prompt"];
  /** Best first; those that nothing could judge last, with null. */
  answers: { text: string; score: number | null; parts: Record<string, number | null> }[];
}

function withScores(asked: readonly Asked[], { totals, parts }: CombinedScores): RankedPrompt[] {
  let at = 0;
  return asked.map(({ task, answers }) => {
    const scored = answers.map(({ text }) => {
      const own = Object.fromEntries(Object.entries(parts).map(([name, list]) => [name, list[at]!]));
      return { text, score: totals[at++]!, parts: own };
    });
    const rankOf = ({ score }: { score: number | null }) => score ?? Number.NEGATIVE_INFINITY;
    return { prompt: task.prompt, answers: scored.sort((a, b) => rankOf(b) - rankOf(a) || 0) };
  });
}

interface RankedPair {
  prompt: PromptTask["prompt"];
  chosen: string;
  rejected: string;
  chosen_reward: number;
  rejected_reward: number;
}

/** Pairs as `align dpo` and `align rpo` read them. Equal texts and scores within `minGap` are ties. */
export function pairsOf(
  ranked: readonly RankedPrompt[],
  { pairing, minGap }: Pick<RankOptions, "pairing" | "minGap">,
): { pairs: RankedPair[]; ties: number } {
  let ties = 0;
  const pairs = ranked.flatMap(({ prompt, answers }) => {
    const judged = answers.filter((answer): answer is typeof answer & { score: number } => answer.score !== null);
    const candidates = pairing === "all" ? everyTwo(judged) : judged.length > 1 ? [[judged[0]!, judged.at(-1)!]] : [];
    return candidates.flatMap(([chosen, rejected]): RankedPair[] => {
      if (chosen!.score - rejected!.score <= minGap || chosen!.text === rejected!.text) {
        ties++;
        return [];
      }
      const scores = { chosen_reward: chosen!.score, rejected_reward: rejected!.score };
      return [{ prompt, chosen: chosen!.text, rejected: rejected!.text, ...scores }];
    });
  });
  return { pairs, ties };
}

function everyTwo<T>(list: readonly T[]): T[][] {
  return list.flatMap((first, i) => list.slice(i + 1).map((second) => [first, second]));
}

async function writeLines(path: string, rows: readonly unknown[]): Promise<void> {
  await writeFileAtomic(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
}

interface Ranking {
  scores: CombinedScores;
  pairs: readonly RankedPair[];
  ties: number;
  blank: number;
  unended: number;
  prompts: number;
}

function outcomeOf({ scores, pairs, ties, blank, unended, prompts }: Ranking): MethodOutcome {
  const judged = scores.totals.filter((total) => total !== null);
  const of = (name: "chosen_reward" | "rejected_reward") => pairs.map((pair) => pair[name]);
  const unjudged = Object.entries(scores.unscorable).map(([name, count]) => `${count} by ${name}`);
  const gap = () => pairedInterval(of("chosen_reward"), of("rejected_reward"));
  return {
    measures: [
      ...(judged.length > 0 ? [{ name: "score", better: "neither", after: meanInterval(judged) } as const] : []),
      ...(pairs.length > 0 ? [{ name: "chosen score less rejected", better: "neither", after: gap() } as const] : []),
    ],
    curves: [],
    notes: [
      `${pairs.length} pairs of ${prompts} prompts; ${ties} ties left out`,
      `answers: ${scores.totals.length} judged; ${unended} left out that did not end, ${blank} blank; not judged: ${unjudged.join(", ")}`,
    ],
  };
}

function noAnswers(unended: number, maxTokens: number): EspalierError {
  return new EspalierError({
    where: "answers",
    expected: "at least one that ended",
    found: `none; ${unended} went on past ${maxTokens} tokens`,
    fix: "raise maxTokens, or begin with a model that was tuned to answer",
    exitCode: 2,
  });
}
