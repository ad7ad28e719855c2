/** @module What fine-tuning learns from: files as sources with weights, a share of an earlier stage, and samples set aside. */
import { basename } from "node:path";
import { EspalierError, type OnEvent } from "../../base/index.js";
import {
  type Blend,
  type BlendSource,
  type Conversation,
  createStagedBlend,
  limitLength,
  readConversations,
  readWorkedQuestions,
  reasoningPair,
  renderTurns,
  type TokenSample,
  type WorkedQuestion,
} from "../../data/index.js";
import { type ChatTools, setAside } from "./common.js";

/** What is set aside as one: a conversation, or a question with its two conversations. */
export interface Lesson {
  conversations: readonly Conversation[];
  question?: WorkedQuestion;
}

export interface LessonSource {
  name: string;
  lessons: Lesson[];
}

/** @param reasoning read worked questions, each as a conversation with thoughts and one without */
export async function readLessons(path: string, reasoning: boolean): Promise<Lesson[]> {
  if (!reasoning) return (await readConversations(path)).map((conversation) => ({ conversations: [conversation] }));
  return (await readWorkedQuestions(path)).map((question) => ({
    question,
    conversations: Object.values(reasoningPair(question)),
  }));
}

export async function readSources(paths: readonly string[], reasoning: boolean): Promise<LessonSource[]> {
  return Promise.all(
    paths.map(async (path, i) => {
      const twice = paths.some((other, j) => j !== i && basename(other) === basename(path));
      return { name: twice ? path : basename(path), lessons: await readLessons(path, reasoning) };
    }),
  );
}

export interface SamplePlan {
  length: number;
  overlong: "refuse" | "drop" | "truncate-left" | "truncate-right";
  stage: string;
  onEvent: OnEvent;
}

/**
 * The samples of each lesson as tokens with what is learnt marked; several where the template rewrites earlier turns.
 * Lessons of which nothing is left are left out, and counted in a notice.
 */
export function renderLessons(
  { template, tokenizer }: ChatTools,
  lessons: readonly Lesson[],
  { length, overlong, stage, onEvent }: SamplePlan,
): TokenSample[][] {
  const rendered = lessons.flatMap(({ conversations }, lesson) =>
    conversations.flatMap(({ messages, tools, where }) =>
      renderTurns(template, tokenizer, messages, {
        ...(tools && { tools }),
        ...(where !== undefined && { where }),
      }).map((sample) => ({ sample, lesson })),
    ),
  );
  if (rendered.length === 0) return [];
  const all = rendered.map(({ sample }) => sample);
  const { samples, indices } = limitLength(all, { length, policy: overlong, where: stage, onEvent });
  const groups = lessons.map((): TokenSample[] => []);
  for (const [i, sample] of samples.entries()) groups[rendered[indices[i]!]!.lesson]!.push(sample);
  return groups.filter((group) => group.length > 0);
}

/** Draws lessons to be set aside over all sources at once. */
export function splitSources(
  sources: readonly LessonSource[],
  count: number,
  seed: number,
): { train: LessonSource[]; held: Lesson[] } {
  const all = sources.flatMap(({ lessons }) => lessons);
  const { held } = setAside(all, count, seed);
  const out = new Set(held);
  const train = sources.map(({ name, lessons }) => ({ name, lessons: lessons.filter((one) => !out.has(one)) }));
  return { train, held };
}

export interface Mixture {
  /** Of each epoch. */
  samplesOf: (epoch: number) => readonly TokenSample[];
  /** Every sample that comes in some epoch. */
  all: readonly TokenSample[];
  /** What an epoch is made of, in words. */
  notes: string[];
}

export interface MixtureOptions {
  /** Of the sources, in their order. Defaults to every sample once an epoch. */
  weights?: readonly number[] | undefined;
  /** Sources of an earlier stage, and the share of the samples that comes from them. */
  carried?: { sources: readonly BlendSource<TokenSample>[]; share: number } | undefined;
  seed: number;
}

/**
 * An epoch has as many samples as the sources together (with what is carried over on top): each once, or drawn by weights,
 * where a source of a small share goes on in the next epoch where this one ended.
 */
export function mixSources(
  sources: readonly BlendSource<TokenSample>[],
  { weights, carried, seed }: MixtureOptions,
): Mixture {
  const own = sources.reduce((sum, { items }) => sum + items.length, 0);
  const all = [...sources, ...(carried?.sources ?? [])].flatMap(({ items }) => items);
  if (!weights && !carried) {
    const parts = sources.map(({ name, items }) => `${name} ${items.length}`);
    return { samplesOf: () => all, all, notes: parts.length > 1 ? [`an epoch: ${parts.join(", ")}`] : [] };
  }
  const weighted = sources.map((source, i) => ({ ...source, ...(weights && { weight: weights[i]! }) }));
  const samples = Math.round(own / (1 - (carried?.share ?? 0)));
  const blend = createStagedBlend(
    [
      ...(carried ? [{ name: "before", samples: 1, sources: carried.sources }] : []),
      { name: "stage", samples, sources: weighted, ...(carried && { carryOver: carried.share }) },
    ],
    { seed },
  ).stages.at(-1)!.blend;
  return {
    all,
    samplesOf: (epoch) => Array.from({ length: samples }, (_, i) => blend.at(epoch * samples + i).item),
    notes: [`an epoch has ${samples} samples: ${describeCounts(blend, samples)}`],
  };
}

function describeCounts(blend: Blend<TokenSample>, samples: number): string {
  return blend
    .counts(samples)
    .map(({ source, share, samples: count, passes }) => {
      return `${source} ${count} (${(100 * share).toFixed(1)} %, ${passes.toFixed(2)} passes)`;
    })
    .join(", ");
}

/** Every source as samples; one without any is refused, for nothing could be drawn from it. */
export function sampleSources(
  tools: ChatTools,
  sources: readonly LessonSource[],
  plan: SamplePlan,
): BlendSource<TokenSample>[] {
  return sources.map(({ name, lessons }) => {
    const items = renderLessons(tools, lessons, plan).flat();
    if (items.length > 0) return { name, items };
    throw new EspalierError({
      where: name,
      expected: "samples to learn from",
      found: `none of its ${lessons.length} is left to train on`,
      fix: "set fewer aside, or give a greater length",
      exitCode: 2,
    });
  });
}
