import type { Constraint, Message } from "../../data/index.js";

/** An answer to be judged, and what is known about its task. */
export interface RewardItem {
  prompt: readonly Message[];
  answer: string;
  /** Tokens of the answer. */
  tokens?: number;
  /** The right answer, as the data set writes it. */
  reference?: string;
  constraints?: readonly Constraint[];
  /** Whether thinking was asked for. */
  thinking?: boolean;
  /** Anything else of the data set's row; rewards of the user's own may read it. */
  data?: Readonly<Record<string, unknown>>;
}

/** Higher is better; `null` where this reward cannot judge the answer. */
export type RewardScore = number | null;

/** Judges answers: a rule, a module of the user's own, a reward model or a judge. */
export interface RewardFunction {
  readonly name: string;
  /** One score for each item, in their order. @throws EspalierError where a score cannot be had; nothing counts as 0 */
  score(items: readonly RewardItem[], signal?: AbortSignal): Promise<RewardScore[]>;
  /** Ends workers, where there are any. */
  dispose?(): Promise<void>;
}

/** A reward that a pure function of one answer gives. */
export function ruleReward(name: string, rule: (item: RewardItem) => RewardScore): RewardFunction {
  return { name, score: async (items) => items.map(rule) };
}

/** The first words of the question, for messages. */
export function describeItem({ prompt }: RewardItem, index: number): string {
  const text = (prompt.findLast(({ role }) => role === "user") ?? prompt.at(-1))?.content ?? "";
  const start = text.replace(/\s+/g, " ").trim();
  return `answer ${index} to "${start.length > 60 ? `${start.slice(0, 60)}...` : start}"`;
}
