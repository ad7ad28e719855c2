/** @module Answers that a model gives to prompts set aside, and shares of them before and after. */
import { pairedShareInterval, shareInterval } from "../../base/index.js";
import { type Message, renderPrompt } from "../../data/index.js";
import { createBatchGenerator, readAllWeights } from "../../engine/index.js";
import type { Model } from "../../models/index.js";
import type { ChatTools } from "./common.js";
import type { Measure, MethodWork } from "./method.js";

export interface AnswerRequest {
  model: Model;
  tools: ChatTools;
  prompts: readonly (readonly Message[])[];
  /** Tokens of an answer at most. */
  maxTokens: number;
  /** Of whose answers they are, for progress; such as "before". */
  note: string;
  /** How tokens are drawn. Defaults to the most probable ones. */
  sampling?: { temperature: number; topP: number; seed: number };
}

/** A model's answers, in the order of the prompts; the stop token is left out, other control tokens are not. */
export async function answerPrompts(
  { runtime, stage, signal, onEvent }: Pick<MethodWork<unknown>, "runtime" | "stage" | "signal" | "onEvent">,
  { model, tools: { tokenizer, template }, prompts, maxTokens, note, sampling }: AnswerRequest,
): Promise<string[]> {
  const weights = await readAllWeights(model.config, model.weights);
  // A step costs little more for many sequences than for one: it reads every weight once.
  const sampler = createBatchGenerator(runtime, model.config, weights, { width: Math.min(32, prompts.length) });
  let done = 0;
  const answers = await sampler.generate(
    prompts.map((messages) => ({ ids: renderPrompt(template, tokenizer, messages) })),
    {
      ...(sampling ?? { temperature: 0 }),
      maxTokens,
      signal,
      onEnd: () => onEvent({ event: "progress", stage, done: ++done, total: prompts.length, unit: "answers", note }),
    },
  );
  return answers.map(([answer]) => {
    const { ids, finish } = answer!;
    return tokenizer.decode(finish === "stop" ? ids.subarray(0, -1) : ids, { skipSpecial: false }).trim();
  });
}

/** Before and after of the same prompts: how many of the answers are so. */
export function shareMeasure(
  about: Pick<Measure, "name" | "better"> & Partial<Pick<Measure, "note">>,
  before: readonly boolean[],
  after: readonly boolean[],
): Measure {
  return {
    ...about,
    before: shareInterval(before),
    after: shareInterval(after),
    difference: pairedShareInterval(after, before),
  };
}
