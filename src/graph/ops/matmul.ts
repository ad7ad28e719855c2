import type { GraphBuilder } from "../builder.js";
import { microsoft } from "../onnx/emitter.js";
import type { TensorType, Value } from "../types.js";
import { type OpDef, requireDType, requireRank, shapeError } from "./def.js";
import type { MatmulParams, OpKind } from "./params.js";

function productType(kind: OpKind, a: TensorType, b: TensorType, params: MatmulParams): TensorType {
  requireDType(kind, "operand 0", a, "f32");
  requireDType(kind, "operand 1", b, "f32");
  const rank = a.shape.length;
  if (rank < 2) throw shapeError(kind, "operand 0", "two axes or more", a);
  requireRank(kind, "operand 1", b, rank);
  const batch = a.shape.slice(0, -2);
  batch.forEach((dim, axis) => {
    if (b.shape[axis] !== dim) throw shapeError(kind, "operand 1", `batch axes [${batch.join(", ")}]`, b);
  });
  const [rows, inner] = lastTwo(a, params.transposeA);
  const [innerB, columns] = lastTwo(b, params.transposeB);
  if (inner !== innerB) throw shapeError(kind, "operand 1", `an inner axis of ${inner}`, b);
  return { dtype: "f32", shape: [...batch, rows, columns] };
}

function lastTwo({ shape }: TensorType, transposed: boolean): [number, number] {
  const [first, second] = [shape[shape.length - 2]!, shape[shape.length - 1]!];
  return transposed ? [second, first] : [first, second];
}

/** Gradients of `alpha op(a) op(b)` for every combination of transposes, again as products of the same kind. */
function productGrads(
  g: GraphBuilder,
  [a, b]: readonly Value[],
  { transposeA, transposeB, alpha }: MatmulParams,
  dy: Value,
): [() => Value, () => Value] {
  return [
    () =>
      transposeA
        ? g.matmul(b!, dy, { transposeA: transposeB, transposeB: true, alpha })
        : g.matmul(dy, b!, { transposeB: !transposeB, alpha }),
    () =>
      transposeB
        ? g.matmul(dy, a!, { transposeA: true, transposeB: transposeA, alpha })
        : g.matmul(a!, dy, { transposeA: !transposeA, alpha }),
  ];
}

function gemmAttributes({ transposeA, transposeB, alpha }: MatmulParams) {
  return { transA: { int: Number(transposeA) }, transB: { int: Number(transposeB) }, alpha: { float: alpha } };
}

const matmul: OpDef<"matmul"> = {
  infer: ([a, b], params) => [productType("matmul", a!, b!, params)],
  grad: ({ g, node, inputs, upstream }) => productGrads(g, inputs, node.params, upstream),
  emit: (e, inputs, node) => {
    const attributes = gemmAttributes(node.params);
    if (node.inputs[0]!.shape.length === 2) return [e.one("Gemm", inputs, { attributes })];
    return [e.one("FusedMatMul", inputs, { domain: microsoft, attributes })];
  },
};

const gemm: OpDef<"gemm"> = {
  infer: ([a, b, c], params) => {
    requireRank("gemm", "operand 0", a!, 2);
    const product = productType("gemm", a!, b!, params);
    requireDType("gemm", "operand 2", c!, "f32");
    const padded = [1, 1, ...c!.shape].slice(-2);
    if (c!.shape.length > 2 || padded.some((dim, axis) => dim !== 1 && dim !== product.shape[axis])) {
      throw shapeError("gemm", "operand 2", `a shape that broadcasts to [${product.shape.join(", ")}]`, c!);
    }
    return [product];
  },
  grad: ({ g, node, inputs, upstream }) => [
    ...productGrads(g, inputs, node.params, upstream),
    () => g.reduceTo(upstream, inputs[2]!.shape),
  ],
  emit: (e, inputs, node) => [e.one("Gemm", inputs, { attributes: gemmAttributes(node.params) })],
};

export const products = { matmul, gemm };
