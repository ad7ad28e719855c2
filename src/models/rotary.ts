/**
 * @module Rotary position embedding (RoFormer, arXiv:2104.09864, eq. 15), with the two scalings of Llama-family files:
 * linear position interpolation (arXiv:2306.15595) and the frequency bands of Llama 3.1.
 *
 * Departures: none. Values are computed in float64 and rounded once, so that tables agree with reference
 * implementations at long positions.
 */
import { type F32Tensor, f32Tensor } from "../tensor/index.js";
import type { ModelConfig, RopeScaling } from "./config.js";

/** Cosines and sines, one row per position. */
export interface RotaryTables {
  /** [batch, length, headDim / 2]; batch 1 serves every sequence. */
  cos: F32Tensor;
  /** The shape of `cos`. */
  sin: F32Tensor;
}

type RotaryConfig = Pick<ModelConfig, "headDim" | "rope">;

/** Angle per position of each pair of a head, in radians: [headDim / 2]. */
export function rotaryFrequencies({ headDim, rope }: RotaryConfig): Float64Array {
  const frequencies = Float64Array.from({ length: headDim / 2 }, (_, i) => rope.theta ** ((-2 * i) / headDim));
  const { scaling } = rope;
  return scaling ? frequencies.map((frequency) => scaleFrequency(frequency, scaling)) : frequencies;
}

function scaleFrequency(frequency: number, scaling: RopeScaling): number {
  switch (scaling.type) {
    case "linear":
      return frequency / scaling.factor;
    case "llama3": {
      // Fast waves stay, slow waves are stretched by the factor, those between are blended.
      const { factor, lowFreqFactor: low, highFreqFactor: high, originalMaxPositions } = scaling;
      const waves = (originalMaxPositions * frequency) / (2 * Math.PI);
      const kept = Math.min(1, Math.max(0, (waves - low) / (high - low)));
      return (1 - kept) * (frequency / factor) + kept * frequency;
    }
  }
}

/**
 * The tables of the given positions, in their order. Sequences that each have positions of their own (packed ones) are
 * given one after the other, with their number as `batch`.
 */
export function rotaryTables(config: RotaryConfig, positions: ArrayLike<number>, batch = 1): RotaryTables {
  const frequencies = rotaryFrequencies(config);
  const half = frequencies.length;
  const cos = new Float32Array(positions.length * half);
  const sin = new Float32Array(positions.length * half);
  for (let row = 0; row < positions.length; row++) {
    for (let i = 0; i < half; i++) {
      const angle = positions[row]! * frequencies[i]!;
      cos[row * half + i] = Math.cos(angle);
      sin[row * half + i] = Math.sin(angle);
    }
  }
  const shape = [batch, positions.length / batch, half];
  return { cos: f32Tensor(shape, cos), sin: f32Tensor(shape, sin) };
}

/** `start, start + 1, ...` */
export function positionsFrom(start: number, length: number): Int32Array {
  return Int32Array.from({ length }, (_, i) => start + i);
}
