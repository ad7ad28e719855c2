import type { Interval } from "../../base/index.js";
import type { BlockConfig, ModelConfig } from "../../models/index.js";

/** One line of the table: the parent, the child, or a baseline at the same budget and distillation tokens. */
export interface ReportModel {
  /** "parent", "child", "uniform", "greedy", "random 1", ... */
  name: string;
  role: "parent" | "child" | "baseline";
  parameters: number;
  /** Size of the checkpoint or GGUF that the speed was measured on. */
  fileBytes?: number;
  perplexity?: number;
  /** Nats a token from the parent on the set-aside text, 95 % interval by sequence; absent for the parent. */
  kl?: Interval;
  /** For a baseline: its KL minus the child's, paired by sequence; above zero where the child is nearer to the parent. */
  klAboveChild?: Interval;
  /** KL before distillation; all there is of a baseline that was not distilled. */
  klBeforeDistillation?: Interval;
  /** As `klAboveChild`, both before distillation. */
  klAboveChildBefore?: Interval;
  /** Tokens a second in llama.cpp. */
  speed?: { prefill: Interval; decode: Interval };
  blocks?: BlockConfig[];
  /** Totals by cost, for the frontiers; `params` defaults to `parameters`. */
  costs?: Record<string, number>;
}

/** KL over a stage: "calibrate", "refit", "distil 0.1M tokens"; seconds of compute up to here. */
export interface ComputePoint {
  model: string;
  stage: string;
  /** Compute spent on this model so far, in seconds of this machine. */
  seconds: number;
  /** Tokens of distillation so far. */
  tokens?: number;
  kl: number;
}

export interface LossCurve {
  model: string;
  points: { step: number; tokens: number; loss: number }[];
}

export interface ReportScores {
  layers: string[];
  variants: string[];
  /** One per scored layer and variant; the rest of the grid stays empty. */
  cells: { layer: string; variant: string; kl: Interval }[];
  /** layer -> variant in the child; outlined. */
  chosen?: Record<string, string>;
}

export interface ReportSearch {
  objective: number;
  bound: number;
  gap: number;
  seconds: number;
  /** Choices in the space, as a power of ten. */
  spaceLog10?: number;
  /** name -> budget, the child's total, the parent's total, and the shadow price (objective saved by one more unit). */
  budgets: { name: string; unit?: string; max: number; total: number; parent?: number; shadowPrice: number }[];
}

export interface ReportFrontier {
  name: string;
  /** `bytes`, `s`. */
  unit?: string;
  points: { budget: number; objective: number }[];
  /** Least sum of scores of the child at hand, for the ring that marks its place. */
  objective?: number;
}

export interface ReportSpeedPrediction {
  model: string;
  /** `decode`, `latency`, ... */
  cost: string;
  /** Tokens a second, or seconds for `latency`. */
  predicted: number;
  measured: Interval;
  unit: string;
}

/** All that the report and the terminal table show. Absent parts are left out of the page. */
export interface ReportData {
  title: string;
  parent: ReportModel;
  /** With it, the drawing of the architecture shows shares of parameters; without, of kv heads and widths. */
  parentConfig?: ModelConfig;
  child: ReportModel;
  baselines: ReportModel[];
  /** What the parent was trained on, as its card says; printed under the table. */
  parentTraining?: string;
  /** The text set aside, and how much of it was measured. */
  evaluation: { text: string; tokens: number; sequences: number };
  /** KL from the parent of each kind of text that the evaluation has. */
  klByKind?: { kind: string; kl: Interval }[];
  /** Summed scores against budgets of one cost each, all others free: the frontiers of the search. */
  frontiers?: ReportFrontier[];
  /** Predicted (summed measured costs of blocks) against measured speed of whole models. */
  speedPredictions?: ReportSpeedPrediction[];
  /** Predicted (summed scores) against measured KL of assembled children, before distillation. */
  predictions?: { model: string; predicted: number; measured: Interval }[];
  compute?: ComputePoint[];
  losses?: LossCurve[];
  samples?: { prompt: string; outputs: { model: string; text: string }[] }[];
  search: ReportSearch;
  scores?: ReportScores;
  exports?: {
    path: string;
    format: string;
    bytes?: number;
    maxAbsLogitDifference?: number;
    kl?: number;
    note?: string;
  }[];
  stages: { name: string; seconds: number; peakRssBytes: number; cached: boolean }[];
  peakRssBytes: number;
  seconds: number;
  /** How to get the same again. */
  reproduce: { command: string; seed: number; versions: Record<string, string>; machine?: string };
  /** Choices that were left out of the space, and other things a reader must know. */
  notes?: string[];
}
