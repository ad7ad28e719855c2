import type { HalfType } from "../../tensor/index.js";
import type { GraphBuilder } from "../builder.js";
import { microsoft } from "../onnx/emitter.js";
import type { GraphDType, TensorType, Value } from "../types.js";
import { broadcastShapes, type GradRule, type OpDef, requireDType, shapeError } from "./def.js";
import type { OpKind } from "./params.js";

type Unary = "neg" | "exp" | "log" | "sqrt" | "reciprocal" | "abs" | "sigmoid" | "tanh" | "relu" | "softplus";

function unary<K extends Unary>(onnx: string, kind: K, slope: (c: UnaryContext) => Value): OpDef<K> {
  return {
    infer: ([x]) => {
      requireDType(kind, "operand", x!, "f32");
      return [x!];
    },
    grad: ({ g, inputs, output, upstream }) => [() => slope({ g, x: inputs[0]!, y: output, dy: upstream })],
    emit: (e, inputs) => [e.one(onnx, inputs)],
  };
}

interface UnaryContext {
  g: GraphBuilder;
  x: Value;
  y: Value;
  dy: Value;
}

type Arithmetic = "add" | "sub" | "mul" | "div" | "maximum" | "minimum";
type Comparison = "greater" | "greaterEqual" | "less" | "equal";

function binaryType(kind: OpKind, inputs: readonly TensorType[], allowed: readonly GraphDType[]): TensorType {
  inputs.forEach((input, i) => {
    requireDType(kind, `operand ${i}`, input, ...allowed);
  });
  const [a, b] = inputs as [TensorType, TensorType];
  if (a.dtype !== b.dtype) throw shapeError(kind, "operand 1", `${a.dtype}, as operand 0`, b);
  return { dtype: a.dtype, shape: broadcastShapes(kind, inputs) };
}

function arithmetic<K extends Arithmetic>(
  onnx: string,
  kind: K,
  slopes: (c: { g: GraphBuilder; a: Value; b: Value; y: Value; dy: Value }) => [() => Value, () => Value],
): OpDef<K> {
  const grad: GradRule<K> = ({ g, inputs, output, upstream }) => {
    const [a, b] = inputs as [Value, Value];
    const [da, db] = slopes({ g, a, b, y: output, dy: upstream });
    return [() => g.reduceTo(da(), a.shape), () => g.reduceTo(db(), b.shape)];
  };
  return {
    infer: (inputs) => [binaryType(kind, inputs, ["f32", "i64", "i32"])],
    grad,
    emit: (e, inputs) => [e.one(onnx, inputs)],
  };
}

function comparison<K extends Comparison>(onnx: string, kind: K): OpDef<K> {
  return {
    infer: (inputs) => [{ dtype: "bool", shape: binaryType(kind, inputs, ["f32", "i64", "i32"]).shape }],
    grad: { none: "comparisons are piecewise constant" },
    emit: (e, inputs) => [e.one(onnx, inputs)],
  };
}

const silu: OpDef<"silu"> = {
  infer: ([x]) => {
    requireDType("silu", "operand", x!, "f32");
    return [x!];
  },
  // silu' = s + x s (1 - s) = y + s (1 - y) with y = x s: one pass fewer than the textbook form.
  grad: ({ g, inputs, output: y, upstream }) => [
    () => g.mul(upstream, g.add(y, g.mul(g.sigmoid(inputs[0]!), g.sub(g.scalar(1), y)))),
  ],
  // QuickGelu is x sigmoid(alpha x): one kernel instead of two.
  emit: (e, inputs) => [e.one("QuickGelu", inputs, { domain: microsoft, attributes: { alpha: { float: 1 } } })],
};

const scale: OpDef<"scale"> = {
  infer: ([x]) => {
    requireDType("scale", "operand", x!, "f32");
    return [x!];
  },
  grad: ({ g, node, upstream }) => [() => g.scale(upstream, node.params.factor)],
  emit: (e, [x], node) => [e.one("Mul", [x!, e.scalar(node.params.factor, "f32")])],
};

const addScalar: OpDef<"addScalar"> = {
  infer: ([x]) => {
    requireDType("addScalar", "operand", x!, "f32");
    return [x!];
  },
  grad: ({ upstream }) => [() => upstream],
  emit: (e, [x], node) => [e.one("Add", [x!, e.scalar(node.params.term, "f32")])],
};

const clip: OpDef<"clip"> = {
  infer: ([x]) => {
    requireDType("clip", "operand", x!, "f32");
    return [x!];
  },
  grad: ({ g, node, inputs, upstream }) => [
    () => {
      const { low, high } = node.params;
      const inside = g.and(g.greaterEqual(inputs[0]!, g.scalar(low)), g.greaterEqual(g.scalar(high), inputs[0]!));
      return g.where(inside, upstream, g.scalar(0));
    },
  ],
  emit: (e, [x], { params }) => [e.one("Clip", [x!, e.scalar(params.low, "f32"), e.scalar(params.high, "f32")])],
};

/** `TensorProto.DataType` numbers. */
export const onnxTypeOf = { f32: 1, i64: 7, i32: 6, i8: 3, u8: 2, bool: 9 } as const satisfies Record<
  GraphDType,
  number
>;

const cast: OpDef<"cast"> = {
  infer: ([x], { to }) => [{ dtype: to, shape: x!.shape }],
  grad: { none: "a cast between floats and integers is piecewise constant" },
  emit: (e, inputs, { params }) => [e.one("Cast", inputs, { attributes: { to: { int: onnxTypeOf[params.to] } } })],
};

const onnxHalf = { f16: 10, bf16: 16 } as const satisfies Record<HalfType, number>;

const roundTo: OpDef<"roundTo"> = {
  infer: ([x]) => {
    requireDType("roundTo", "operand", x!, "f32");
    return [x!];
  },
  grad: { none: "rounding is piecewise constant" },
  emit: (e, inputs, { params }) => {
    const half = e.one("Cast", inputs, { attributes: { to: { int: onnxHalf[params.to] } } });
    return [e.one("Cast", [half], { attributes: { to: { int: onnxTypeOf.f32 } } })];
  },
};

const not: OpDef<"not"> = {
  infer: ([x]) => {
    requireDType("not", "operand", x!, "bool");
    return [x!];
  },
  grad: { none: "logical operators are piecewise constant" },
  emit: (e, inputs) => [e.one("Not", inputs)],
};

const and: OpDef<"and"> = {
  infer: (inputs) => [binaryType("and", inputs, ["bool"])],
  grad: { none: "logical operators are piecewise constant" },
  emit: (e, inputs) => [e.one("And", inputs)],
};

const where: OpDef<"where"> = {
  infer: ([condition, a, b]) => {
    requireDType("where", "condition", condition!, "bool");
    if (a!.dtype !== b!.dtype) throw shapeError("where", "operand 2", `${a!.dtype}, as operand 1`, b!);
    return [{ dtype: a!.dtype, shape: broadcastShapes("where", [condition!, a!, b!]) }];
  },
  grad: ({ g, inputs, upstream }) => [
    null,
    () => g.reduceTo(g.where(inputs[0]!, upstream, g.scalar(0)), inputs[1]!.shape),
    () => g.reduceTo(g.where(inputs[0]!, g.scalar(0), upstream), inputs[2]!.shape),
  ],
  emit: (e, inputs) => [e.one("Where", inputs)],
};

export const elementwise = {
  neg: unary("Neg", "neg", ({ g, dy }) => g.neg(dy)),
  exp: unary("Exp", "exp", ({ g, y, dy }) => g.mul(dy, y)),
  log: unary("Log", "log", ({ g, x, dy }) => g.div(dy, x)),
  sqrt: unary("Sqrt", "sqrt", ({ g, y, dy }) => g.scale(g.div(dy, y), 0.5)),
  reciprocal: unary("Reciprocal", "reciprocal", ({ g, y, dy }) => g.neg(g.mul(dy, g.mul(y, y)))),
  abs: unary("Abs", "abs", ({ g, x, dy }) => g.where(g.greaterEqual(x, g.scalar(0)), dy, g.neg(dy))),
  sigmoid: unary("Sigmoid", "sigmoid", ({ g, y, dy }) => g.mul(dy, g.sub(y, g.mul(y, y)))),
  tanh: unary("Tanh", "tanh", ({ g, y, dy }) => g.sub(dy, g.mul(dy, g.mul(y, y)))),
  relu: unary("Relu", "relu", ({ g, x, dy }) => g.where(g.greater(x, g.scalar(0)), dy, g.scalar(0))),
  softplus: unary("Softplus", "softplus", ({ g, x, dy }) => g.mul(dy, g.sigmoid(x))),
  silu,
  scale,
  addScalar,
  clip,
  cast,
  roundTo,
  not,
  and,
  where,
  add: arithmetic("Add", "add", ({ dy }) => [() => dy, () => dy]),
  sub: arithmetic("Sub", "sub", ({ g, dy }) => [() => dy, () => g.neg(dy)]),
  mul: arithmetic("Mul", "mul", ({ g, a, b, dy }) => [() => g.mul(dy, b), () => g.mul(dy, a)]),
  div: arithmetic("Div", "div", ({ g, b, y, dy }) => [() => g.div(dy, b), () => g.neg(g.mul(g.div(dy, b), y))]),
  maximum: arithmetic("Max", "maximum", ({ g, a, b, dy }) => pick(g, g.greaterEqual(a, b), dy)),
  minimum: arithmetic("Min", "minimum", ({ g, a, b, dy }) => pick(g, g.greaterEqual(b, a), dy)),
  greater: comparison("Greater", "greater"),
  greaterEqual: comparison("GreaterOrEqual", "greaterEqual"),
  less: comparison("Less", "less"),
  equal: comparison("Equal", "equal"),
};

function pick(g: GraphBuilder, first: Value, dy: Value): [() => Value, () => Value] {
  return [() => g.where(first, dy, g.scalar(0)), () => g.where(first, g.scalar(0), dy)];
}
