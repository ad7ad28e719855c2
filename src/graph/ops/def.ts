import { EspalierError } from "../../base/index.js";
import { formatType } from "../../tensor/index.js";
import type { GraphBuilder } from "../builder.js";
import type { Emitter } from "../onnx/emitter.js";
import type { NodeOf, TensorType, Value } from "../types.js";
import type { OpKind, OpParams } from "./params.js";

/** What a gradient rule sees of its node. */
export interface GradContext<K extends OpKind> {
  readonly g: GraphBuilder;
  readonly node: NodeOf<K>;
  readonly inputs: readonly Value[];
  /** First output of the node. Further outputs are by-products (statistics) unless the operator is `split`. */
  readonly output: Value;
  /** Gradient of the first output. */
  readonly upstream: Value;
  /** Gradient of each output; absent where none arrives. */
  readonly upstreams: readonly (Value | undefined)[];
}

/**
 * One entry for each input: builds the gradient of that input, or `null` when the input is not differentiable (ids,
 * masks). Entries are functions, so that nothing is built for inputs whose gradient nobody asked for.
 */
export type GradRule<K extends OpKind> = (context: GradContext<K>) => readonly ((() => Value) | null)[];

export interface OpDef<K extends OpKind> {
  /** Types of the outputs. @throws EspalierError that names the operand at fault */
  infer(inputs: readonly TensorType[], params: OpParams[K]): readonly TensorType[];
  /** Gradient of each input, or the reason that there is none. */
  readonly grad: GradRule<K> | { readonly none: string };
  /** The ONNX node or nodes that compute it; returns the names of the outputs. */
  emit(e: Emitter, inputs: readonly string[], node: NodeOf<K>): readonly string[];
}

/** The error of a shape rule. */
export function shapeError(op: OpKind, operand: string, expected: string, found: TensorType | string): EspalierError {
  return new EspalierError({
    where: `graph: ${op}, ${operand}`,
    expected,
    found: typeof found === "string" ? found : formatType(found.dtype, found.shape),
  });
}

export function requireDType(op: OpKind, operand: string, type: TensorType, ...allowed: TensorType["dtype"][]): void {
  if (!allowed.includes(type.dtype)) throw shapeError(op, operand, allowed.join(" or "), type);
}

export function requireRank(op: OpKind, operand: string, type: TensorType, rank: number): void {
  if (type.shape.length !== rank) throw shapeError(op, operand, `${rank} axes`, type);
}

/** NumPy broadcasting. */
export function broadcastShapes(op: OpKind, inputs: readonly TensorType[]): number[] {
  const rank = Math.max(...inputs.map((input) => input.shape.length));
  const result: number[] = Array.from({ length: rank }, () => 1);
  inputs.forEach((input, which) => {
    input.shape.forEach((dim, axis) => {
      const at = axis + rank - input.shape.length;
      if (dim === 1 || dim === result[at]) return;
      if (result[at] !== 1) throw shapeError(op, `operand ${which}`, `axis ${axis} of 1 or ${result[at]}`, input);
      result[at] = dim;
    });
  });
  return result;
}
