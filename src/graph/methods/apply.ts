import type { GraphCore } from "../builder.js";
import type { OpKind, OpParams } from "../ops/params.js";
import type { TensorType, Value } from "../types.js";

type KindsWithoutParams = { [K in OpKind]: keyof OpParams[K] extends never ? K : never }[OpKind];

/** Shorthands for operators with one output. */
export function createApply(core: GraphCore) {
  const one = <K extends OpKind>(kind: K, inputs: readonly Value[], params: OpParams[K]): Value =>
    core.apply(kind, inputs, params)[0]!;
  return {
    one,
    unary: (kind: KindsWithoutParams) => (x: Value) => one(kind, [x], {}),
    binary: (kind: KindsWithoutParams) => (a: Value, b: Value) => one(kind, [a, b], {}),
  };
}

/** Negative axes count from the last. */
export function resolveAxis(x: TensorType, axis: number): number {
  return axis < 0 ? axis + x.shape.length : axis;
}
