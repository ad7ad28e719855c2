/**
 * @module Training on the policy's own answers. A step of the loop is: answers from the weights as they are, rewards,
 * log-probabilities of policy and reference from the training engine, advantages, gradient passes of one static shape,
 * update. Sampler and trainer sum in different orders, so the sampler's log-probabilities are not used: the ratio of the
 * first update on a rollout is exactly 1, which every step checks.
 *
 * A step is a function of parameters, seed and its number, so that a run that was stopped goes on with the same bytes.
 */
import { EspalierError, mean } from "../../base/index.js";
import type { ModelConfig } from "../../models/index.js";
import type { Runtime, Tensors } from "../../runtime/index.js";
import { f32Tensor } from "../../tensor/index.js";
import {
  type Batches,
  createStep,
  type FrozenType,
  type PackedModel,
  type PackedShape,
  packedFeeds,
  packedLoss,
  type StepSource,
  type Tuning,
  viewsOf,
} from "../../train/index.js";
import { createMonitors, type MonitorOptions, stopReason } from "../monitors.js";
import { repeatedShare, type WeightedReward } from "../rewards/index.js";
import {
  type AnswerScorer,
  createAnswerScorer,
  type NumberedAnswers,
  packAnswers,
  tokenInput,
} from "./answer-scores.js";
import type { AnswerValues, PolicyObjective, ValuedAnswer } from "./objectives.js";
import type { PromptPlan } from "./prompts.js";
import type { RolloutNumbers, RolloutRecord, RolloutRecords } from "./records.js";
import { type AnswerGroup, isAlike, judgeGroups, type PolicySampler, type PolicyTask } from "./rollout.js";

export interface PolicyTrainingOptions {
  runtime: Runtime;
  /** Of programs, and in messages. */
  stage: string;
  config: ModelConfig;
  tuning: Tuning;
  /** The frozen weights in 8 bits (see `roundFrozen`), for everything but sampling. Defaults to the tuning's, f32. */
  int8?: Tensors;
  tasks: readonly PolicyTask[];
  sampler: PolicySampler;
  rewards: readonly WeightedReward[];
  objective: PolicyObjective;
  plan: PromptPlan;
  /** Answers to each prompt. */
  samples: number;
  /** The sampler's. Defaults to 1. */
  temperature?: number;
  /** Tokens of a row: at least a prompt with one answer. */
  length: number;
  seed: number;
  /** How often groups whose rewards are all one are replaced by answers to other prompts (DAPO). Defaults to 0. */
  replacements?: number;
  monitors?: MonitorOptions;
  /** Compute activations again in the backward sweep: less memory, more time. Defaults to false. */
  recompute?: boolean;
  records?: RolloutRecords;
  signal?: AbortSignal;
  /** Called when a monitor leaves its limits, with the reason. */
  onLimit?: (reason: string) => void;
}

export interface PolicyTraining {
  /** For `train`, with `accumulate: 1`. */
  batches: Batches;
  loss: StepSource;
  /** Numbers of the rollouts so far, by their number. */
  numbers: ReadonlyMap<number, RolloutNumbers>;
}

/** Tokens of one gradient pass: rows are added up until they reach it. */
const passTokens = 512;

/** The shape of the passes for rows of this length. */
export function policyShape(length: number): PackedShape {
  const batch = Math.max(1, Math.floor(passTokens / length));
  return { batch, length, targets: batch * length, sequences: batch * 64 };
}

/** A rollout that is ready for its gradient passes. */
interface Prepared {
  rollout: number;
  passes: Tensors[];
  values: AnswerValues;
  numbers: RolloutNumbers;
  /** Completion tokens. */
  tokens: number;
  /** The first update is yet to come. */
  fresh: boolean;
}

interface Workshop extends PolicyTrainingOptions {
  shape: PackedShape;
  model: PackedModel;
  score: AnswerScorer;
  /** Weights of the reference: those of the start. */
  reference: Tensors;
}

/** @throws EspalierError for a prompt that leaves no room for an answer in a row */
export function createPolicyTraining(options: PolicyTrainingOptions): PolicyTraining {
  const { runtime, stage, config, tuning, objective, length, temperature = 1, records } = options;
  const shape = policyShape(length);
  const frozen: FrozenType = options.int8 ? "int8" : "f32";
  const model = { config, temperature, frozen, ...(tuning.lora && { lora: tuning.lora }) };
  const workshop: Workshop = {
    ...options,
    shape,
    model,
    score: createAnswerScorer(runtime, `${stage}_answers`, model, shape),
    reference: objective.reference ? startWeights(options) : {},
  };
  const numbers = new Map<number, RolloutNumbers>();
  const observe = createObserver(workshop, numbers);
  let current: Prepared | undefined;
  return {
    numbers,
    async batches(index) {
      const rollout = Math.floor(index / objective.updates);
      if (index % objective.updates === 0) {
        const record = await rollOut(workshop, rollout);
        current = await prepare(workshop, record);
        await records?.write(record);
        await observe(record);
      } else if (current?.rollout !== rollout) {
        const record = await halfUsed(workshop, rollout);
        current = await prepare(workshop, record);
        await observe(record);
      } else current.fresh = false;
      return { feeds: {}, weight: current!.values.denominator, tokens: current!.tokens };
    },
    loss: sourceOf(workshop, () => current!),
  };
}

/** A copy of the trained parameters as they are now, beside the frozen ones. */
function startWeights({ tuning, int8 }: PolicyTrainingOptions): Tensors {
  const { layout, flat } = tuning.parameters;
  return { ...(int8 ?? tuning.frozen), ...viewsOf(layout, flat.slice()) };
}

async function rollOut(workshop: Workshop, rollout: number): Promise<RolloutRecord> {
  const { tasks, sampler, rewards, plan, samples, seed, replacements = 0, signal } = workshop;
  const draw = async (chosen: readonly number[], attempt: number) => {
    const request = { tasks, chosen, samples, seed: seedOf(seed, rollout, attempt), signal };
    return judgeGroups(request, await sampler(request), rewards);
  };
  let groups = await draw(plan(rollout), 0);
  const drawn = [...groups];
  const alike = groups.filter(isAlike).length / groups.length;
  let replaced = 0;
  for (let attempt = 1; attempt <= replacements && groups.some(isAlike); attempt++) {
    const used = new Set(drawn.map(({ task }) => task));
    const fresh = othersThan(used, tasks.length, groups.filter(isAlike).length, plan, rollout, attempt);
    if (fresh.length === 0) break;
    const others = await draw(fresh, attempt);
    drawn.push(...others);
    const better = others.filter((group) => !isAlike(group));
    replaced += better.length;
    groups = groups.map((group) => (isAlike(group) ? (better.shift() ?? group) : group));
  }
  return { rollout, groups, numbers: numbersOf(drawn, alike, replaced) };
}

const seedOf = (seed: number, rollout: number, attempt: number) => (seed * 1_000_003 + rollout) * 64 + attempt;

/** Prompts of later rollouts, such as the curriculum has next, that this one has not met. */
function othersThan(
  used: ReadonlySet<number>,
  tasks: number,
  count: number,
  plan: PromptPlan,
  rollout: number,
  attempt: number,
): number[] {
  const found = new Set<number>();
  for (let ahead = attempt; ahead < attempt + tasks && found.size < count; ahead++) {
    for (const task of plan(rollout + ahead)) if (!used.has(task) && found.size < count) found.add(task);
  }
  return [...found];
}

function numbersOf(drawn: readonly AnswerGroup[], alike: number, replaced: number): RolloutNumbers {
  const answers = drawn.flatMap(({ answers: own }) => own);
  const known = (scores: readonly (number | null)[]) => scores.flatMap((score) => (score === null ? [] : [score]));
  const names = Object.keys(answers[0]!.parts);
  const parts = names.map((name) => [name, known(answers.map((answer) => answer.parts[name]!))] as const);
  return {
    reward: mean(known(answers.map(({ reward }) => reward))),
    parts: Object.fromEntries(parts.flatMap(([name, scores]) => (scores.length > 0 ? [[name, mean(scores)]] : []))),
    length: mean(answers.map(({ ids }) => ids.length)),
    truncated: mean(answers.map(({ ended }) => Number(!ended))),
    alike,
    replaced,
    unscorable: answers.filter(({ reward }) => reward === null).length,
    repetition: mean(answers.map(({ ids }) => repeatedShare(ids, 4))),
  };
}

/** A rollout of which some updates were done before the run was stopped. */
async function halfUsed({ records, stage }: Workshop, rollout: number): Promise<RolloutRecord> {
  if (records && (await records.list()).includes(rollout)) return records.read(rollout);
  throw new EspalierError({
    where: `${stage}, rollout ${rollout}`,
    expected: "the answers that its first update was on",
    found: "none",
    fix: "start the stage over: its directory was changed while it was stopped",
  });
}

/** Log-probabilities, advantages and the inputs of the gradient passes; adds to the record what it finds. */
async function prepare(workshop: Workshop, record: RolloutRecord): Promise<Prepared> {
  const { objective, tuning, int8, score, shape, signal, reference } = workshop;
  const { rollout, groups, numbers } = record;
  const fresh = record.old === undefined;
  const answers = groups.flatMap((group) => group.answers);
  // Without a reference an answer without advantage adds nothing to the gradient, and is in no pass.
  const early = objective.reference ? undefined : objective.valuesOf(valuedGroups(groups));
  const packed = packAnswers(answersToPack(workshop, groups, early), shape);
  const scores = await score(packed, { ...(int8 ?? tuning.frozen), ...tuning.parameters.tensors }, signal);
  const old = record.old ?? answers.map((_, i) => scores[i]?.logProbs ?? new Float32Array(0));
  const before = objective.reference ? (await score(packed, reference, signal)).map(({ logProbs }) => logProbs) : old;
  const values = early ?? objective.valuesOf(valuedGroups(groups, old, before));
  if (fresh) {
    numbers.entropy = tokenMean(scores.flatMap(({ entropy, logProbs }) => [[entropy, logProbs.length] as const]));
    if (objective.reference) numbers.kl = meanKl(old, before);
    if (objective.updates > 1) record.old = old;
  }
  const passes = packed.batches.map((batch, i) => {
    const own = packed.numbers[i]!;
    const perSequence = (of: Float64Array) =>
      f32Tensor(
        [shape.sequences],
        Float32Array.from({ length: shape.sequences }, (_, s) => of[own[s]!] ?? 0),
      );
    const perToken = (of: readonly Float32Array[]) =>
      f32Tensor([shape.targets], tokenInput(batch, own, of, shape.targets));
    return {
      ...packedFeeds(batch, shape).feeds,
      advantages: perSequence(values.advantages),
      counts: perSequence(values.weights),
      old: perToken(old),
      reference: perToken(before),
    };
  });
  const tokens = answers.reduce((sum, { ids }) => sum + ids.length, 0);
  return { rollout, passes, values, numbers, tokens, fresh };
}

/** @param policy and `reference`: log-probabilities by the number of the answer */
function valuedGroups(
  groups: readonly AnswerGroup[],
  policy?: readonly Float32Array[],
  reference?: readonly Float32Array[],
): ValuedAnswer[][] {
  let number = 0;
  return groups.map(({ answers }) =>
    answers.map(({ ids, reward, ended }) => {
      const own = number++;
      const scores = policy && reference && { policy: policy[own]!, reference: reference[own]! };
      return { reward, ended, tokens: ids.length, ...scores };
    }),
  );
}

function answersToPack({ tasks }: Workshop, groups: readonly AnswerGroup[], values?: AnswerValues): NumberedAnswers[] {
  let number = 0;
  return groups.map(({ task, answers }) => ({
    prompt: tasks[task]!.ids,
    answers: answers
      .map(({ ids }) => ({ ids, number: number++ }))
      .filter(({ number: own }) => !values || values.advantages[own]! * values.weights[own]! !== 0),
  }));
}

/** @param values numbers and how many tokens each is the mean of */
function tokenMean(values: readonly (readonly [value: number, tokens: number])[]): number {
  const tokens = values.reduce((sum, [, count]) => sum + count, 0);
  return values.reduce((sum, [value, count]) => sum + value * count, 0) / Math.max(1, tokens);
}

/** Mean of k3 over all tokens, nats. */
export function meanKl(policy: readonly Float32Array[], reference: readonly Float32Array[]): number {
  const k3 = (r: number) => Math.exp(r) - 1 - r;
  return tokenMean(
    policy.map((own, i) => [mean(Array.from(own, (lp, t) => k3(reference[i]![t]! - lp))), own.length] as const),
  );
}

/** Keeps numbers and monitors up to date; after a stop it first goes through what earlier rollouts left. */
function createObserver(
  { monitors: settings = {}, records, onLimit }: Workshop,
  numbers: Map<number, RolloutNumbers>,
): (record: RolloutRecord) => Promise<void> {
  const monitors = createMonitors(settings);
  const observe = ({ rollout, groups, numbers: own }: RolloutRecord): string | undefined => {
    const known = numbers.has(rollout);
    numbers.set(rollout, own);
    if (known) return undefined;
    const { kl, entropy } = own;
    const step = { step: rollout + 1, groups: groups.map(({ answers }) => answers) };
    return stopReason(
      monitors.observe({ ...step, ...(kl !== undefined && { kl }), ...(entropy !== undefined && { entropy }) }),
    );
  };
  return async (record) => {
    if (numbers.size === 0 && record.rollout > 0 && records) {
      const earlier = (await records.list()).filter((rollout) => rollout < record.rollout);
      for (const rollout of earlier) observe(await records.read(rollout));
    }
    const reason = observe(record);
    if (reason) onLimit?.(reason);
  };
}

/** All passes of a rollout as one batch of the loop. */
function sourceOf(workshop: Workshop, current: () => Prepared): StepSource {
  return {
    create(runtime, name, parameters, gradients) {
      const { recompute = false } = workshop;
      const inner = createStep(runtime, name, parameters, gradients, lossOf(workshop), { recompute });
      return {
        async run(frozen, denominator) {
          const { passes, fresh, rollout, numbers, tokens } = current();
          if (passes.length === 0) gradients.fill(0);
          let [loss, drift] = [0, 0];
          for (const [i, pass] of passes.entries()) {
            const result = await inner.run({ ...frozen, ...pass }, denominator, i === 0);
            loss += result.loss;
            drift += result.parts[driftPart]!;
          }
          if (fresh && drift !== 0) throw offPolicy(workshop.stage, rollout, drift);
          return { loss, parts: { ...shownNumbers(numbers), [driftPart]: drift / Math.max(1, tokens) } };
        },
      };
    },
  };
}

/** Sum of |log ratio| over the tokens: 0 if and only if every ratio is 1. */
const driftPart = "log-ratio";

function lossOf({ objective, model, shape }: Workshop) {
  return packedLoss({
    ...model,
    shape,
    lossOf(g, tokens, denominator) {
      const old = g.input("old", [shape.targets]);
      const inputs = {
        advantages: g.input("advantages", [shape.sequences]),
        weights: g.input("counts", [shape.sequences]),
        old,
        reference: g.input("reference", [shape.targets]),
      };
      const difference = g.abs(g.sub(g.stopGradient(tokens.logProbs), old));
      return {
        loss: objective.lossOf(g, tokens, inputs, denominator),
        parts: { [driftPart]: g.sum(g.where(g.greater(tokens.weights, g.scalar(0)), difference, g.scalar(0))) },
      };
    },
  });
}

function shownNumbers({ parts, replaced, unscorable, ...numbers }: RolloutNumbers): Record<string, number> {
  const known = Object.entries(numbers).filter((entry): entry is [string, number] => entry[1] !== undefined);
  return Object.fromEntries(known);
}

function offPolicy(stage: string, rollout: number, drift: number): EspalierError {
  return new EspalierError({
    where: `${stage}, rollout ${rollout}`,
    expected: "ratios of exactly 1 before the first update",
    found: `log-ratios whose sizes sum to ${drift}`,
    fix: "this is a mistake in this program: please report it with the recipe",
  });
}
