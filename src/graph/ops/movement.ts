import { sizeOf } from "../../tensor/index.js";
import type { GraphBuilder } from "../builder.js";
import type { TensorType, Value } from "../types.js";
import { broadcastShapes, type OpDef, requireDType, requireRank, shapeError } from "./def.js";
import type { OpKind } from "./params.js";

function requireAxis(kind: OpKind, x: TensorType, axis: number): number {
  const dim = x.shape[axis];
  if (dim === undefined) throw shapeError(kind, "operand", `an axis ${axis}`, x);
  return dim;
}

function withAxis(x: TensorType, axis: number, dim: number): TensorType {
  return { dtype: x.dtype, shape: x.shape.map((old, i) => (i === axis ? dim : old)) };
}

const reshape: OpDef<"reshape"> = {
  infer: ([x], { shape }) => {
    if (sizeOf(shape) !== sizeOf(x!.shape) || !shape.every(Number.isInteger)) {
      throw shapeError("reshape", "operand", `${sizeOf(shape)} elements for [${shape.join(", ")}]`, x!);
    }
    return [{ dtype: x!.dtype, shape }];
  },
  grad: ({ g, inputs, upstream }) => [() => g.reshape(upstream, inputs[0]!.shape)],
  emit: (e, [x], { params }) => [e.one("Reshape", [x!, e.ints(params.shape)])],
};

const transpose: OpDef<"transpose"> = {
  infer: ([x], { perm }) => {
    const sorted = [...perm].sort((a, b) => a - b);
    if (perm.length !== x!.shape.length || sorted.some((axis, i) => axis !== i)) {
      throw shapeError("transpose", "operand", `${perm.length} axes for perm [${perm.join(", ")}]`, x!);
    }
    return [{ dtype: x!.dtype, shape: perm.map((axis) => x!.shape[axis]!) }];
  },
  grad: ({ g, node, upstream }) => [() => g.transpose(upstream, inversePermutation(node.params.perm))],
  emit: (e, inputs, { params }) => [e.one("Transpose", inputs, { attributes: { perm: { ints: params.perm } } })],
};

export function inversePermutation(perm: readonly number[]): number[] {
  return perm.map((_, axis) => perm.indexOf(axis));
}

const slice: OpDef<"slice"> = {
  infer: ([x], { axis, start, end }) => {
    const dim = requireAxis("slice", x!, axis);
    if (start < 0 || end > dim || start >= end) {
      throw shapeError("slice", "operand", `axis ${axis} to hold ${start}..${end}`, x!);
    }
    return [withAxis(x!, axis, end - start)];
  },
  grad: ({ g, node, inputs, upstream }) => [
    () => {
      const { axis, start, end } = node.params;
      return g.pad(upstream, axis, start, inputs[0]!.shape[axis]! - end);
    },
  ],
  emit: (e, [x], { params }) => [
    e.one("Slice", [x!, e.ints([params.start]), e.ints([params.end]), e.ints([params.axis])]),
  ],
};

const pad: OpDef<"pad"> = {
  infer: ([x], { axis, before, after }) => [withAxis(x!, axis, requireAxis("pad", x!, axis) + before + after)],
  grad: ({ g, node, inputs, upstream }) => [
    () => {
      const { axis, before } = node.params;
      return g.slice(upstream, axis, before, before + inputs[0]!.shape[axis]!);
    },
  ],
  emit: (e, [x], { params, inputs }) => {
    const { axis, before, after } = params;
    return [e.one("Pad", [x!, e.ints([before, after]), e.scalar(0, inputs[0]!.dtype), e.ints([axis])])];
  },
};

const concat: OpDef<"concat"> = {
  infer: (inputs, { axis }) => {
    const first = inputs[0]!;
    inputs.forEach((input, i) => {
      requireRank("concat", `operand ${i}`, input, first.shape.length);
      const fits =
        input.dtype === first.dtype && input.shape.every((dim, at) => at === axis || dim === first.shape[at]);
      if (!fits) throw shapeError("concat", `operand ${i}`, `operand 0's type but for axis ${axis}`, input);
    });
    return [
      withAxis(
        first,
        axis,
        inputs.reduce((sum, input) => sum + requireAxis("concat", input, axis), 0),
      ),
    ];
  },
  grad: ({ g, node, inputs, upstream }) => {
    const { axis } = node.params;
    const sizes = inputs.map((input) => input.shape[axis]!);
    // One split for all operands: asked for twice, deduplication leaves one.
    return inputs.map((_, i) => () => g.split(upstream, axis, sizes)[i]!);
  },
  emit: (e, inputs, { params }) => [e.one("Concat", inputs, { attributes: { axis: { int: params.axis } } })],
};

const split: OpDef<"split"> = {
  infer: ([x], { axis, sizes }) => {
    const total = sizes.reduce((sum, size) => sum + size, 0);
    if (total !== requireAxis("split", x!, axis)) throw shapeError("split", "operand", `axis ${axis} of ${total}`, x!);
    return sizes.map((size) => withAxis(x!, axis, size));
  },
  grad: ({ g, node, upstreams }) => [
    () => {
      const parts = node.outputs.map((output, i) => upstreams[i] ?? g.fill(output.shape, 0));
      return g.concat(parts, node.params.axis);
    },
  ],
  emit: (e, [x], { params }) =>
    e.node("Split", [x!, e.ints(params.sizes)], {
      attributes: { axis: { int: params.axis } },
      outputs: params.sizes.length,
    }),
};

const expand: OpDef<"expand"> = {
  infer: ([x], { shape }) => {
    const joined = broadcastShapes("expand", [{ dtype: x!.dtype, shape }, x!]);
    if (joined.length !== shape.length || joined.some((dim, axis) => dim !== shape[axis])) {
      throw shapeError("expand", "operand", `a shape that broadcasts to [${shape.join(", ")}]`, x!);
    }
    return [{ dtype: x!.dtype, shape }];
  },
  grad: ({ g, inputs, upstream }) => [() => g.reduceTo(upstream, inputs[0]!.shape)],
  emit: (e, [x], { params }) => [e.one("Expand", [x!, e.ints(params.shape)])],
};

const fill: OpDef<"fill"> = {
  infer: (_, { shape, dtype }) => [{ dtype, shape }],
  grad: { none: "it has no operands" },
  emit: (e, _, { params }) => [e.one("Expand", [e.scalar(params.value, params.dtype), e.ints(params.shape)])],
};

function requireIds(kind: OpKind, operand: string, ids: TensorType): void {
  requireDType(kind, operand, ids, "i64", "i32");
}

const gather: OpDef<"gather"> = {
  infer: ([x, ids], { axis }) => {
    requireAxis("gather", x!, axis);
    requireIds("gather", "ids", ids!);
    return [{ dtype: x!.dtype, shape: [...x!.shape.slice(0, axis), ...ids!.shape, ...x!.shape.slice(axis + 1)] }];
  },
  grad: ({ g, node, inputs, upstream }) => [() => scatterBack(g, inputs, node.params.axis, upstream), null],
  emit: (e, inputs, { params }) => [e.one("Gather", inputs, { attributes: { axis: { int: params.axis } } })],
};

/** Adds the rows of a gather's gradient up where they were taken from. */
function scatterBack(g: GraphBuilder, [x, ids]: readonly Value[], axis: number, upstream: Value): Value {
  const rows = x!.shape[axis]!;
  const outer = x!.shape.slice(0, axis);
  const inner = x!.shape.slice(axis + 1);
  const count = sizeOf(ids!.shape);
  const front = g.transpose(g.reshape(upstream, [sizeOf(outer), count, sizeOf(inner)]), [1, 0, 2]);
  const width = sizeOf(outer) * sizeOf(inner);
  const flat = g.reshape(front, [count, width]);
  const summed = g.scatterAdd(g.fill([rows, width], 0), g.reshape(ids!, [count]), flat);
  return g.reshape(g.transpose(g.reshape(summed, [rows, sizeOf(outer), sizeOf(inner)]), [1, 0, 2]), x!.shape);
}

const gatherLast: OpDef<"gatherLast"> = {
  infer: ([x, ids]) => {
    requireRank("gatherLast", "operand", x!, 2);
    requireIds("gatherLast", "ids", ids!);
    requireVector("gatherLast", "ids", ids!, x!.shape[0]!);
    return [{ dtype: x!.dtype, shape: [x!.shape[0]!] }];
  },
  grad: ({ g, inputs, upstream }) => [() => g.scatterLast(g.fill(inputs[0]!.shape, 0), inputs[1]!, upstream), null],
  emit: (e, [x, ids], { inputs }) => {
    const column = e.one("Reshape", [ids!, e.ints([inputs[1]!.shape[0]!, 1])]);
    const picked = e.one("GatherElements", [x!, column], { attributes: { axis: { int: 1 } } });
    return [e.one("Reshape", [picked, e.ints(inputs[1]!.shape)])];
  },
};

function requireVector(kind: OpKind, operand: string, x: TensorType, length: number): void {
  if (x.shape.length !== 1 || x.shape[0] !== length) throw shapeError(kind, operand, `shape [${length}]`, x);
}

const scatterAdd: OpDef<"scatterAdd"> = {
  infer: ([base, ids, updates]) => {
    requireDType("scatterAdd", "base", base!, "f32");
    requireRank("scatterAdd", "base", base!, 2);
    requireIds("scatterAdd", "ids", ids!);
    requireRank("scatterAdd", "ids", ids!, 1);
    const expected = [ids!.shape[0], base!.shape[1]];
    if (updates!.shape.length !== 2 || updates!.shape.some((dim, axis) => dim !== expected[axis])) {
      throw shapeError("scatterAdd", "updates", `shape [${expected.join(", ")}]`, updates!);
    }
    return [base!];
  },
  grad: ({ g, inputs, upstream }) => [() => upstream, null, () => g.gather(upstream, inputs[1]!, 0)],
  // Not ScatterND: its threads add to the same row without a lock, and repeated ids lose some of their rows.
  emit: (e, [base, ids, updates], { inputs }) => {
    const column = e.one("Reshape", [ids!, e.ints([inputs[1]!.shape[0]!, 1])]);
    const everywhere = e.one("Expand", [column, e.ints(inputs[2]!.shape)]);
    const attributes = { axis: { int: 0 }, reduction: { string: "add" } };
    return [e.one("ScatterElements", [base!, everywhere, updates!], { attributes })];
  },
};

const scatterLast: OpDef<"scatterLast"> = {
  infer: ([base, ids, updates]) => {
    requireDType("scatterLast", "base", base!, "f32");
    requireRank("scatterLast", "base", base!, 2);
    requireIds("scatterLast", "ids", ids!);
    requireVector("scatterLast", "ids", ids!, base!.shape[0]!);
    requireVector("scatterLast", "updates", updates!, base!.shape[0]!);
    return [base!];
  },
  grad: ({ g, inputs, upstream }) => [() => upstream, null, () => g.gatherLast(upstream, inputs[1]!)],
  emit: (e, [base, ids, updates], { inputs }) => {
    const column = e.ints([inputs[1]!.shape[0]!, 1]);
    return [
      e.one("ScatterElements", [base!, e.one("Reshape", [ids!, column]), e.one("Reshape", [updates!, column])], {
        attributes: { axis: { int: 1 }, reduction: { string: "add" } },
      }),
    ];
  },
};

export const movement = {
  reshape,
  transpose,
  slice,
  pad,
  concat,
  split,
  expand,
  fill,
  gather,
  gatherLast,
  scatterAdd,
  scatterLast,
};
