/** @module Whether a model obeys the switch of its thoughts on questions set aside, and how often it is right each way. */
import { formatReward, mathsReward, type RewardItem } from "../../align/index.js";
import { thinkingPrompt, type WorkedQuestion } from "../../data/index.js";
import type { Model } from "../../models/index.js";
import { answerPrompts, shareMeasure } from "./answers.js";
import type { ChatTools } from "./common.js";
import type { Measure, MethodWork, Sample } from "./method.js";

export interface ReasoningRequest {
  questions: readonly WorkedQuestion[];
  tools: ChatTools;
  maxTokens: number;
}

/** Answers to each question with thoughts (first half) and without, judged. */
export interface ReasoningAnswers {
  items: RewardItem[];
  obeys: boolean[];
  right: boolean[];
}

/**
 * Greedy answers. Obeyed is `on` by exactly one pair of tags at the beginning with an answer behind it, `off` by no tag;
 * right is an answer whose last number, behind the thoughts where there are some, is that of the data.
 */
export async function answerBothWays(
  work: Pick<MethodWork<unknown>, "runtime" | "stage" | "signal" | "onEvent">,
  model: Model,
  { questions, tools, maxTokens }: ReasoningRequest,
  note: string,
): Promise<ReasoningAnswers> {
  const tasks = tasksOf(questions);
  const prompts = tasks.map(({ prompt }) => prompt);
  return judgeBothWays(tasks, await answerPrompts(work, { model, tools, prompts, maxTokens, note }));
}

/** Each question with thoughts (first half) and without. */
export function tasksOf(questions: readonly WorkedQuestion[]): Omit<RewardItem, "answer">[] {
  return (["on", "off"] as const).flatMap((mode) =>
    questions.map(({ question, answer }) => ({
      prompt: [
        { role: "system", content: thinkingPrompt(mode) },
        { role: "user", content: question },
      ],
      reference: answer,
      thinking: mode === "on",
    })),
  );
}

export async function judgeBothWays(
  tasks: readonly Omit<RewardItem, "answer">[],
  answers: readonly string[],
): Promise<ReasoningAnswers> {
  const items = tasks.map((item, i) => ({ ...item, answer: answers[i]! }));
  const said = items.map((item) => ({ ...item, answer: item.answer.split("</think>").at(-1)! }));
  const [format, maths] = await Promise.all([formatReward().score(items), mathsReward().score(said)]);
  return { items, obeys: format.map((score) => score === 1), right: maths.map((score) => score === 1) };
}

export function reasoningMeasures(before: ReasoningAnswers, after: ReasoningAnswers): Measure[] {
  const half = before.items.length / 2;
  const parts = { on: [0, half], off: [half, 2 * half] } as const;
  const kinds = [
    { kind: "obeys", name: "obeys the switch" },
    { kind: "right", name: "right answers" },
  ] as const;
  return kinds.flatMap(({ kind, name }) =>
    Object.entries(parts).map(([mode, [from, to]]) =>
      shareMeasure(
        { name: `${name}, thinking ${mode}`, better: "up" },
        before[kind].slice(from, to),
        after[kind].slice(from, to),
      ),
    ),
  );
}

/** The first question both ways. */
export function reasoningSamples(before: ReasoningAnswers, after: ReasoningAnswers): Sample[] {
  return [0, before.items.length / 2].map((i) => ({
    prompt: before.items[i]!.prompt.map(({ content }) => content).join("\n\n"),
    before: before.items[i]!.answer,
    after: after.items[i]!.answer,
  }));
}
