import { sizeOf } from "../../tensor/index.js";
import type { Value } from "../types.js";
import { type GradContext, type OpDef, requireDType, shapeError } from "./def.js";
import type { ReduceParams } from "./params.js";

type Reduction = "sum" | "mean" | "max";

function reducedShape(shape: readonly number[], { axes, keepDims }: ReduceParams): number[] {
  if (keepDims) return shape.map((dim, axis) => (axes.includes(axis) ? 1 : dim));
  return shape.filter((_, axis) => !axes.includes(axis));
}

function reduction<K extends Reduction>(
  onnx: string,
  kind: K,
  slope: (c: GradContext<K>, spread: (value: Value) => Value) => Value,
): OpDef<K> {
  return {
    infer: ([x], params) => {
      requireDType(kind, "operand", x!, "f32", "i64", "i32");
      const bad = params.axes.find((axis) => !Number.isInteger(axis) || axis < 0 || axis >= x!.shape.length);
      if (bad !== undefined) throw shapeError(kind, "operand", `an axis ${bad}`, x!);
      return [{ dtype: x!.dtype, shape: reducedShape(x!.shape, params) }];
    },
    grad: (c) => {
      const shape = c.inputs[0]!.shape;
      const kept = reducedShape(shape, { axes: c.node.params.axes, keepDims: true });
      return [() => slope(c, (value) => c.g.expand(c.g.reshape(value, kept), shape))];
    },
    emit: (e, [x], { params }) => [
      e.one(onnx, [x!, e.ints(params.axes)], { attributes: { keepdims: { int: Number(params.keepDims) } } }),
    ],
  };
}

const argMax: OpDef<"argMax"> = {
  infer: ([x]) => {
    requireDType("argMax", "operand", x!, "f32");
    if (x!.shape.length === 0) throw shapeError("argMax", "operand", "one axis or more", x!);
    return [{ dtype: "i64", shape: x!.shape.slice(0, -1) }];
  },
  grad: { none: "an index is piecewise constant" },
  emit: (e, inputs) => [e.one("ArgMax", inputs, { attributes: { axis: { int: -1 }, keepdims: { int: 0 } } })],
};

export const reductions = {
  argMax,
  sum: reduction("ReduceSum", "sum", ({ upstream }, spread) => spread(upstream)),
  mean: reduction("ReduceMean", "mean", ({ g, inputs, output, upstream }, spread) =>
    spread(g.scale(upstream, sizeOf(output.shape) / sizeOf(inputs[0]!.shape))),
  ),
  // Ties share the gradient equally.
  max: reduction("ReduceMax", "max", ({ g, node, inputs, output, upstream }, spread) => {
    const isMax = g.cast(g.equal(inputs[0]!, spread(output)), "f32");
    return g.mul(
      isMax,
      spread(g.div(upstream, g.sum(isMax, { axes: node.params.axes, keepDims: node.params.keepDims }))),
    );
  }),
};
