/** @module What is told of a training on the model's own answers: measures, curves over rollouts, notes, answers. */
import type { PolicyTask, PolicyTraining, RolloutNumbers, TaskMeasure } from "../../align/index.js";
import { mean } from "../../base/index.js";
import type { TrainResult } from "../../train/index.js";
import { comparedMeasure } from "./common.js";
import type { Curve, Measure, Sample } from "./method.js";

export function policyMeasures(before: readonly TaskMeasure[], after: readonly TaskMeasure[]): Measure[] {
  if (before.length === 0) return [];
  const judged = before
    .map((_, i) => i)
    .filter((i) => before[i]!.reward !== undefined && after[i]!.reward !== undefined);
  const of = (list: readonly TaskMeasure[], name: "length" | "ended" | "entropy" | "kl") =>
    list.map((one) => one[name]);
  const rewardOf = (list: readonly TaskMeasure[]) => judged.map((i) => list[i]!.reward!);
  const neither = (name: string, field: "length" | "entropy", unit: string) =>
    comparedMeasure({ name, unit, better: "neither" }, of(before, field), of(after, field));
  return [
    comparedMeasure({ name: "held-out reward", better: "up" }, rewardOf(before), rewardOf(after)),
    comparedMeasure(
      { name: "KL from the start", unit: "nats a token", better: "neither", note: "mean of k3 over sampled tokens" },
      of(before, "kl"),
      of(after, "kl"),
    ),
    neither("length of answers", "length", "tokens"),
    comparedMeasure(
      { name: "answers that ended by themselves", better: "neither" },
      of(before, "ended"),
      of(after, "ended"),
    ),
    neither("entropy", "entropy", "nats a token"),
  ];
}

export function policyCurves({ numbers }: PolicyTraining, result: TrainResult | undefined): Curve[] {
  const all = [...numbers].sort(([a], [b]) => a - b);
  const curve = (name: string, of: (one: RolloutNumbers) => number | undefined, unit?: string): Curve[] => {
    const points = all.flatMap(([rollout, one]): [number, number][] => {
      const value = of(one);
      return value === undefined ? [] : [[rollout + 1, value]];
    });
    return points.length === 0 ? [] : [{ name, x: "step", points, ...(unit && { unit }) }];
  };
  const names = Object.keys(all[0]?.[1].parts ?? {});
  return [
    ...curve("reward", ({ reward }) => reward),
    ...(names.length > 1 ? names.flatMap((name) => curve(`reward ${name}`, ({ parts }) => parts[name])) : []),
    ...curve("KL from the start", ({ kl }) => kl, "nats a token"),
    ...curve("length of answers", ({ length }) => length, "tokens"),
    ...curve("entropy", ({ entropy }) => entropy, "nats a token"),
    ...curve("share of prompts with one reward", ({ alike }) => alike),
    ...curve("repetition", ({ repetition }) => repetition),
    ...(result
      ? [{ name: "loss", x: "step" as const, points: result.losses.map((loss, i): [number, number] => [i + 1, loss]) }]
      : []),
  ];
}

export function policyNotes({ numbers }: PolicyTraining, { replacements }: { replacements: number }): string[] {
  const all = [...numbers.values()];
  if (all.length === 0) return [];
  const share = (of: (one: RolloutNumbers) => number) => `${(100 * mean(all.map(of))).toFixed(1)} %`;
  const replaced = all.reduce((sum, one) => sum + one.replaced, 0);
  const unscorable = all.reduce((sum, one) => sum + one.unscorable, 0);
  return [
    `${all.length} rollouts; in ${share(({ alike }) => alike)} of the prompts all answers had one reward`,
    `${share(({ truncated }) => truncated)} of the answers were cut at their longest`,
    ...(replacements > 0 ? [`${replaced} groups of answers replaced by dynamic sampling`] : []),
    ...(unscorable > 0 ? [`${unscorable} answers that no reward could judge`] : []),
  ];
}

const shownSamples = 4;

export function policySamples(
  held: readonly PolicyTask[],
  before: readonly TaskMeasure[],
  after: readonly TaskMeasure[],
): Sample[] {
  return held.slice(0, shownSamples).map(({ item: { prompt } }, i) => ({
    prompt: prompt.at(-1)!.content,
    before: before[i]!.text,
    after: after[i]!.text,
  }));
}
