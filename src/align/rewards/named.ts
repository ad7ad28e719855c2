/** @module Rewards by name, as a recipe or a command writes them: `NAME[:ARGUMENT][*WEIGHT]`. */
import { EspalierError } from "../../base/index.js";
import type { WeightedReward } from "./combine.js";
import { createJudgeReward } from "./judge.js";
import { mathsReward } from "./maths.js";
import { createModuleReward, regexReward } from "./module.js";
import { constraintsReward, formatReward, lengthReward, overlongPenalty, repetitionPenalty } from "./rules.js";
import type { RewardFunction } from "./types.js";

export interface NamedRewardOptions {
  /** Tokens that answers are cut at. */
  maxTokens: number;
  /** Seconds that a module, a pattern or a judge may take for one answer. Defaults to 10. */
  timeoutSeconds?: number;
}

type Make = (argument: string | undefined, options: NamedRewardOptions) => RewardFunction | undefined;

/** `undefined` for an argument that the reward cannot read. */
const makers: Readonly<Record<string, { form: string; make: Make }>> = {
  maths: { form: "maths", make: (argument) => (argument === undefined ? mathsReward() : undefined) },
  constraints: {
    form: "constraints or constraints:all",
    make: (argument = "share") =>
      argument === "share" || argument === "all" ? constraintsReward({ count: argument }) : undefined,
  },
  format: {
    form: "format or format:opened",
    make: (argument) =>
      argument === undefined || argument === "opened" ? formatReward({ opened: argument === "opened" }) : undefined,
  },
  length: { form: "length:20-60, in tokens, or length:20-60words", make: lengthOf },
  overlong: { form: "overlong:16, the tokens before the longest answer over which it grows", make: overlongOf },
  repetition: {
    form: "repetition",
    make: (argument) => (argument === undefined ? repetitionPenalty() : undefined),
  },
  regex: {
    form: "regex:PATTERN",
    make: (pattern, limits) => (pattern ? regexReward({ pattern, ...timeOf(limits) }) : undefined),
  },
  module: {
    form: "module:FILE.js",
    make: (path, limits) => (path ? createModuleReward(path, timeOf(limits)) : undefined),
  },
  judge: { form: "judge:http://HOST/v1#MODEL", make: judgeOf },
};

/**
 * The reward that a text such as `maths*2` or `length:20-60` names; `*` and a number at its end is the weight.
 *
 * @throws EspalierError for a name that there is not, and an argument that it does not take
 */
export function namedReward(text: string, options: NamedRewardOptions): WeightedReward {
  const { name, argument, weight } = splitName(text);
  const maker = Object.hasOwn(makers, name) ? makers[name]! : undefined;
  const reward = maker?.make(argument, options);
  if (reward) return { reward, weight };
  throw new EspalierError({
    where: `reward ${text}`,
    expected: maker
      ? maker.form
      : `one of ${Object.values(makers)
          .map(({ form }) => form)
          .join("; ")}`,
    found: maker ? (argument ?? "no argument") : name,
    exitCode: 2,
  });
}

function splitName(text: string): { name: string; argument: string | undefined; weight: number } {
  const [, rest = text, weight = "1"] = /^(.*)\*(-?\d+(?:\.\d+)?)$/s.exec(text) ?? [];
  const colon = rest.indexOf(":");
  const name = colon < 0 ? rest : rest.slice(0, colon);
  return { name, argument: colon < 0 ? undefined : rest.slice(colon + 1), weight: Number(weight) };
}

function timeOf({ timeoutSeconds }: NamedRewardOptions) {
  return timeoutSeconds === undefined ? {} : { timeoutSeconds };
}

function lengthOf(argument: string | undefined): RewardFunction | undefined {
  const [, min, max, unit = "tokens"] = /^(\d+)-(\d+)(tokens|words|characters)?$/.exec(argument ?? "") ?? [];
  if (max === undefined) return undefined;
  return lengthReward({ unit: unit as "tokens" | "words" | "characters", min: Number(min), max: Number(max) });
}

function overlongOf(argument: string | undefined, { maxTokens }: NamedRewardOptions): RewardFunction | undefined {
  const buffer = Number(argument);
  return Number.isInteger(buffer) && buffer > 0 ? overlongPenalty({ max: maxTokens, buffer }) : undefined;
}

function judgeOf(argument: string | undefined, limits: NamedRewardOptions): RewardFunction | undefined {
  const [, url, model] = /^(https?:\/\/[^#]+)#(.+)$/.exec(argument ?? "") ?? [];
  return model === undefined ? undefined : createJudgeReward({ url: url!, model, ...timeOf(limits) });
}
