/**
 * @module What measured candidates teach about the scores: true KL = scale * sum of scores + offsets of variants +
 * terms of neighbouring layers that both changed. Ridge regression in its Bayesian form: every offset has a prior around
 * zero whose width is a share of the score that it corrects, so that few measurements move only what they speak of. How
 * large a share is settled by the evidence, from "scores add up" to "they say little".
 */
import { internal, mean } from "../base/index.js";
import type { Library, PairTerm } from "./search/index.js";
import { createLevel } from "./sequence-scores.js";

/** A candidate that was put together and measured. */
export interface MeasuredChoice {
  /** layer -> variant. */
  choice: Record<string, string>;
  /** Sum of its blocks' scores before any correction, nats a token. */
  predicted: number;
  /** True KL by sequence, of the first sequences of one text. */
  kl: number[];
}

export interface Corrections {
  /** True KL over the sum of scores, all measured candidates together. */
  scale: number;
  /** Added to the scaled score of a variant. */
  offsets: { layer: string; variant: string; value: number }[];
  /** Added where both are chosen; neighbouring layers only. */
  pairTerms: PairTerm[];
}

/** Terms in the program are dear; beyond the largest ones they add nothing. */
const mostPairTerms = 40;
/** Standard deviation of the scale around 1. */
const scaleSpread = 0.5;
/** Standard deviations of offsets that are weighed against each other, as shares of the scores. */
const spreads = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10];

/** Fits the corrections to what was measured; none where nothing was. */
export function fitCorrections(library: Library, measured: readonly MeasuredChoice[]): Corrections {
  if (!measured.some(({ predicted }) => predicted > 0)) return { scale: 1, offsets: [], pairTerms: [] };
  const level = createLevel(measured.map(({ kl }) => kl));
  const truth = measured.map(({ kl }) => mean(level(kl)));
  const residuals = truth.map((value, i) => value - measured[i]!.predicted);
  const sums: Feature = { places: [], prior: scaleSpread, column: measured.map(({ predicted }) => predicted) };
  const features = featuresOf(library, measured);
  const noise = noiseOf(measured, truth);
  const fits = spreads.map((spread) => {
    const scaled = features.map((feature) => ({ ...feature, prior: spread * feature.prior }));
    return ridge([sums, ...scaled], residuals, noise);
  });
  const [scale, ...weights] = fits.reduce((a, b) => (b.evidence > a.evidence ? b : a)).weights;
  const offsets: Corrections["offsets"] = [];
  const pairTerms: PairTerm[] = [];
  for (const [i, { places }] of features.entries()) {
    const [a, b] = places;
    if (b) pairTerms.push({ a: a!, b, value: weights[i]! });
    else offsets.push({ layer: a![0], variant: a![1], value: weights[i]! });
  }
  pairTerms.sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  const worthwhile = pairTerms.filter(({ value }) => Math.abs(value) > 1e-3 * mean(truth));
  return { scale: 1 + scale!, offsets, pairTerms: worthwhile.slice(0, mostPairTerms) };
}

/** The library with corrected scores; pair terms go to the search beside it. */
export function correctLibrary(library: Library, { scale, offsets }: Corrections): Library {
  const offset = new Map(offsets.map(({ layer, variant, value }) => [`${layer}\n${variant}`, value]));
  return Object.fromEntries(
    Object.entries(library).map(([layer, variants]) => [
      layer,
      Object.fromEntries(
        Object.entries(variants).map(([id, { metrics, ...rest }]) => {
          const score = scale * metrics.kl_div! + (offset.get(`${layer}\n${id}`) ?? 0);
          return [id, { ...rest, metrics: { ...metrics, kl_div: score } }];
        }),
      ),
    ]),
  );
}

type Place = readonly [layer: string, variant: string];

interface Feature {
  places: readonly Place[];
  /** Standard deviation before anything was measured. */
  prior: number;
  /** By measured candidate: how much of it there is. */
  column: number[];
}

/** Changed variants, and changed variants of neighbouring layers together, of all candidates; priors as large as scores. */
function featuresOf(library: Library, measured: readonly MeasuredChoice[]): Feature[] {
  const layers = Object.keys(library);
  const score = ([layer, variant]: Place) => library[layer]?.[variant]?.metrics.kl_div ?? internal(`no ${variant}`);
  const features = new Map<string, Feature>();
  for (const [i, { choice }] of measured.entries()) {
    const changed = layers.map((layer): Place | undefined => {
      const place = choice[layer] === undefined ? undefined : ([layer, choice[layer]] as const);
      return place && score(place) > 0 ? place : undefined;
    });
    const singles = changed.flatMap((place) => (place ? [[place]] : []));
    const pairs = changed.slice(1).flatMap((b, layer) => (b && changed[layer] ? [[changed[layer], b]] : []));
    for (const places of [...singles, ...pairs]) {
      const key = places.flat().join("\n");
      const prior = Math.min(...places.map(score));
      const known = features.get(key) ?? { places, prior, column: measured.map(() => 0) };
      known.column[i] = 1;
      features.set(key, known);
    }
  }
  return [...features.values()];
}

/** Variance of what two candidates differ by: all are measured on the same sequences, so the rest is common to them. */
function noiseOf(measured: readonly MeasuredChoice[], truth: readonly number[]): number {
  const floor = (1e-3 * mean(truth)) ** 2;
  const [first, ...others] = measured;
  const variances = others.map(({ kl }) => {
    const difference = kl.slice(0, first!.kl.length).map((value, i) => value - first!.kl[i]!);
    const centre = mean(difference);
    const squares = difference.reduce((sum, value) => sum + (value - centre) ** 2, 0);
    return squares / Math.max(1, difference.length - 1) / difference.length / 2;
  });
  return variances.length > 0 ? Math.max(floor, mean(variances)) : (0.1 * truth[0]!) ** 2;
}

/** Posterior means P F' K^-1 r and log evidence -(r' K^-1 r + log |K|) / 2, K = F P F' + noise I, P the prior variances. */
function ridge(
  features: readonly Feature[],
  residuals: readonly number[],
  noise: number,
): { weights: number[]; evidence: number } {
  const n = residuals.length;
  const covariance = Array.from({ length: n }, (_, i) =>
    Array.from({ length: n }, (_, j) =>
      features.reduce((sum, { prior, column }) => sum + prior ** 2 * column[i]! * column[j]!, i === j ? noise : 0),
    ),
  );
  const { solution, logDeterminant } = solveSymmetric(covariance, residuals);
  const dot = (column: readonly number[]) => solution.reduce((sum, value, i) => sum + value * column[i]!, 0);
  return {
    weights: features.map(({ prior, column }) => prior ** 2 * dot(column)),
    evidence: -(dot(residuals) + logDeterminant) / 2,
  };
}

/** Cholesky: A = L L', then two triangular solves. `matrix` is written to. */
function solveSymmetric(matrix: number[][], right: readonly number[]): { solution: number[]; logDeterminant: number } {
  const n = right.length;
  const x = [...right];
  let logDeterminant = 0;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = matrix[i]![j]!;
      for (let k = 0; k < j; k++) sum -= matrix[i]![k]! * matrix[j]![k]!;
      matrix[i]![j] = i === j ? Math.sqrt(sum) : sum / matrix[j]![j]!;
    }
    logDeterminant += 2 * Math.log(matrix[i]![i]!);
    for (let k = 0; k < i; k++) x[i]! -= matrix[i]![k]! * x[k]!;
    x[i]! /= matrix[i]![i]!;
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) x[i]! -= matrix[k]![i]! * x[k]!;
    x[i]! /= matrix[i]![i]!;
  }
  return { solution: x, logDeterminant };
}
