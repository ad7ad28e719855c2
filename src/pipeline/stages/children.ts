import { buildVariants, openBlockLibrary, openChild, realise, type Space } from "../../puzzle/index.js";
import type { RunContext } from "../context.js";
import type { Artifact } from "../store.js";
import type { Subject } from "./evaluate.js";
import { type Scored, textOf } from "./library.js";
import type { Prepared } from "./prepare.js";
import type { Candidate } from "./search.js";

export interface Realised extends Subject {
  candidate: Candidate;
  artifact: Artifact;
}

export interface StartOptions {
  refit: boolean;
  /** Defaults to the run's own. */
  space?: Space;
  stage?: string;
  /** Starts made before from the same statistics, whose order of channels is taken over. */
  ranked?: Artifact;
}

/** The library of every variant: sliced, merged and multiplied starts, refitted in closed form or as they are. */
export async function buildStarts(
  context: RunContext,
  statistics: Artifact,
  { refit, space = context.space, stage = refit ? "variants" : "starts", ranked }: StartOptions,
): Promise<Artifact> {
  const { store, parent, parentDigest, runtime, onEvent, signal } = context;
  return store.produce(
    {
      stage,
      title: refit ? "starts of every variant, refitted in closed form" : "starts of every variant, as they are",
      version: 1,
      options: { offered: space.layers, refit },
      inputs: { parent: parentDigest, statistics },
      run: (directory) =>
        buildVariants({
          runtime,
          space,
          parent,
          statistics: statistics.directory,
          ...(ranked && { ranked: openBlockLibrary(ranked.directory, parent) }),
          refit,
          directory,
          onEvent,
          signal,
        }),
    },
    context,
  );
}

/** A candidate's weights: the library's, refitted layer by layer on the child's own inputs unless told otherwise. */
export async function realiseChild(
  context: RunContext,
  prepared: Prepared,
  { statistics, variants }: Pick<Scored, "statistics" | "variants">,
  candidate: Candidate,
  { refit }: { refit: boolean },
): Promise<Realised> {
  const { store, parent, parentDigest, engine, runtime, onEvent, signal } = context;
  const stage = `${refit ? "realise" : "assemble"}/${candidate.key}`;
  const artifact = await store.produce(
    {
      stage,
      title: refit ? "refit every layer in sequence on the child's own inputs" : "the library's blocks put together",
      version: 3,
      options: { blocks: candidate.blocks, refit },
      inputs: { parent: parentDigest, variants, ...(refit && { statistics }) },
      run: (directory) =>
        realise({
          engine,
          runtime,
          library: openBlockLibrary(variants.directory, parent),
          blocks: candidate.blocks,
          text: textOf(context, prepared, "calibrate"),
          captured: statistics.directory,
          refit,
          directory,
          onEvent: (event) => onEvent(event.event === "progress" ? { ...event, stage } : event),
          signal,
        }),
    },
    context,
  );
  return {
    name: candidate.key,
    candidate,
    artifact,
    digest: artifact,
    open: () => openChild(parent, artifact.directory),
  };
}
