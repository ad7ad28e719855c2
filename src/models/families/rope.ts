/** @module Rotary scaling as the two formats write it: `rope_scaling` of config.json, `rope_freqs` of GGUF. */
import { EspalierError } from "../../base/index.js";
import type { HubConfig, HubRopeScaling } from "../../formats/index.js";
import type { RopeConfig, RopeScaling } from "../config.js";
import { rotaryFrequencies } from "../rotary.js";

/** Reads `rope_scaling` (or its newer form, `rope_parameters`) and `rope_theta`. */
export function ropeFromHub(hub: HubConfig, where: string): RopeConfig {
  const stated = hub.rope_parameters ?? hub.rope_scaling;
  const theta = hub.rope_parameters?.rope_theta ?? hub.rope_theta ?? 10000;
  const scaling = stated && parseScaling(stated, where);
  return scaling ? { theta, scaling } : { theta };
}

function parseScaling(stated: HubRopeScaling, where: string): RopeScaling | undefined {
  const type = stated.rope_type ?? stated.type ?? "default";
  const field = (name: keyof HubRopeScaling): number => {
    const value = stated[name];
    if (typeof value === "number") return value;
    throw new EspalierError({
      where: `${where} rope_scaling.${name}`,
      expected: "a number",
      found: "none",
      exitCode: 2,
    });
  };
  switch (type) {
    case "default":
      return undefined;
    case "linear":
      return { type, factor: field("factor") };
    case "llama3":
      return checkBands(
        {
          type,
          factor: field("factor"),
          lowFreqFactor: field("low_freq_factor"),
          highFreqFactor: field("high_freq_factor"),
          originalMaxPositions: field("original_max_position_embeddings"),
        },
        where,
      );
    default:
      throw new EspalierError({
        where: `${where} rope_scaling`,
        expected: "default, linear or llama3",
        found: type,
        fix: "this scaling is not supported yet",
        exitCode: 2,
      });
  }
}

type Llama3Scaling = Extract<RopeScaling, { type: "llama3" }>;

function checkBands(scaling: Llama3Scaling, where: string): Llama3Scaling {
  if (scaling.highFreqFactor > scaling.lowFreqFactor) return scaling;
  throw new EspalierError({
    where: `${where} rope_scaling.high_freq_factor`,
    expected: `more than low_freq_factor ${scaling.lowFreqFactor}`,
    found: `${scaling.highFreqFactor}`,
    exitCode: 2,
  });
}

/** The `rope_scaling` object of config.json. */
export function ropeToHub({ scaling }: RopeConfig): Record<string, unknown> | null {
  if (!scaling) return null;
  if (scaling.type === "linear") return { rope_type: "linear", type: "linear", factor: scaling.factor };
  return {
    rope_type: "llama3",
    factor: scaling.factor,
    low_freq_factor: scaling.lowFreqFactor,
    high_freq_factor: scaling.highFreqFactor,
    original_max_position_embeddings: scaling.originalMaxPositions,
  };
}

/** The divisors of the rotary angles that GGUF keeps in `rope_freqs.weight` for llama3 scaling: [headDim / 2]. */
export function ropeDivisors(rope: RopeConfig, headDim: number): Float32Array {
  const plain = rotaryFrequencies({ headDim, rope: { theta: rope.theta } });
  const scaled = rotaryFrequencies({ headDim, rope });
  return Float32Array.from(plain, (frequency, i) => frequency / scaled[i]!);
}

/**
 * The llama3 scaling that a `rope_freqs.weight` came from. The file keeps the divisors only, and only two numbers of the
 * band matter (original / (high - low) and low / (high - low)), so the low factor is taken to be 1, as it is in every
 * published model.
 */
export function scalingFromDivisors(
  divisors: Float32Array,
  { theta }: RopeConfig,
  where: string,
): RopeScaling | undefined {
  const headDim = 2 * divisors.length;
  const factor = shortest(Math.max(...divisors));
  if (factor === 1) return undefined;
  const frequencies = rotaryFrequencies({ headDim, rope: { theta } });
  // In the band, 1 / divisor = (1 - s) / factor + s with s = waves * a - b, linear in the frequency.
  const band = [...divisors.keys()].filter((i) => divisors[i]! > 1.000001 && divisors[i]! < factor * 0.999999);
  const kept = (i: number) => (1 / divisors[i]! - 1 / factor) / (1 - 1 / factor);
  const [first, last] = [band[0], band.at(-1)];
  const candidates: Llama3Scaling[] = [publishedBands(factor)];
  if (first !== undefined && last !== undefined && first !== last) {
    const [x1, x2] = [frequencies[first]! / (2 * Math.PI), frequencies[last]! / (2 * Math.PI)];
    const a = (kept(first) - kept(last)) / (x1 - x2);
    const b = a * x1 - kept(first);
    const width = 1 / b;
    candidates.push({
      type: "llama3",
      factor,
      lowFreqFactor: 1,
      highFreqFactor: Number((1 + width).toPrecision(5)),
      originalMaxPositions: Math.round(a * width),
    });
  }
  const fits = (scaling: Llama3Scaling) => {
    const expected = ropeDivisors({ theta, scaling }, headDim);
    return expected.every((value, i) => Math.abs(value - divisors[i]!) <= 1e-4 * value);
  };
  const found = candidates.find(
    (scaling) => scaling.originalMaxPositions > 0 && scaling.highFreqFactor > 1 && fits(scaling),
  );
  if (found) return found;
  throw new EspalierError({
    where,
    expected: "rotary divisors of llama3 scaling",
    found: "another scaling",
    fix: "it is not supported yet",
  });
}

/** What Llama 3.1, 3.2 and 3.3 say. */
function publishedBands(factor: number): Llama3Scaling {
  return { type: "llama3", factor, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 8192 };
}

/** The shortest decimal that is this f32: 0.00001 for what a file gives back as 0.000009999999747. */
export function shortest(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const candidate = Number(value.toPrecision(digits));
    if (Math.fround(candidate) === Math.fround(value)) return candidate;
  }
  return value;
}
