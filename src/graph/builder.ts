import { EspalierError } from "../base/index.js";
import { f32Tensor, type HostTensor, i64Tensor, type Shape, sameShape } from "../tensor/index.js";
import { createLosses } from "./losses.js";
import { ops } from "./ops/index.js";
import type { MatmulParams, OpKind, OpParams, RotaryPairing } from "./ops/params.js";
import type { Constant, Graph, GraphDType, NamedValue, Node, TensorType, Value } from "./types.js";

export interface ReduceOptions {
  /** Negative axes count from the last. Defaults to all axes. */
  axes?: readonly number[];
  /** Keeps reduced axes with size 1. Defaults to false. */
  keepDims?: boolean;
}

export interface RotaryOptions {
  /** Features that turn together: "half" (Hugging Face) or "adjacent" (llama.cpp `llama`). Defaults to "half". */
  pairing?: RotaryPairing;
}

export interface AttentionOptions {
  /** Factor of the scores. Defaults to 1 / sqrt(D). */
  scale?: number;
  /** Query t sees keys up to t + S - T. Defaults to false. */
  causal?: boolean;
  /** Additive mask [T, S] or [B, T, S] (0, or a large negative number); excludes `causal`. */
  mask?: Value;
}

/** Score of a masked pair: its exponential is zero in f32, and sums with it stay finite. */
export const maskedScore = -1e30;

/**
 * Builds one graph, checking the type of every operation as it is added.
 *
 * A builder is itself a {@link Graph}: pass it to `gradients`, `optimise`, `printGraph` or `emitOnnx` as it stands.
 */
export type GraphBuilder = GraphCore & GraphMethods & ReturnType<typeof createLosses>;
export type GraphMethods = ReturnType<typeof createMethods>;

export interface GraphCore extends Graph {
  /** Declares an input. Defaults to f32. */
  input(name: string, shape: Shape, dtype?: GraphDType): Value;
  constant(tensor: HostTensor): Value;
  output(name: string, value: Value): void;
  /** Adds any operation of the table; the named methods below call this. */
  apply<K extends OpKind>(kind: K, inputs: readonly Value[], params: OpParams[K]): readonly Value[];
}

export function createGraph(name: string): GraphBuilder {
  const core = createCore(name);
  const g = { ...core, ...createMethods(core) };
  return { ...g, ...createLosses(g) };
}

function createCore(name: string): GraphCore {
  const inputs: NamedValue[] = [];
  const constants: Constant[] = [];
  const nodes: Node[] = [];
  const outputs: NamedValue[] = [];
  let nextId = 0;
  const fresh = ({ dtype, shape }: TensorType): Value => ({ id: nextId++, dtype, shape });

  return {
    name,
    inputs,
    constants,
    nodes,
    outputs,
    input(inputName, shape, dtype = "f32") {
      requireFreshName("input", inputName, inputs);
      requireDims(inputName, shape);
      const value = fresh({ dtype, shape: [...shape] });
      inputs.push({ name: inputName, value });
      return value;
    },
    constant(tensor) {
      const value = fresh({ dtype: graphDTypeOf(tensor), shape: tensor.shape });
      constants.push({ value, tensor });
      return value;
    },
    output(outputName, value) {
      requireFreshName("output", outputName, outputs);
      outputs.push({ name: outputName, value });
    },
    apply(kind, operands, params) {
      const types = ops[kind].infer(operands, params);
      const results = types.map(fresh);
      // The table pairs each kind with its own parameters; a union of nodes cannot express that for a generic kind.
      nodes.push({ kind, inputs: [...operands], params, outputs: results } as unknown as Node);
      return results;
    },
  };
}

function requireFreshName(what: string, name: string, taken: readonly NamedValue[]): void {
  if (!taken.some((other) => other.name === name)) return;
  throw new EspalierError({ where: `graph: ${what} "${name}"`, expected: "a name of its own", found: "it twice" });
}

function requireDims(name: string, shape: Shape): void {
  if (shape.every((dim) => Number.isInteger(dim) && dim > 0)) return;
  throw new EspalierError({
    where: `graph: input "${name}"`,
    expected: "positive whole sizes (graphs are compiled per shape)",
    found: `[${shape.join(", ")}]`,
  });
}

function graphDTypeOf({ dtype }: HostTensor): GraphDType {
  if (dtype === "f32" || dtype === "i64" || dtype === "i32" || dtype === "bool") return dtype;
  throw new EspalierError({ where: "graph: constant", expected: "f32, i64, i32 or bool", found: dtype });
}

/** The named operations. Axes may be negative; operands broadcast as in NumPy. */
function createMethods(core: GraphCore) {
  const one = <K extends OpKind>(kind: K, inputs: readonly Value[], params: OpParams[K]): Value =>
    core.apply(kind, inputs, params)[0]!;
  const unary = (kind: UnaryKind) => (x: Value) => one(kind, [x], {});
  const binary = (kind: BinaryKind) => (a: Value, b: Value) => one(kind, [a, b], {});
  const reduce =
    (kind: "sum" | "mean" | "max") =>
    (x: Value, { axes, keepDims = false }: ReduceOptions = {}) => {
      const all = axes?.map((axis) => resolveAxis(x, axis)) ?? x.shape.map((_, axis) => axis);
      return all.length === 0 ? x : one(kind, [x], { axes: all, keepDims });
    };

  const scalar = (value: number, dtype: GraphDType = "f32") => core.constant(scalarTensor(value, dtype));
  const mul = binary("mul");
  const sqrt = unary("sqrt");
  const reciprocal = unary("reciprocal");
  const neg = unary("neg");
  const softplus = unary("softplus");
  const relu = unary("relu");
  const sum = reduce("sum");
  const reshape = (x: Value, shape: Shape) => {
    const resolved = resolveShape(x, shape);
    return sameShape(x.shape, resolved) ? x : one("reshape", [x], { shape: resolved });
  };
  const matmul = (a: Value, b: Value, options: Partial<MatmulParams> = {}) =>
    one("matmul", [a, b], { transposeA: false, transposeB: false, alpha: 1, ...options });
  const gemm = (a: Value, b: Value, c: Value, options: Partial<MatmulParams> = {}) =>
    one("gemm", [a, b, c], { transposeA: false, transposeB: false, alpha: 1, ...options });
  const gather = (x: Value, ids: Value, axis = 0) => one("gather", [x, ids], { axis: resolveAxis(x, axis) });

  return {
    scalar,
    /** A tensor of one repeated value, never stored in full. Defaults to f32. */
    fill: (shape: Shape, value: number, dtype: GraphDType = "f32") => one("fill", [], { shape, value, dtype }),

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
    cast: (x: Value, to: GraphDType) => (x.dtype === to ? x : one("cast", [x], { to })),

    /** alpha op(a) op(b); two axes, or equal batch axes before them. */
    matmul,
    /** alpha op(a) op(b) + c, two axes; c broadcasts. */
    gemm,
    /** x [N, I] with w [O, I] (the layout of checkpoints) and bias [O]: [N, O]. */
    linear: (x: Value, w: Value, bias?: Value) =>
      bias ? gemm(x, w, bias, { transposeB: true }) : matmul(x, w, { transposeB: true }),

    sum,
    mean: reduce("mean"),
    max: reduce("max"),
    /** Sums over the axes along which `shape` was broadcast to x. */
    reduceTo: (x: Value, shape: Shape) => {
      const axes = broadcastAxes(x.shape, shape);
      return reshape(axes.length === 0 ? x : sum(x, { axes }), shape);
    },

    /** One size may be -1. */
    reshape,
    transpose: (x: Value, perm: readonly number[]) =>
      perm.every((axis, i) => axis === i) && perm.length === x.shape.length ? x : one("transpose", [x], { perm }),
    /** Elements start..end (exclusive) of an axis. */
    slice: (x: Value, axis: number, start: number, end: number) => {
      const at = resolveAxis(x, axis);
      return start === 0 && end === x.shape[at] ? x : one("slice", [x], { axis: at, start, end });
    },
    /** Zeros before and after along an axis. */
    pad: (x: Value, axis: number, before: number, after: number) =>
      before === 0 && after === 0 ? x : one("pad", [x], { axis: resolveAxis(x, axis), before, after }),
    concat: (xs: readonly Value[], axis: number) =>
      xs.length === 1 ? xs[0]! : one("concat", xs, { axis: resolveAxis(xs[0]!, axis) }),
    split: (x: Value, axis: number, sizes: readonly number[]): readonly Value[] =>
      sizes.length === 1 ? [x] : core.apply("split", [x], { axis: resolveAxis(x, axis), sizes }),
    expand: (x: Value, shape: Shape) => (sameShape(x.shape, shape) ? x : one("expand", [x], { shape })),

    /** Index of the largest entry of the last axis (the first of equals), i64. */
    argMax: unary("argMax"),
    gather,
    /** table [V, H], ids of any shape: ids.shape + [H]. */
    embedding: (table: Value, ids: Value) => gather(table, ids, 0),
    /** x [N, V], ids [N]: x[n, ids[n]], [N]. */
    gatherLast: (x: Value, ids: Value) => one("gatherLast", [x, ids], {}),
    /** base [V, H] with updates [N, H] added to the rows ids [N]. */
    scatterAdd: (base: Value, ids: Value, updates: Value) => one("scatterAdd", [base, ids, updates], {}),
    /** base [N, V] with updates [N] added at [n, ids[n]]. */
    scatterLast: (base: Value, ids: Value, updates: Value) => one("scatterLast", [base, ids, updates], {}),

    /** Over the last axis. */
    softmax: unary("softmax"),
    /** Over the last axis. */
    logSoftmax: unary("logSoftmax"),
    /** x / rms(x) w over the last axis. */
    rmsNorm: (x: Value, w: Value, eps: number) => one("rmsNorm", [x, w], { eps }),
    layerNorm: (x: Value, w: Value, b: Value, eps: number) => one("layerNorm", [x, w, b], { eps }),
    /** x [B, heads, T, D]; cos and sin [B or 1, T, D/2]. */
    rotary: (x: Value, cos: Value, sin: Value, { pairing = "half" }: RotaryOptions = {}) =>
      one("rotary", [x, cos, sin], { pairing }),
    /** q [B, heads, T, D], k [B, kv, S, D], v [B, kv, S, Dv]: [B, heads, T, Dv]; heads h reads kv head h div (heads / kv). */
    attention: (q: Value, k: Value, v: Value, { scale, causal = false, mask }: AttentionOptions = {}) => {
      const [batch, heads, length, width] = q.shape as [number, number, number, number];
      const [kv, keys] = [k.shape[1]!, k.shape[2]!];
      requireGroups(heads, kv);
      const group = heads / kv;
      const additive = mask ?? (causal && length > 1 ? core.constant(causalMask(length, keys)) : undefined);
      const grouped = reshape(q, [batch, kv, group * length, width]);
      const params = { scale: scale ?? 1 / Math.sqrt(width), group };
      const out = one("attention", additive ? [grouped, k, v, additive] : [grouped, k, v], params);
      return reshape(out, [batch, heads, length, v.shape[3]!]);
    },

    /**
     * Additive mask [B, T, T] of packed sequences: position t of row b sees positions up to t with the same segment.
     * Build it once and give it to every layer.
     */
    packedMask: (segments: Value) => {
      const [batch, length] = segments.shape as [number, number];
      const same = binary("equal")(reshape(segments, [batch, length, 1]), reshape(segments, [batch, 1, length]));
      const past = core.constant(causalPairs(length));
      return one("where", [binary("and")(same, past), scalar(0), scalar(maskedScore)], {});
    },

    /**
     * x, computed into anything only when `others` are done; bounds how many large values are alive at one time.
     * Others that nothing else needs are dropped by `optimise`.
     */
    after: (x: Value, others: readonly Value[]) => (others.length === 0 ? x : one("after", [x, ...others], {})),
    /** The value of x; no gradient flows to it. */
    stopGradient: unary("stopGradient"),
    /** The value of a scalar whose gradients are given: pairs of x and d value / d x. */
    withGradient: (value: Value, pairs: readonly (readonly [x: Value, gradient: Value])[]) =>
      one("withGradient", [value, ...pairs.flat()], {}),
  };
}

type UnaryKind = KindsWithoutParams &
  (
    | "neg"
    | "exp"
    | "log"
    | "sqrt"
    | "reciprocal"
    | "abs"
    | "sigmoid"
    | "silu"
    | "tanh"
    | "relu"
    | "softplus"
    | "not"
    | "softmax"
    | "logSoftmax"
    | "argMax"
    | "stopGradient"
  );
type BinaryKind = KindsWithoutParams &
  ("add" | "sub" | "mul" | "div" | "maximum" | "minimum" | "greater" | "greaterEqual" | "less" | "equal" | "and");
type KindsWithoutParams = { [K in OpKind]: keyof OpParams[K] extends never ? K : never }[OpKind];

function resolveAxis(x: TensorType, axis: number): number {
  return axis < 0 ? axis + x.shape.length : axis;
}

function resolveShape(x: TensorType, shape: Shape): number[] {
  const known = shape.reduce((product, dim) => (dim === -1 ? product : product * dim), 1);
  const total = x.shape.reduce((product, dim) => product * dim, 1);
  return shape.map((dim) => (dim === -1 ? total / known : dim));
}

function broadcastAxes(from: Shape, to: Shape): number[] {
  const extra = from.length - to.length;
  return from.flatMap((dim, axis) => (axis < extra || (to[axis - extra] === 1 && dim !== 1) ? [axis] : []));
}

function scalarTensor(value: number, dtype: GraphDType): HostTensor {
  if (dtype === "f32") return f32Tensor([], [value]);
  if (dtype === "i64") return i64Tensor([], [value]);
  if (dtype === "i32") return { dtype, shape: [], data: Int32Array.of(value) };
  return { dtype, shape: [], data: Uint8Array.of(value ? 1 : 0) };
}

function requireGroups(heads: number, kv: number): void {
  if (heads % kv === 0) return;
  throw new EspalierError({ where: "graph: attention, k", expected: `kv heads that divide ${heads}`, found: `${kv}` });
}

/** [length, keys]: 0 where key <= query + keys - length, else {@link maskedScore}. */
export function causalMask(length: number, keys = length): HostTensor {
  const data = new Float32Array(length * keys);
  for (let t = 0; t < length; t++) data.fill(maskedScore, t * keys + t + keys - length + 1, (t + 1) * keys);
  return f32Tensor([length, keys], data);
}

/** bool [length, length]: key <= query. */
function causalPairs(length: number): HostTensor {
  const data = new Uint8Array(length * length);
  for (let t = 0; t < length; t++) data.fill(1, t * length, t * length + t + 1);
  return { dtype: "bool", shape: [length, length], data };
}
