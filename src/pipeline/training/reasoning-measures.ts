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
  /** `on`: the answer opens with its thoughts, and with no others later; `off`: no tag. */
  obeys: boolean[];
  /** `on`: one pair of tags at the beginning, and an answer behind it; `off`: no tag. */
  complete: boolean[];
  /** The last number, behind the thoughts where there are some, is that of the data. */
  right: boolean[];
}

/** As the makers of such models ask: temperature 0.6 and top-p 0.95 with thoughts, the most probable tokens without. */
const thinkingSampling = { temperature: 0.6, topP: 0.95, seed: 0 };

/** Answers to every question both ways. */
export async function answerBothWays(
  work: Pick<MethodWork<unknown>, "runtime" | "stage" | "signal" | "onEvent">,
  model: Model,
  { questions, tools, maxTokens }: ReasoningRequest,
  note: string,
): Promise<ReasoningAnswers> {
  const tasks = tasksOf(questions);
  const prompts = tasks.map(({ prompt }) => prompt);
  const [on, off] = [prompts.slice(0, questions.length), prompts.slice(questions.length)];
  const request = { model, tools, maxTokens };
  const thinking = { ...request, prompts: on, note: `${note}, thinking on`, sampling: thinkingSampling };
  return judgeBothWays(tasks, [
    ...(await answerPrompts(work, thinking)),
    ...(await answerPrompts(work, { ...request, prompts: off, note: `${note}, thinking off` })),
  ]);
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
  return {
    items,
    obeys: items.map(({ thinking, answer }) =>
      (thinking ? /^<think>(?!.*<think>)/s : /^(?!.*<\/?think>)/s).test(answer),
    ),
    complete: format.map((score) => score === 1),
    right: maths.map((score) => score === 1),
  };
}

export function reasoningMeasures(before: ReasoningAnswers, after: ReasoningAnswers): Measure[] {
  const half = before.items.length / 2;
  const parts = { on: [0, half], off: [half, 2 * half] } as const;
  const kinds = [
    { kind: "obeys", name: "obeys the switch" },
    { kind: "right", name: "right answers" },
  ] as const;
  const share = (kind: "obeys" | "complete" | "right", name: string, [from, to]: readonly [number, number]) =>
    shareMeasure({ name, better: "up" }, before[kind].slice(from, to), after[kind].slice(from, to));
  return kinds.flatMap(({ kind, name }) => [
    share(kind, `${name}, thinking on`, parts.on),
    share(kind, `${name}, thinking off`, parts.off),
    ...(kind === "obeys" ? [share("complete", "thoughts end, and an answer follows", parts.on)] : []),
  ]);
}

/** The first question both ways. */
export function reasoningSamples(before: ReasoningAnswers, after: ReasoningAnswers): Sample[] {
  return [0, before.items.length / 2].map((i) => ({
    prompt: before.items[i]!.prompt.map(({ content }) => content).join("\n\n"),
    before: before.items[i]!.answer,
    after: after.items[i]!.answer,
  }));
}
