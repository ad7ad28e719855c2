import { ggufTensors, type ModelShape } from "./model-shape.js";

/** Parameters that one token is multiplied with: the embedding is looked up, and of experts some are used. */
export function activeParameters(shape: ModelShape): number {
  const { count, used } = shape.experts ?? { count: 1, used: 1 };
  const head = shape.tiedEmbeddings ? shape.vocabSize * shape.hiddenSize : 0;
  return ggufTensors({ ...shape, rotaryFactors: false }).reduce((sum, tensor) => {
    if (tensor.role === "embedding") return sum;
    const elements = tensor.shape.reduce((a, b) => a * b, 1);
    return sum + (tensor.shape.length === 3 ? (elements * used) / count : elements);
  }, head);
}
