export { gradients } from "./autodiff.js";
export {
  type AttentionOptions,
  causalMask,
  createGraph,
  type GraphBuilder,
  maskedScore,
  type ReduceOptions,
  type RotaryOptions,
} from "./builder.js";
export { checkGraph } from "./check.js";
export type { CrossEntropyOptions, KlDivergenceOptions, LanguageHead } from "./losses.js";
export { type EmitOnnxOptions, emitOnnx, type OnnxModel } from "./onnx/emit.js";
export type { OpKind, OpParams, RotaryPairing } from "./ops/params.js";
export { optimise } from "./passes/index.js";
export { digestGraph, printGraph } from "./print.js";
export { interpret } from "./reference/interpret.js";
export type { Graph, GraphDType, Node, TensorType, Value } from "./types.js";
