import { microsoft } from "../onnx/emitter.js";
import type { TensorType } from "../types.js";
import { type OpDef, requireDType, requireRank, shapeError } from "./def.js";
import { onnxTypeOf } from "./elementwise.js";
import type { OpKind } from "./params.js";

function requireFeatures(kind: OpKind, operand: string, type: TensorType, width: number): void {
  requireDType(kind, operand, type, "f32");
  if (type.shape.length !== 1 || type.shape[0] !== width) throw shapeError(kind, operand, `f32[${width}]`, type);
}

function lastAxis(kind: OpKind, x: TensorType): number {
  requireDType(kind, "operand", x, "f32");
  const width = x.shape.at(-1);
  if (width === undefined) throw shapeError(kind, "operand", "one axis or more", x);
  return width;
}

/** The statistics that a normalisation leaves for its gradient: one per row. */
function statistics(x: TensorType): TensorType {
  return { dtype: "f32", shape: [...x.shape.slice(0, -1), 1] };
}

const softmax: OpDef<"softmax"> = {
  infer: ([x]) => {
    lastAxis("softmax", x!);
    return [x!];
  },
  grad: ({ g, output: p, upstream }) => [
    () => {
      const inner = g.sum(g.mul(upstream, p), { axes: [-1], keepDims: true });
      return g.mul(p, g.sub(upstream, inner));
    },
  ],
  emit: (e, inputs) => [e.one("Softmax", inputs, { attributes: { axis: { int: -1 } } })],
};

const logSoftmax: OpDef<"logSoftmax"> = {
  infer: ([x]) => {
    lastAxis("logSoftmax", x!);
    return [x!];
  },
  grad: ({ g, output, upstream }) => [
    () => g.sub(upstream, g.mul(g.exp(output), g.sum(upstream, { axes: [-1], keepDims: true }))),
  ],
  emit: (e, inputs) => [e.one("LogSoftmax", inputs, { attributes: { axis: { int: -1 } } })],
};

/** Root mean square normalisation, arXiv:1910.07467. Outputs: y, and the inverse RMS of each row. */
const rmsNorm: OpDef<"rmsNorm"> = {
  infer: ([x, w]) => {
    requireFeatures("rmsNorm", "weight", w!, lastAxis("rmsNorm", x!));
    return [x!, statistics(x!)];
  },
  // With r the inverse RMS, d = dy r and u = d x = dy x/rms:
  //   dw = sum of u over rows;  dx = d w - x r^2 (u . w) / width.
  // Row sums are products with vectors, so only five elementwise passes are left.
  grad: ({ g, node, inputs, upstream }) => {
    const [x, w] = [inputs[0]!, inputs[1]!];
    const r = node.outputs[1]!;
    const width = w.shape[0]!;
    const rows = x.shape.reduce((product, dim) => product * dim, 1) / width;
    const scaled = () => g.mul(upstream, r);
    const products = () => g.reshape(g.mul(scaled(), x), [rows, width]);
    return [
      () => {
        const inner = g.matmul(products(), g.reshape(w, [width, 1]), { alpha: 1 / width });
        const pull = g.mul(g.reshape(inner, r.shape), g.mul(r, r));
        return g.sub(g.mul(scaled(), w), g.mul(x, pull));
      },
      () => g.reshape(g.matmul(g.fill([1, rows], 1), products()), [width]),
    ];
  },
  emit: (e, inputs, node) =>
    e.node("SimplifiedLayerNormalization", inputs, {
      attributes: { axis: { int: -1 }, epsilon: { float: node.params.eps }, stash_type: { int: 1 } },
      outputs: [true, e.isRead(node.outputs[1]!)],
    }),
};

/** Layer normalisation, arXiv:1607.06450. Outputs: y, and mean and inverse standard deviation of each row. */
const layerNorm: OpDef<"layerNorm"> = {
  infer: ([x, w, b]) => {
    const width = lastAxis("layerNorm", x!);
    requireFeatures("layerNorm", "weight", w!, width);
    requireFeatures("layerNorm", "bias", b!, width);
    return [x!, statistics(x!), statistics(x!)];
  },
  grad: ({ g, node, inputs, upstream }) => {
    const [x, w, b] = [inputs[0]!, inputs[1]!, inputs[2]!];
    const [, mean, r] = node.outputs;
    const normal = () => g.mul(g.sub(x, mean!), r!);
    return [
      () => {
        const d = g.mul(upstream, w);
        const centred = g.sub(d, g.mean(d, { axes: [-1], keepDims: true }));
        const along = g.mean(g.mul(d, normal()), { axes: [-1], keepDims: true });
        return g.mul(g.sub(centred, g.mul(normal(), along)), r!);
      },
      () => g.reduceTo(g.mul(upstream, normal()), w.shape),
      () => g.reduceTo(upstream, b.shape),
    ];
  },
  emit: (e, inputs, node) =>
    e.node("LayerNormalization", inputs, {
      attributes: { axis: { int: -1 }, epsilon: { float: node.params.eps }, stash_type: { int: 1 } },
      outputs: [true, e.isRead(node.outputs[1]!), e.isRead(node.outputs[2]!)],
    }),
};

/**
 * Rotary position embedding, arXiv:2104.09864 eq. 34: x [B, heads, T, D], cos and sin [B or 1, T, D/2].
 * A rotation's transpose is the rotation back, so the gradient is the operator itself with the sine negated.
 */
const rotary: OpDef<"rotary"> = {
  infer: ([x, cos, sin]) => {
    requireDType("rotary", "operand", x!, "f32");
    requireRank("rotary", "operand", x!, 4);
    const [batch, , length, width] = x!.shape as [number, number, number, number];
    for (const [name, table] of [["cos", cos!] as const, ["sin", sin!] as const]) {
      requireDType("rotary", name, table, "f32");
      const rows = table.shape[0];
      const fits = (rows === 1 || rows === batch) && table.shape[1] === length && table.shape[2] === width / 2;
      if (!fits || table.shape.length !== 3) {
        throw shapeError("rotary", name, `shape [1 or ${batch}, ${length}, ${width / 2}]`, table);
      }
    }
    if (sin!.shape[0] !== cos!.shape[0]) throw shapeError("rotary", "sin", "the shape of cos", sin!);
    return [x!];
  },
  grad: ({ g, node, inputs, upstream }) => [
    () => g.rotary(upstream, inputs[1]!, g.neg(inputs[2]!), node.params),
    null,
    null,
  ],
  emit: (e, [x, cos, sin], { inputs, params }) => {
    const [batch, , length] = inputs[0]!.shape as [number, number, number];
    const rows = inputs[1]!.shape[0]!;
    const table = e.ints([rows * length, inputs[1]!.shape[2]!]);
    // The kernel looks angles up by position; ours come row by row, so position p of batch row b is row b T + p.
    const positions = Array.from({ length: batch * length }, (_, i) => (rows === 1 ? i % length : i));
    const inputNames = [
      x!,
      e.i64(positions, [batch, length]),
      ...[cos!, sin!].map((t) => e.one("Reshape", [t, table])),
    ];
    const attributes = { interleaved: { int: Number(params.pairing === "adjacent") } };
    return [e.one("RotaryEmbedding", inputNames, { domain: microsoft, attributes })];
  },
};

/**
 * The first operand, but not before the others are computed: it puts an order on a graph whose values would otherwise
 * be computed in whatever order ONNX Runtime likes, all of them alive at once. Adds a zero that is made from the first
 * element of each of the others in a way that no optimiser sees through: x > infinity is false for every x.
 */
const after: OpDef<"after"> = {
  infer: ([x, ...others]) => {
    requireDType("after", "operand", x!, "f32");
    others.forEach((other, i) => {
      requireDType("after", `dependency ${i}`, other, "f32");
    });
    return [x!];
  },
  grad: ({ inputs, upstream }) => inputs.map((_, i) => (i === 0 ? () => upstream : null)),
  emit: (e, [x, ...others], { inputs }) => {
    const probes = others.map((other, i) => {
      const rank = inputs[i + 1]!.shape.length;
      const axes = Array.from({ length: rank }, (_, axis) => axis);
      const corner = [e.ints(axes.map(() => 0)), e.ints(axes.map(() => 1)), e.ints(axes)];
      return e.one("Reshape", [rank === 0 ? other : e.one("Slice", [other, ...corner]), e.ints([1])]);
    });
    const joined = probes.length === 1 ? probes[0]! : e.one("Concat", probes, { attributes: { axis: { int: 0 } } });
    const never = e.one("Greater", [joined, e.scalar(Number.POSITIVE_INFINITY, "f32")]);
    const zeros = e.one("Cast", [never], { attributes: { to: { int: onnxTypeOf.f32 } } });
    const zero = e.one("ReduceMax", [zeros, e.ints([0])], { attributes: { keepdims: { int: 0 } } });
    return [e.one("Add", [x!, zero])];
  },
};

const stopGradient: OpDef<"stopGradient"> = {
  infer: ([x]) => [x!],
  grad: { none: "that is its purpose" },
  emit: (e, inputs) => [e.one("Identity", inputs)],
};

/** Inputs: value, then pairs of x and the gradient of value with respect to x. */
const withGradient: OpDef<"withGradient"> = {
  infer: ([value, ...pairs]) => {
    if (value!.shape.length !== 0) throw shapeError("withGradient", "value", "a scalar", value!);
    for (let i = 0; i + 1 < pairs.length; i += 2) {
      const [x, gradient] = [pairs[i]!, pairs[i + 1]!];
      const fits = gradient.shape.length === x.shape.length && gradient.shape.every((dim, at) => dim === x.shape[at]);
      if (!fits) throw shapeError("withGradient", `gradient ${i / 2}`, `shape [${x.shape.join(", ")}]`, gradient);
    }
    return [value!];
  },
  grad: ({ g, inputs, upstream }) => inputs.map((_, i) => (i % 2 === 1 ? () => g.mul(inputs[i + 1]!, upstream) : null)),
  emit: (e, inputs) => [e.one("Identity", [inputs[0]!])],
};

/**
 * Log-probabilities [N] of targets under hidden head^T, which were computed beside it with what their gradient needs.
 * Inputs: values [N], hidden [N, H], head [V, H], slope [N, H] (target row minus expected row of the head), the log of
 * the normaliser [N, 1], targets i64 [N]. Where the head is trained, its gradient computes the logits again.
 */
const headLogProbs: OpDef<"headLogProbs"> = {
  infer: ([values, hidden, head, slope, logSum, targets]) => {
    const [N, H] = hidden!.shape as [number, number];
    const expected: [string, TensorType, readonly number[]][] = [
      ["values", values!, [N]],
      ["hidden", hidden!, [N, H]],
      ["head", head!, [head!.shape[0]!, H]],
      ["slope", slope!, [N, H]],
      ["logSum", logSum!, [N, 1]],
      ["targets", targets!, [N]],
    ];
    for (const [name, type, shape] of expected) {
      const fits = type.shape.length === shape.length && type.shape.every((dim, axis) => dim === shape[axis]);
      if (!fits) throw shapeError("headLogProbs", name, `shape [${shape.join(", ")}]`, type);
    }
    return [values!];
  },
  grad: ({ g, node, inputs, upstream }) => {
    const [, hidden, head, slope, logSum, targets] = inputs;
    const column = () => g.reshape(upstream, [-1, 1]);
    return [
      null,
      () => g.mul(slope!, column()),
      () => g.headGradient(hidden!, head!, { logSum: logSum!, targets: targets!, upstream: column(), ...node.params }),
      null,
      null,
      null,
    ];
  },
  emit: (e, inputs) => [e.one("Identity", [inputs[0]!])],
};

export const networks = {
  softmax,
  logSoftmax,
  rmsNorm,
  layerNorm,
  rotary,
  after,
  stopGradient,
  withGradient,
  headLogProbs,
};
