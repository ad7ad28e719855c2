/**
 * @module What tells a policy that has learnt its task from one that has learnt its reward: numbers of each step's
 * rollouts, some of them against the first steps, each with optional limits at which a run should stop.
 */
import { type Event, mean } from "../base/index.js";
import { type RewardScore, repeatedShare } from "./rewards/index.js";

/** One answer of a step. */
export interface JudgedAnswer {
  ids: ArrayLike<number>;
  reward: RewardScore;
  /** Score of a judge that training does not see. */
  heldOut?: RewardScore;
}

export interface MonitoredStep {
  step: number;
  /** Answers of each prompt. */
  groups: readonly (readonly JudgedAnswer[])[];
  /** Mean KL from the reference, nats a token. */
  kl?: number;
  /** Mean entropy of the policy, nats a token. */
  entropy?: number;
}

const monitors = {
  length: "mean tokens of an answer",
  "length-drift": "mean tokens, over those of the first steps",
  "length-reward": "correlation of reward and length",
  repetition: "share of runs of tokens that occurred before in the answer",
  kl: "KL from the reference, nats a token",
  entropy: "entropy of the policy, nats a token",
  "zero-variance": "share of prompts whose answers all have one reward, which teach nothing",
  saturation: "share of answers with the highest reward there is",
  unscorable: "share of answers that no reward could judge",
  "held-out": "correlation of reward and held-out judge over the last steps",
  "held-out-drift": "rise of the held-out judge since the first steps, less that of the reward, in deviations",
} as const;

export type MonitorName = keyof typeof monitors;

export const monitorNames = Object.keys(monitors) as readonly MonitorName[];

/** Inclusive bounds within which a run goes on. */
export interface MonitorLimit {
  min?: number;
  max?: number;
}

export interface MonitorRecord {
  monitor: MonitorName;
  /** What the number is. */
  what: string;
  step: number;
  value: number;
  limit?: MonitorLimit;
  /** Outside its limit. */
  exceeded: boolean;
}

export interface MonitorOptions {
  /** Steps that the first ones are compared by, and that correlations look back on. Defaults to 5. */
  window?: number;
  /** Tokens of a run that counts as repeated. Defaults to 4. */
  runLength?: number;
  /** The highest reward there is; without it saturation is not watched. */
  highestReward?: number;
  limits?: Partial<Record<MonitorName, MonitorLimit>>;
}

export interface Monitors {
  /** Numbers of one step; those that it has no data for are left out. */
  observe(step: MonitoredStep): MonitorRecord[];
}

/** Keeps the first steps to compare with, and the last ones to correlate. */
export function createMonitors(options: MonitorOptions = {}): Monitors {
  const { window = 5, runLength = 4, highestReward, limits = {} } = options;
  const first: JudgedAnswer[] = [];
  const recent: JudgedAnswer[][] = [];
  let seen = 0;
  return {
    observe(step) {
      const answers = step.groups.flat();
      if (seen++ < window) first.push(...answers);
      recent.push(answers);
      if (recent.length > window) recent.shift();
      const values: Partial<Record<MonitorName, number | undefined>> = {
        ...lengthValues(answers, first),
        repetition: answers.length === 0 ? undefined : mean(answers.map(({ ids }) => repeatedShare(ids, runLength))),
        kl: step.kl,
        entropy: step.entropy,
        ...rewardValues(step.groups, highestReward),
        "held-out": correlation(bothScores(recent.flat())),
        "held-out-drift": heldOutDrift(first, recent.flat()),
      };
      return monitorNames.flatMap((monitor) => {
        const value = values[monitor];
        return value === undefined ? [] : [recordOf(monitor, step.step, value, limits[monitor])];
      });
    },
  };
}

function recordOf(monitor: MonitorName, step: number, value: number, limit: MonitorLimit | undefined): MonitorRecord {
  const { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY } = limit ?? {};
  // A value that is no number is never within its limits.
  const exceeded = limit !== undefined && !(value >= min && value <= max);
  return { monitor, what: monitors[monitor], step, value, ...(limit && { limit }), exceeded };
}

/** Why a run should stop, or `undefined`. */
export function stopReason(records: readonly MonitorRecord[]): string | undefined {
  const reasons = records.filter(({ exceeded }) => exceeded).map(describeRecord);
  return reasons.length === 0 ? undefined : reasons.join("; ");
}

/** A warning for each number outside its limits. */
export function monitorNotices(records: readonly MonitorRecord[]): Event[] {
  return records
    .filter(({ exceeded }) => exceeded)
    .map((record) => ({ event: "notice", level: "warning", message: describeRecord(record) }));
}

/** The numbers by name, for the `parts` of a training event. */
export function monitorParts(records: readonly MonitorRecord[]): Record<string, number> {
  return Object.fromEntries(records.map(({ monitor, value }) => [monitor, value]));
}

function describeRecord({ monitor, what, step, value, limit }: MonitorRecord): string {
  const bounds = [
    limit?.min === undefined ? undefined : `at least ${limit.min}`,
    limit?.max === undefined ? undefined : `at most ${limit.max}`,
  ];
  const wanted = bounds.filter((bound) => bound !== undefined).join(" and ");
  return `step ${step}: ${monitor} (${what}) is ${Number(value.toPrecision(4))}, wanted ${wanted}`;
}

function lengthValues(answers: readonly JudgedAnswer[], first: readonly JudgedAnswer[]) {
  if (answers.length === 0) return {};
  const meanLength = (some: readonly JudgedAnswer[]) => mean(some.map(({ ids }) => ids.length));
  const length = meanLength(answers);
  const scored = answers.flatMap(({ ids, reward }) => (reward === null ? [] : [[reward, ids.length] as const]));
  return { length, "length-drift": length / meanLength(first), "length-reward": correlation(scored) };
}

function rewardValues(groups: MonitoredStep["groups"], highest: number | undefined) {
  const scores = groups.map((group) => group.flatMap(({ reward }) => (reward === null ? [] : [reward])));
  const flat = scores.flat();
  const answers = groups.flat().length;
  // One answer alone has nothing to differ from.
  const compared = scores.filter(({ length }) => length > 1);
  const alike = compared.filter((group) => group.every((score) => score === group[0]));
  const saturated = flat.filter((score) => highest !== undefined && score >= highest);
  return {
    "zero-variance": compared.length === 0 ? undefined : alike.length / compared.length,
    saturation: highest === undefined || flat.length === 0 ? undefined : saturated.length / flat.length,
    unscorable: answers === 0 ? undefined : 1 - flat.length / answers,
  };
}

type Pair = readonly [number, number];

/** Reward and held-out score of the answers that have both. */
function bothScores(answers: readonly JudgedAnswer[]): Pair[] {
  return answers.flatMap(({ reward, heldOut }) => {
    return reward === null || heldOut === undefined || heldOut === null ? [] : [[reward, heldOut] as const];
  });
}

/** Pearson's; `undefined` where one side does not vary. */
function correlation(pairs: readonly Pair[]): number | undefined {
  const [x, y] = [pairs.map(([a]) => a), pairs.map(([, b]) => b)];
  const [dx, dy] = [deviation(x), deviation(y)];
  if (!(dx > 0 && dy > 0)) return undefined;
  const [mx, my] = [mean(x), mean(y)];
  return mean(pairs.map(([a, b]) => (a - mx) * (b - my))) / (dx * dy);
}

function deviation(values: readonly number[]): number {
  if (values.length === 0) return 0;
  const centre = mean(values);
  return Math.sqrt(mean(values.map((value) => (value - centre) ** 2)));
}

/** Both rises are in deviations of the first steps, since the two have scales of their own. */
function heldOutDrift(first: readonly JudgedAnswer[], recent: readonly JudgedAnswer[]): number | undefined {
  const [before, now] = [bothScores(first), bothScores(recent)];
  if (now.length === 0) return undefined;
  const rise = (side: 0 | 1) => {
    const base = before.map((pair) => pair[side]);
    return (mean(now.map((pair) => pair[side])) - mean(base)) / deviation(base);
  };
  const drift = rise(1) - rise(0);
  return Number.isFinite(drift) ? drift : undefined;
}
