import { join } from "node:path";
import { aggregateReward, openAttributeJudge, type RewardItem } from "../../align/index.js";
import { EspalierError, meanInterval, pairedInterval, writeFileAtomic, z } from "../../base/index.js";
import { type Message, parseMessages, parsePreferencePair, parsePrompt, readRows } from "../../data/index.js";
import { openRewardModel } from "../../models/index.js";
import { files } from "./fields.js";
import { defineMethod, type Measure } from "./method.js";

const fields = {
  data: files(
    "Answers: {prompt, response}, {prompt, answers: [...]}, {messages: [...]} that end with an answer, or {prompt, chosen, rejected}.",
  ),
  rewardModel: z
    .string()
    .min(1)
    .describe("Reward model: a directory that `align reward` or `align merge` wrote, or stage:NAME."),
  length: z.int().min(1).default(1024).describe("Tokens of the longest prompt and answer; longer ones have no score."),
};

/** Scores of a file's answers, written beside them. */
export const score = defineMethod({
  group: "align",
  summary: "score answers with a reward model",
  example: "models/chat --reward-model out/reward/model --data answers.jsonl --out out/scores",
  fields,
  inputs: { data: "file", rewardModel: "model" },
  makes: "data",
  version: 1,
  async run({ options, directory, runtime, signal }) {
    const rows = (await Promise.all(options.data.map((path) => readRows(path, parseScored)))).flat();
    const model = await openRewardModel(options.rewardModel);
    try {
      const judge = await openAttributeJudge(runtime, model, { length: options.length });
      const items = rows.flatMap(({ prompt, answers }) => answers.map((answer): RewardItem => ({ prompt, answer })));
      const judged = await judge(items, signal);
      const { attributes, weights } = model.head;
      const marks = judged.map((values) => values && describe(attributes, weights, values));
      let at = 0;
      const scored = rows.map((row) => {
        at += row.answers.length;
        return { ...row, marks: marks.slice(at - row.answers.length, at) };
      });
      await writeFileAtomic(
        join(directory, "data.jsonl"),
        scored.map((row) => `${JSON.stringify(written(row))}\n`).join(""),
      );
      const without = marks.filter((mark) => mark === null).length;
      return {
        measures: measures(scored),
        curves: [],
        notes: [
          `${items.length} answers of ${rows.length} rows, ${without} without a score (longer than ${options.length} tokens)`,
        ],
      };
    } finally {
      await model.body.close();
    }
  },
});

interface Mark {
  score: number;
  /** By name, where there are several. */
  attributes?: Record<string, number>;
}

function describe(names: readonly string[], weights: readonly number[], values: readonly number[]): Mark {
  const score = aggregateReward(values, weights);
  return names.length === 1
    ? { score }
    : { score, attributes: Object.fromEntries(names.map((name, a) => [name, values[a]!])) };
}

interface ScoredRow {
  /** As read. */
  fields: Readonly<Record<string, unknown>>;
  kind: "answer" | "answers" | "pair";
  prompt: readonly Message[];
  answers: readonly string[];
}

function parseScored(value: unknown, where: string): ScoredRow {
  const row = (value ?? {}) as Record<string, unknown>;
  if ("chosen" in row && "rejected" in row) {
    const { prompt, chosen, rejected } = parsePreferencePair(row, where);
    return { fields: row, kind: "pair", prompt, answers: [chosen, rejected] };
  }
  if (Array.isArray(row.answers) && "prompt" in row) {
    const answers = row.answers.map((answer) => textOf(answer, where, "answers"));
    return { fields: row, kind: "answers", prompt: parsePrompt(row, "prompt", where), answers };
  }
  if ("response" in row && "prompt" in row) {
    const answers = [textOf(row.response, where, "response")];
    return { fields: row, kind: "answer", prompt: parsePrompt(row, "prompt", where), answers };
  }
  const messages = "messages" in row ? parseMessages(row.messages, where) : [];
  const last = messages.at(-1);
  if (messages.length > 1 && last?.role === "assistant") {
    return { fields: row, kind: "answer", prompt: messages.slice(0, -1), answers: [last.content] };
  }
  const found =
    messages.length > 0 ? "messages that do not end with an answer" : `the fields ${Object.keys(row).join(", ")}`;
  const expected = "{prompt, response}, {prompt, answers}, {messages} or {prompt, chosen, rejected}";
  throw new EspalierError({ where, expected, found, exitCode: 2 });
}

function textOf(value: unknown, where: string, field: string): string {
  if (typeof value === "string" && value.trim() !== "") return value;
  const found = typeof value === "string" ? "an empty text" : typeof value;
  throw new EspalierError({ where, expected: `text in \`${field}\``, found, exitCode: 2 });
}

type MarkedRow = ScoredRow & { marks: (Mark | null)[] };

function written({ fields: row, kind, marks }: MarkedRow): Record<string, unknown> {
  if (kind === "answers") return { ...row, scores: marks.map((mark) => mark?.score ?? null) };
  if (kind === "answer")
    return { ...row, score: marks[0]?.score ?? null, ...(marks[0]?.attributes && { attributes: marks[0].attributes }) };
  const [chosen, rejected] = marks;
  if (!chosen || !rejected) return { ...row };
  return { ...row, chosen_reward: chosen.score, rejected_reward: rejected.score };
}

function measures(rows: readonly MarkedRow[]): Measure[] {
  const scores = rows.flatMap(({ marks }) => marks.flatMap((mark) => (mark ? [mark.score] : [])));
  const pairs = rows.flatMap(({ kind, marks: [chosen, rejected] }) =>
    kind === "pair" && chosen && rejected ? [[chosen.score, rejected.score] as const] : [],
  );
  const right = pairs.map(([chosen, rejected]) => (chosen > rejected ? 1 : chosen < rejected ? 0 : 0.5));
  const gap = () =>
    pairedInterval(
      pairs.map(([chosen]) => chosen),
      pairs.map(([, rejected]) => rejected),
    );
  return [
    ...(scores.length > 0 ? [{ name: "score", better: "neither", after: meanInterval(scores) } as const] : []),
    ...(pairs.length > 0
      ? ([
          { name: "preference accuracy", better: "up", after: meanInterval(right) },
          { name: "chosen score less rejected", better: "neither", after: gap() },
        ] as const)
      : []),
  ];
}
