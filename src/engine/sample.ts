/**
 * @module Choosing the next token from logits: greedy, or temperature and nucleus sampling (Holtzman et al.,
 * arXiv:1904.09751, section 3.1).
 *
 * Departures: the nucleus is the shortest prefix of tokens, most probable first, whose probability reaches `topP`;
 * equal probabilities keep the order of their ids, so that a seed gives the same text everywhere.
 */
import { createRng } from "../base/index.js";

export interface SampleOptions {
  /** 0 takes the most probable token. Defaults to 0. */
  temperature?: number;
  /** Keep the most probable tokens up to this probability; 1 keeps all. Defaults to 1. */
  topP?: number;
  /** Seed of the draws; the same seed gives the same tokens. Defaults to 0. */
  seed?: number;
}

/** A chooser of tokens; with a temperature, every call draws once from the seeded sequence. */
export function createSampler({
  temperature = 0,
  topP = 1,
  seed = 0,
}: SampleOptions = {}): (logits: Float32Array) => number {
  if (temperature <= 0) return argmax;
  const rng = createRng(seed);
  return (logits) => drawFrom(nucleus(softmax(logits, temperature), topP), rng.next());
}

/** Index of the largest value; the first of equals. */
export function argmax(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

function softmax(logits: Float32Array, temperature: number): Float64Array {
  const top = logits[argmax(logits)]!;
  const weights = Float64Array.from(logits, (logit) => Math.exp((logit - top) / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

interface Candidate {
  id: number;
  probability: number;
}

/** The kept tokens, most probable first; their probabilities are not renormalised. */
function nucleus(probabilities: Float64Array, topP: number): Candidate[] {
  const sorted = Array.from(probabilities, (probability, id) => ({ id, probability }));
  sorted.sort((a, b) => b.probability - a.probability || a.id - b.id);
  let reached = 0;
  for (let kept = 0; kept < sorted.length; kept++) {
    reached += sorted[kept]!.probability;
    if (reached >= topP) return sorted.slice(0, kept + 1);
  }
  return sorted;
}

function drawFrom(candidates: Candidate[], uniform: number): number {
  const total = candidates.reduce((sum, { probability }) => sum + probability, 0);
  let left = uniform * total;
  for (const { id, probability } of candidates) {
    left -= probability;
    if (left < 0) return id;
  }
  return candidates.at(-1)!.id;
}
