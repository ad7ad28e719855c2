import type { ChildPlan } from "./pricing.js";
import type { Realised } from "./stages/children.js";
import type { Distilled } from "./stages/distil.js";
import type { Evaluation, Subject } from "./stages/evaluate.js";
import type { Export } from "./stages/export.js";
import type { Frontier } from "./stages/frontiers.js";
import type { Scored } from "./stages/library.js";
import type { Prepared } from "./stages/prepare.js";
import type { SampleSet } from "./stages/sample.js";
import type { Candidate, Searched } from "./stages/search.js";
import type { Speed } from "./stages/speed.js";

/** A candidate with all that was made and measured of it. */
export interface Child {
  candidate: Candidate;
  realised: Realised;
  /** Absent where the recipe asks for no distillation of it. */
  distilled?: Distilled;
  /** The last of the two. */
  subject: Subject;
  before: Evaluation;
  /** Of the last of the two. */
  after: Evaluation;
}

/** One of the children of a run, with its search and its baselines. */
export interface ChildRun {
  plan: ChildPlan;
  /** Directory of its files and its report. */
  out: string;
  searched: Searched;
  /** The least sum of scores under each of a row of budgets, by constraint; the first is the one first bounded. */
  frontiers: Frontier[];
  child: Child;
  baselines: Child[];
  /** The child from starts without any refit. */
  sliced: { evaluation: Evaluation; seconds: number };
  exports: Export[];
}

/** Everything a run found out. */
export interface Run {
  prepared: Prepared;
  scored: Scored;
  parent: Evaluation;
  children: ChildRun[];
  /** By the key of the candidate, and "parent". */
  speeds: Record<string, Speed>;
  samples: SampleSet[];
  llamaCpp: string;
}
