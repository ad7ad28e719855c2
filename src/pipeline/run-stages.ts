/** @module The stages of a run in their order: one library, then each child with its baselines, then what needs all of them. */
import { join } from "node:path";
import { openModel } from "../models/index.js";
import { cardOf } from "./card.js";
import type { RunContext } from "./context.js";
import type { ChildPlan } from "./pricing.js";
import { publishDirectory } from "./publish.js";
import type { Child, ChildRun, Run } from "./run.js";
import { buildStarts, type Realised, realiseChild } from "./stages/children.js";
import { type Distilled, distilChild } from "./stages/distil.js";
import { type Evaluation, evaluate, type Subject } from "./stages/evaluate.js";
import { exportChild, exportNames } from "./stages/export.js";
import { sweepFrontiers } from "./stages/frontiers.js";
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
  const child = await makeChild(context, prepared, scored, searched.child);
  const others: Child[] = [];
  for (const candidate of searched.baselines) others.push(await makeBaseline(context, prepared, scored, candidate));
  const frontiers = await sweepFrontiers(context, scored, plan);
  const sliced = await measureSliced(context, prepared, scored, searched.child);
  const baselines = await distilBaselines(context, prepared, child, others);
  const card = cardOf(context, { prepared, parent, child, plan });
  const { artifact, exports } = await exportChild(context, prepared, { subject: child.subject, card });
  const out = outputOf(context, plan);
  await publishDirectory(artifact.directory, out, exportNames);
  return { plan, out, searched, frontiers, child, baselines, sliced, exports };
}

/** The run's own directory, or one below it for each of several children. */
export function outputOf({ recipe, children }: RunContext, { name }: ChildPlan): string {
  return children.length === 1 ? recipe.out : join(recipe.out, name);
}

/** Distilled before anything is measured of it, so that its training begins as soon as it can. */
async function makeChild(
  context: RunContext,
  prepared: Prepared,
  scored: Scored,
  candidate: Candidate,
): Promise<Child> {
  const realised = await realiseChild(context, prepared, scored, candidate, { refit: true });
  const distilled = isDistilled(context) ? await distilChild(context, prepared, realised) : undefined;
  const child = await measured(context, prepared, candidate, realised);
  return distilled ? withDistilled(context, prepared, child, distilled) : child;
}

async function makeBaseline(
  context: RunContext,
  prepared: Prepared,
  scored: Scored,
  candidate: Candidate,
): Promise<Child> {
  const variants = await startsOf(context, scored, candidate);
  const realised = await realiseChild(context, prepared, { ...scored, variants }, candidate, { refit: true });
  return measured(context, prepared, candidate, realised);
}

async function measured(
  context: RunContext,
  prepared: Prepared,
  candidate: Candidate,
  realised: Realised,
): Promise<Child> {
  const before = await evaluate(context, prepared, realised, { stage: `evaluate/${candidate.key} before` });
  return { candidate, realised, subject: realised, before, after: before };
}

function isDistilled({ recipe }: RunContext): boolean {
  const { tokens, minutes } = recipe.distil;
  return tokens !== 0 || minutes !== undefined;
}

async function withDistilled(
  context: RunContext,
  prepared: Prepared,
  child: Child,
  distilled: Distilled,
): Promise<Child> {
  return { ...child, distilled, subject: distilled, after: await evaluate(context, prepared, distilled) };
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
    if (which === "all" || baseline.before.kl.mean === best) {
      const trained = await distilChild(context, prepared, baseline.realised, { bound: { tokens } });
      made.push(await withDistilled(context, prepared, baseline, trained));
    } else made.push(baseline);
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
