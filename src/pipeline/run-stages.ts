/** @module The stages of a run in their order: one library, then each child with its baselines, then what needs all of them. */
import { join } from "node:path";
import { openModel } from "../models/index.js";
import { cardOf } from "./card.js";
import type { RunContext } from "./context.js";
import type { ChildPlan } from "./pricing.js";
import { publishDirectory } from "./publish.js";
import type { Child, ChildRun, Run } from "./run.js";
import { buildStarts, realiseChild } from "./stages/children.js";
import { distilChild } from "./stages/distil.js";
import { type Evaluation, evaluate, type Subject } from "./stages/evaluate.js";
import { exportChild, exportNames } from "./stages/export.js";
import { buildLibrary, type Scored } from "./stages/library.js";
import { type Prepared, prepare } from "./stages/prepare.js";
import { sampleModels } from "./stages/sample.js";
import { type Candidate, searchBlocks } from "./stages/search.js";
import { measureSpeed } from "./stages/speed.js";
import type { Artifact } from "./store.js";

export async function runStages(context: RunContext): Promise<Run> {
  const { recipe, parentDigest, llama } = context;
  const prepared = await prepare(context);
  const scored = await buildLibrary(context, prepared);
  const parentSubject: Subject = { name: "parent", digest: parentDigest, open: () => openModel(recipe.parent) };
  const parent = await evaluate(context, prepared, parentSubject);
  const children: ChildRun[] = [];
  for (const plan of context.children) children.push(await runChild(context, { prepared, scored, parent, plan }));
  const made = children.flatMap(({ child, baselines }) => [child, ...baselines]);
  const speeds = await measureSpeed(context, [parentSubject, ...made.map(({ subject }) => subject)]);
  const samples = await sampleModels(context, [parentSubject, ...children.map(({ child }) => child.subject)]);
  const { llamaCpp } = await llama.version();
  return { prepared, scored, parent, children, speeds, samples, llamaCpp };
}

interface ChildWork {
  prepared: Prepared;
  scored: Scored;
  parent: Evaluation;
  plan: ChildPlan;
}

async function runChild(context: RunContext, { prepared, scored, parent, plan }: ChildWork): Promise<ChildRun> {
  const searched = await searchBlocks(context, scored, plan);
  const realised = await makeChild(context, prepared, scored, searched.child);
  const child = await distil(context, prepared, realised);
  const others: Child[] = [];
  for (const candidate of searched.baselines) others.push(await makeChild(context, prepared, scored, candidate));
  const sliced = await measureSliced(context, prepared, scored, searched.child);
  const baselines = await distilBaselines(context, prepared, child, others);
  const card = cardOf(context, { prepared, parent, child, plan });
  const { artifact, exports } = await exportChild(context, prepared, { subject: child.subject, card });
  const out = outputOf(context, plan);
  await publishDirectory(artifact.directory, out, exportNames);
  return { plan, out, searched, child, baselines, sliced, exports };
}

/** The run's own directory, or one below it for each of several children. */
export function outputOf({ recipe, children }: RunContext, { name }: ChildPlan): string {
  return children.length === 1 ? recipe.out : join(recipe.out, name);
}

async function makeChild(
  context: RunContext,
  prepared: Prepared,
  scored: Scored,
  candidate: Candidate,
): Promise<Child> {
  const variants = await startsOf(context, scored, candidate);
  const realised = await realiseChild(context, prepared, { ...scored, variants }, candidate, { refit: true });
  const before = await evaluate(context, prepared, realised, { stage: `evaluate/${candidate.key} before` });
  return { candidate, realised, subject: realised, before, after: before };
}

/** `tokens`: as many as another child had, where that one was bounded by time. */
async function distil(context: RunContext, prepared: Prepared, child: Child, tokens?: number): Promise<Child> {
  const { tokens: asked, minutes } = context.recipe.distil;
  if (asked === 0 && minutes === undefined) return child;
  const bound = tokens === undefined ? {} : { bound: { tokens } };
  const distilled = await distilChild(context, prepared, child.realised, bound);
  const after = await evaluate(context, prepared, distilled);
  return { ...child, distilled, subject: distilled, after };
}

/** All, or the one that was nearest to the parent before, on as many tokens as the child. */
async function distilBaselines(
  context: RunContext,
  prepared: Prepared,
  { distilled }: Child,
  baselines: readonly Child[],
): Promise<Child[]> {
  const { baselines: which } = context.recipe.distil;
  if (!distilled || which === "none") return [...baselines];
  const tokens = distilled.curve.steps * distilled.curve.tokensPerStep;
  const best = Math.min(...baselines.map(({ before }) => before.kl.mean));
  const made: Child[] = [];
  for (const baseline of baselines) {
    const chosen = which === "all" || baseline.before.kl.mean === best;
    made.push(chosen ? await distil(context, prepared, baseline, tokens) : baseline);
  }
  return made;
}

/** The library, or for blocks that it lacks a small one of their own. */
async function startsOf(
  context: RunContext,
  { variants, statistics }: Scored,
  { space, key }: Candidate,
): Promise<Artifact> {
  if (!space) return variants;
  const { refit } = context.recipe.variants;
  return buildStarts(context, statistics, { refit, space, stage: `variants/${key}`, ranked: variants });
}

async function measureSliced(context: RunContext, prepared: Prepared, scored: Scored, candidate: Candidate) {
  const variants = await buildStarts(context, scored.statistics, { refit: false, ranked: scored.variants });
  const named = { ...candidate, key: `${candidate.key} sliced` };
  const assembled = await realiseChild(context, prepared, { ...scored, variants }, named, { refit: false });
  const evaluation = await evaluate(context, prepared, assembled);
  return { evaluation, seconds: variants.seconds + assembled.artifact.seconds };
}
