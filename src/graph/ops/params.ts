import type { HalfType } from "../../tensor/index.js";
import type { GraphDType } from "../types.js";

type None = Record<never, never>;

/** Parameters of every operator. Its keys are the closed set of operators. */
export interface OpParams {
  // Elementwise, one operand
  neg: None;
  exp: None;
  log: None;
  sqrt: None;
  reciprocal: None;
  abs: None;
  sigmoid: None;
  silu: None;
  tanh: None;
  relu: None;
  softplus: None;
  not: None;
  scale: { readonly factor: number };
  addScalar: { readonly term: number };
  clip: { readonly low: number; readonly high: number };
  cast: { readonly to: GraphDType };
  /** Nearest value of a half-precision type, still f32. */
  roundTo: { readonly to: HalfType };
  // Elementwise, several operands, with broadcasting
  add: None;
  sub: None;
  mul: None;
  div: None;
  maximum: None;
  minimum: None;
  greater: None;
  greaterEqual: None;
  less: None;
  equal: None;
  and: None;
  where: None;
  // Products
  matmul: MatmulParams;
  /** `alpha op(a) op(b) + c`, two-dimensional. */
  gemm: MatmulParams;
  /** Product with a frozen matrix in 8 bits; its gradient is another such product. */
  int8Linear: None;
  /** Product with a constant matrix in 8 bits, rounded by blocks of each row; without a gradient. */
  int8BlockLinear: None;
  // Reductions
  sum: ReduceParams;
  mean: ReduceParams;
  max: ReduceParams;
  argMax: None;
  // Movement
  reshape: { readonly shape: readonly number[] };
  transpose: { readonly perm: readonly number[] };
  slice: { readonly axis: number; readonly start: number; readonly end: number };
  pad: { readonly axis: number; readonly before: number; readonly after: number };
  concat: { readonly axis: number };
  split: { readonly axis: number; readonly sizes: readonly number[] };
  expand: { readonly shape: readonly number[] };
  fill: { readonly shape: readonly number[]; readonly value: number; readonly dtype: GraphDType };
  gather: { readonly axis: number };
  gatherLast: None;
  scatterAdd: None;
  scatterLast: None;
  // Networks
  softmax: None;
  logSoftmax: None;
  rmsNorm: { readonly eps: number };
  layerNorm: { readonly eps: number };
  rotary: { readonly pairing: RotaryPairing };
  attention: AttentionParams;
  // Order and gradient control
  after: None;
  stopGradient: None;
  withGradient: None;
  headLogProbs: HeadLogProbsParams;
}

export type OpKind = keyof OpParams;

export interface MatmulParams {
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  readonly alpha: number;
}

export interface ReduceParams {
  readonly axes: readonly number[];
  readonly keepDims: boolean;
}

/** Which features turn together: i and i + D/2 ("half"), or 2i and 2i + 1 ("adjacent"). */
export type RotaryPairing = "half" | "adjacent";

export interface HeadLogProbsParams {
  /** Positions whose logits exist at one time, and entries of the vocabulary at a time, in the head's gradient. */
  readonly chunk: number;
  readonly tile: number;
}

export interface AttentionParams {
  /** Factor of the scores. */
  readonly scale: number;
  /** Query heads per kv head. */
  readonly group: number;
}
