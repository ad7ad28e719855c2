export { gradients } from "./autodiff.js";
export { createGraph, type GraphBuilder } from "./builder.js";
export { checkGraph } from "./check.js";
export type {
  CrossEntropyOptions,
  KlDivergenceOptions,
  LanguageHead,
  TokenLogProbOptions,
  TokenLogProbs,
} from "./losses.js";
export type { Int8Operands, ReduceOptions } from "./methods/arrays.js";
export { type AttentionOptions, causalMask, maskedScore, type RotaryOptions } from "./methods/networks.js";
export { type EmitOnnxOptions, emitOnnx, type OnnxModel } from "./onnx/emit.js";
export { createProtoWriter, type ProtoWriter } from "./onnx/proto.js";
export { int8Steps, int8Zero } from "./ops/int8.js";
export type { OpKind, OpParams, RotaryPairing } from "./ops/params.js";
export { optimise } from "./passes/index.js";
export { digestGraph, printGraph } from "./print.js";
export { type Boundary, recomputeSegments } from "./recompute.js";
export { interpret } from "./reference/interpret.js";
export type { Graph, GraphDType, Node, TensorType, Value } from "./types.js";
