/** @module What becomes of samples that are longer than the model's context: a choice that is made, and told. */
import { EspalierError, ignoreEvents, type OnEvent } from "../base/index.js";
import type { BranchedSample, TokenSample } from "./types.js";

export type LengthPolicy =
  /** An error that names them. */
  | "refuse"
  /** They are left out. */
  | "drop"
  /** Their beginning is cut off: of branched samples the prompt's. */
  | "truncate-left"
  /** Their end is cut off: of branched samples that of the longest branches. */
  | "truncate-right";

export interface LengthOptions {
  /** Most tokens of a sample; of a branched one, of its prompt and all its branches together, since they share a row. */
  length: number;
  policy: LengthPolicy;
  /** The data, for messages. Defaults to `samples`. */
  where?: string;
  /** Takes one notice with the counts. */
  onEvent?: OnEvent;
}

export interface LimitedSamples<S> {
  samples: S[];
  /** Of each sample kept, its number among those given. */
  indices: number[];
  /** Left out: too long, or nothing to learn was left (in some branch) after the cut. */
  dropped: number;
  truncated: number;
}

export function sampleLength(sample: TokenSample | BranchedSample): number {
  if ("ids" in sample) return sample.ids.length;
  return sample.branches.reduce((sum, { ids }) => sum + ids.length, sample.prompt.length);
}

/**
 * Applies the policy; samples that fit stay as they are.
 * @throws EspalierError with `refuse`, and where no sample is left
 */
export function limitLength<S extends TokenSample | BranchedSample>(
  samples: readonly S[],
  { length, policy, where = "samples", onEvent = ignoreEvents }: LengthOptions,
): LimitedSamples<S> {
  const long = samples.flatMap((sample, i) => (sampleLength(sample) > length ? [i] : []));
  if (policy === "refuse" && long.length > 0) throw tooLong(samples, long, length, where);
  const kept: S[] = [];
  const indices: number[] = [];
  let truncated = 0;
  samples.forEach((sample, i) => {
    const isLong = sampleLength(sample) > length;
    const fitting = isLong ? cutSample(sample, length, policy) : sample;
    if (!fitting) return;
    if (isLong) truncated++;
    kept.push(fitting);
    indices.push(i);
  });
  const dropped = samples.length - kept.length;
  if (long.length > 0)
    onEvent({ event: "notice", level: "warning", message: described(samples, long, length, dropped, where) });
  if (samples.length === 0 || kept.length > 0) return { samples: kept, indices, dropped, truncated };
  throw tooLong(samples, long, length, where);
}

function described(
  samples: readonly (TokenSample | BranchedSample)[],
  long: readonly number[],
  length: number,
  dropped: number,
  where: string,
): string {
  const share = ((100 * long.length) / samples.length).toFixed(1);
  const longest = Math.max(...long.map((i) => sampleLength(samples[i]!)));
  const cut = long.length - dropped;
  const done = [...(dropped > 0 ? [`${dropped} dropped`] : []), ...(cut > 0 ? [`${cut} cut`] : [])];
  return `${where}: ${long.length} of ${samples.length} (${share} %) longer than ${length} tokens, the longest ${longest}: ${done.join(", ")}`;
}

function tooLong(
  samples: readonly (TokenSample | BranchedSample)[],
  long: readonly number[],
  length: number,
  where: string,
): EspalierError {
  const named = long.slice(0, 5).map((i) => `${i} (${sampleLength(samples[i]!)})`);
  const more = long.length > named.length ? " and more" : "";
  return new EspalierError({
    where,
    expected: `samples of at most ${length} tokens`,
    found: `${long.length} of ${samples.length} that are longer: ${named.join(", ")}${more}`,
    fix: "raise the length, or choose what becomes of them: drop, truncate-left or truncate-right",
    exitCode: 2,
  });
}

/** The sample within the length, or undefined where it has to go. */
function cutSample<S extends TokenSample | BranchedSample>(
  sample: S,
  length: number,
  policy: LengthPolicy,
): S | undefined {
  if (policy === "drop" || policy === "refuse") return undefined;
  const cut = "ids" in sample ? cutPlain(sample, length, policy) : cutBranched(sample, length, policy);
  return cut as S | undefined;
}

const learns = ({ learn }: TokenSample): boolean => learn.includes(1);

function cutPlain({ ids, learn }: TokenSample, length: number, policy: "truncate-left" | "truncate-right") {
  const from = policy === "truncate-left" ? ids.length - length : 0;
  const cut = { ids: ids.slice(from, from + length), learn: learn.slice(from, from + length) };
  // Nothing is left to predict the first token from.
  cut.learn[0] = 0;
  return learns(cut) ? cut : undefined;
}

function cutBranched(sample: BranchedSample, length: number, policy: "truncate-left" | "truncate-right") {
  const { prompt, branches } = sample;
  if (policy === "truncate-left") {
    const kept = prompt.length - (sampleLength(sample) - length);
    return kept > 0 ? { prompt: prompt.slice(-kept), branches } : undefined;
  }
  const cap = branchCap(
    branches.map(({ ids }) => ids.length),
    length - prompt.length,
  );
  const cut = branches.map(({ ids, learn }) => ({ ids: ids.slice(0, cap), learn: learn.slice(0, cap) }));
  return cap > 0 && cut.every(learns) ? { prompt, branches: cut } : undefined;
}

/** The greatest length to which branches can be cut so that together they have room. */
function branchCap(lengths: readonly number[], room: number): number {
  let cap = Math.max(...lengths);
  while (cap > 0 && lengths.reduce((sum, own) => sum + Math.min(own, cap), 0) > room) cap--;
  return cap;
}
