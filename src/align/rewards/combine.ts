import { EspalierError } from "../../base/index.js";
import { describeItem, type RewardFunction, type RewardItem, type RewardScore } from "./types.js";

export interface WeightedReward {
  reward: RewardFunction;
  /** Defaults to 1. */
  weight?: number;
}

export interface CombinedScores {
  /** Weighted sums of the rewards that could judge an answer; `null` where none could. */
  totals: RewardScore[];
  /** Scores before weights, by the reward's name. */
  parts: Record<string, RewardScore[]>;
  /** Answers that a reward could not judge, by its name. */
  unscorable: Record<string, number>;
}

/** Judges answers by several rewards at the same time. @throws EspalierError the first failure of any */
export async function scoreAnswers(
  rewards: readonly WeightedReward[],
  items: readonly RewardItem[],
  signal?: AbortSignal,
): Promise<CombinedScores> {
  checkNames(rewards);
  const all = await Promise.all(rewards.map(({ reward }) => reward.score(items, signal)));
  const parts: Record<string, RewardScore[]> = {};
  const unscorable: Record<string, number> = {};
  rewards.forEach(({ reward: { name } }, i) => {
    checkScores(name, all[i]!, items);
    parts[name] = all[i]!;
    unscorable[name] = all[i]!.filter((score) => score === null).length;
  });
  const totals = items.map((_, item) => {
    const judged = rewards.flatMap(({ weight = 1 }, i) => {
      const score = all[i]![item]!;
      return score === null ? [] : [weight * score];
    });
    return judged.length === 0 ? null : judged.reduce((sum, score) => sum + score, 0);
  });
  return { totals, parts, unscorable };
}

function checkNames(rewards: readonly WeightedReward[]): void {
  const names = rewards.map(({ reward }) => reward.name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (names.length > 0 && twice === undefined) return;
  throw new EspalierError({
    where: "rewards",
    expected: "at least one, each with a name of its own",
    found: twice === undefined ? "none" : `${twice} twice`,
    exitCode: 2,
  });
}

function checkScores(name: string, scores: readonly RewardScore[], items: readonly RewardItem[]): void {
  if (scores.length !== items.length) {
    throw new EspalierError({ where: `reward ${name}`, expected: `${items.length} scores`, found: `${scores.length}` });
  }
  const wrong = scores.findIndex((score) => score !== null && !Number.isFinite(score));
  if (wrong < 0) return;
  throw new EspalierError({
    where: `reward ${name}, ${describeItem(items[wrong]!, wrong)}`,
    expected: "a finite number, or null where it cannot judge",
    found: `${scores[wrong]}`,
  });
}
