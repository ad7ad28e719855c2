import { f32Tensor, type HalfType, type HostTensor, i64Tensor, type Shape } from "../../tensor/index.js";
import type { GraphCore } from "../builder.js";
import type { GraphDType, Value } from "../types.js";
import { createApply } from "./apply.js";

export function constantMethods(core: GraphCore) {
  const { one } = createApply(core);
  return {
    scalar: (value: number, dtype: GraphDType = "f32") => core.constant(scalarTensor(value, dtype)),
    /** A tensor of one repeated value, never stored in full. Defaults to f32. */
    fill: (shape: Shape, value: number, dtype: GraphDType = "f32") => one("fill", [], { shape, value, dtype }),
  };
}

function scalarTensor(value: number, dtype: GraphDType): HostTensor {
  if (dtype === "f32") return f32Tensor([], [value]);
  if (dtype === "i64") return i64Tensor([], [value]);
  if (dtype === "i32") return { dtype, shape: [], data: Int32Array.of(value) };
  return { dtype, shape: [], data: Uint8Array.of(value ? 1 : 0) };
}

/** Operands broadcast as in NumPy. */
export function elementwiseMethods(core: GraphCore) {
  const { one, unary, binary } = createApply(core);
  const mul = binary("mul");
  const [sqrt, reciprocal, neg] = [unary("sqrt"), unary("reciprocal"), unary("neg")];
  const [softplus, relu] = [unary("softplus"), unary("relu")];
  return {
    add: binary("add"),
    sub: binary("sub"),
    mul,
    div: binary("div"),
    maximum: binary("maximum"),
    minimum: binary("minimum"),
    greater: binary("greater"),
    greaterEqual: binary("greaterEqual"),
    less: binary("less"),
    equal: binary("equal"),
    and: binary("and"),
    not: unary("not"),
    neg,
    exp: unary("exp"),
    log: unary("log"),
    sqrt,
    reciprocal,
    rsqrt: (x: Value) => reciprocal(sqrt(x)),
    square: (x: Value) => mul(x, x),
    abs: unary("abs"),
    sigmoid: unary("sigmoid"),
    silu: unary("silu"),
    tanh: unary("tanh"),
    relu,
    /** relu(x)^2, the activation of Nemotron-4 (arXiv:2109.08668). */
    squaredRelu: (x: Value) => {
      const y = relu(x);
      return mul(y, y);
    },
    /** log(1 + e^x). */
    softplus,
    logSigmoid: (x: Value) => neg(softplus(neg(x))),
    scale: (x: Value, factor: number) => (factor === 1 ? x : one("scale", [x], { factor })),
    addScalar: (x: Value, term: number) => (term === 0 ? x : one("addScalar", [x], { term })),
    clip: (x: Value, low: number, high: number) => one("clip", [x], { low, high }),
    where: (condition: Value, a: Value, b: Value) => one("where", [condition, a, b], {}),
    /** Nearest value of a half-precision type, still f32: the loss of a file's type without leaving f32. */
    roundTo: (x: Value, to: HalfType) => one("roundTo", [x], { to }),
    cast: (x: Value, to: GraphDType) => (x.dtype === to ? x : one("cast", [x], { to })),
  };
}
