/** @module What a method of training or alignment is: fields with their meaning, and a piece of work on a model. */
import type { Interval, OnEvent, z } from "../../base/index.js";
import type { Model } from "../../models/index.js";
import type { Runtime } from "../../runtime/index.js";

/**
 * One method. Its fields make the command (`espalier train sft --rank 8`), the stage of a recipe, the JSON Schema and the
 * table of its page, so that there is one way through.
 */
export interface Method<Fields extends z.ZodRawShape = z.ZodRawShape> {
  group: "train" | "align";
  /** A few words for lists of commands. */
  summary: string;
  /** Arguments after `espalier GROUP NAME`, as an example that works. */
  example: string;
  fields: Fields;
  /** Fields that name files or models, on whose contents the result depends; `stage:NAME` stands for an earlier stage's. */
  inputs: { readonly [Name in keyof Fields]?: "file" | "model" };
  /** Further files on whose contents the result depends, such as a module that a reward names. */
  reads?(options: OptionsOf<Fields>): readonly string[];
  /** `policy`: later stages go on with the model it writes; `reward`, `data` and `nothing`: they go on with the one before. */
  makes: "policy" | "reward" | "data" | "nothing";
  /** Raised when the method's code changes what it writes. */
  version: number;
  /** What no single field can tell, such as two bounds of one training; each problem in one sentence. */
  problems?(options: OptionsOf<Fields>): readonly { field: string; message: string }[];
  run(work: MethodWork<OptionsOf<Fields>>): Promise<MethodOutcome>;
}

export type OptionsOf<Fields extends z.ZodRawShape> = z.output<z.ZodObject<Fields>>;

/** What a method works on. It writes `model/` (a Hugging Face directory), `adapter/` and `data.jsonl` as it makes them. */
export interface MethodWork<Options> {
  /** Checked; fields that name files or models hold paths. */
  options: Options;
  /** The model that the stage begins with; the reference of every method that has one. */
  model: Model;
  /** The model that the recipe began with. */
  base: Model;
  /** Of the stage, in events. */
  stage: string;
  /** Where results go, and checkpoints while it works; an interrupted stage is called again with the same one. */
  directory: string;
  seed: number;
  runtime: Runtime;
  onEvent: OnEvent;
  signal: AbortSignal;
}

/** A figure of merit on data set aside, with its 95 % interval. */
export interface Measure {
  /** Such as "preference accuracy". */
  name: string;
  /** Such as "nats a token"; nothing for shares and scores. */
  unit?: string;
  /** Of the model that the stage began with, where it can be measured there. */
  before?: Interval;
  after: Interval;
  /** after - before, paired by sample. */
  difference?: Interval;
  /** `up` where more is better. */
  better: "up" | "down" | "neither";
  /** What the number rests on, where the name does not say it. */
  note?: string;
}

/** A line of a chart. */
export interface Curve {
  /** Such as "loss", "held-out KL". */
  name: string;
  unit?: string;
  /** What the first number of a point counts. */
  x: "step" | "tokens";
  points: [x: number, y: number][];
}

/** Text before and after, side by side. */
export interface Sample {
  prompt: string;
  before: string;
  after: string;
}

export interface MethodOutcome {
  measures: Measure[];
  curves: Curve[];
  /** What was counted, dropped, clipped or chosen; one sentence each. */
  notes: string[];
  samples?: Sample[];
}

/** Keeps the types of the fields for `run`. */
export function defineMethod<Fields extends z.ZodRawShape>(method: Method<Fields>): Method<Fields> {
  return method;
}
