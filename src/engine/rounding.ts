/**
 * @module A model in the arithmetic of a half-precision file: matrices rounded to the file's type, and what they are
 * multiplied with rounded too, as llama.cpp's processor kernels do (ggml `vec_dot_type` of F16 and BF16). Sums stay f32.
 */
import type { GraphBuilder } from "../graph/index.js";
import { readWeightRows, type WeightSource } from "../models/index.js";
import { f32Tensor, type HalfType, type HostTensor, roundHalf } from "../tensor/index.js";

/** Weights at the type's nearest values; of a GGUF matrices only (`minRank` 2), of safetensors norms and biases too. */
export function roundWeights(weights: WeightSource, type: HalfType, minRank = 2): WeightSource {
  const rounded = (tensor: HostTensor): HostTensor =>
    tensor.shape.length < minRank ? tensor : f32Tensor(tensor.shape, roundHalf(tensor.data as Float32Array, type));
  return {
    ...weights,
    read: async (name) => rounded(await weights.read(name)),
    readRows: async (name, from, to) => rounded(await readWeightRows(weights, name, from, to)),
  };
}

/** A builder whose linear layers round their input. */
export function roundLinearInputs(g: GraphBuilder, type: HalfType): GraphBuilder {
  return { ...g, linear: (x, weight, bias) => g.linear(g.roundTo(x, type), weight, bias) };
}
