import { type PackableSample, sampleLength } from "../data/index.js";
import type { PackedShape } from "./packed.js";

/** Room for batches with more learnt tokens than the mean. */
const slack = 1.1;
/** Sequences of a row at most, for each branch of a sample. */
const rowSamples = 64;

/**
 * The shape for samples in `batch` rows of `length` tokens: as many places for targets as the samples' share of learnt
 * tokens asks for, and a tenth more, since the head is computed for each place, used or not; as many sequences as the
 * shortest samples give, a multiple of their branches.
 */
export function fitShape(
  samples: readonly PackableSample[],
  { batch, length }: Pick<PackedShape, "batch" | "length">,
): PackedShape {
  const places = batch * length;
  const lengths = samples.map(sampleLength);
  const learnt = samples.map(countLearnt);
  const [tokens, all] = [lengths, learnt].map((list) => list.reduce((sum, x) => sum + x, 0));
  const wanted = Math.ceil((slack * places * all!) / tokens! / 32) * 32;
  const largest = (list: readonly number[]) => list.reduce((most, x) => Math.max(most, x), 1);
  const shortest = lengths.reduce((least, x) => Math.min(least, x), places);
  const branches = largest(samples.map((sample) => ("ids" in sample ? 1 : sample.branches.length)));
  return {
    batch,
    length,
    targets: Math.max(largest(learnt), Math.min(places, wanted)),
    sequences: branches * Math.min(batch * rowSamples, Math.max(1, Math.floor(places / shortest))),
  };
}

function countLearnt(sample: PackableSample): number {
  const parts = "ids" in sample ? [sample] : sample.branches;
  return parts.reduce((sum, { learn }) => sum + learn.reduce((own, x) => own + x, 0), 0);
}
