import { microsoft } from "../onnx/emitter.js";
import type { TensorType } from "../types.js";
import { type OpDef, requireDType, requireRank, shapeError } from "./def.js";

/**
 * Scaled dot-product attention with grouped query heads, arXiv:1706.03762 eq. 1 and arXiv:2305.13245.
 *
 * Operands: q [B, kv, group T, D], k [B, kv, S, D], v [B, kv, S, Dv] and, if any, an additive mask [T, S] or [B, T, S].
 * The query heads of one kv head are laid below each other, so that grouping costs nothing and repeats no keys.
 * Outputs: o [B, kv, group T, Dv] and the probabilities, kept for the gradient.
 */
export const attention: { attention: OpDef<"attention"> } = {
  attention: {
    infer: ([q, k, v, mask], { group }) => {
      for (const [name, operand] of [["q", q!] as const, ["k", k!] as const, ["v", v!] as const]) {
        requireDType("attention", name, operand, "f32");
        requireRank("attention", name, operand, 4);
      }
      const [batch, heads, rows, width] = q!.shape as [number, number, number, number];
      const length = k!.shape[2]!;
      requireShape("k", k!, [batch, heads, length, width]);
      requireShape("v", v!, [batch, heads, length, v!.shape[3]!]);
      if (rows % group !== 0) throw shapeError("attention", "q", `rows in groups of ${group}`, q!);
      if (mask) requireMask(mask, batch, rows / group, length);
      return [
        { dtype: "f32", shape: [batch, heads, rows, v!.shape[3]!] },
        { dtype: "f32", shape: [batch, heads, rows, length] },
      ];
    },
    // dS = P (dP - rowsum(dP P)), and rowsum(dP P) = rowsum(dO O) (arXiv:2205.14135 appendix B.2), which is D wide
    // instead of S. Mask and scale need no pass of their own: masked P are zero, and the scale rides on the products.
    grad: ({ g, node, inputs, output, upstream }) => {
      const [q, k, v] = [inputs[0]!, inputs[1]!, inputs[2]!];
      const p = node.outputs[1]!;
      const alpha = node.params.scale;
      const scores = () => {
        const inner = g.sum(g.mul(upstream, output), { axes: [-1], keepDims: true });
        return g.mul(p, g.sub(g.matmul(upstream, v, { transposeB: true }), inner));
      };
      return [
        () => g.matmul(scores(), k, { alpha }),
        () => g.matmul(scores(), q, { transposeA: true, alpha }),
        () => g.matmul(p, upstream, { transposeA: true }),
        ...(inputs.length > 3 ? [null] : []),
      ];
    },
    emit: (e, [q, k, v, mask], { inputs, outputs, params }) => {
      const product = { transB: { int: 1 }, alpha: { float: params.scale } };
      const scores = e.one("FusedMatMul", [q!, k!], { domain: microsoft, attributes: product });
      const masked = mask ? addMask(scores, mask) : scores;
      const p = e.one("Softmax", [masked], { attributes: { axis: { int: -1 } } });
      return [e.one("MatMul", [p, v!]), p];

      function addMask(plain: string, additive: string): string {
        const [batch, heads, rows, length] = outputs[1]!.shape as [number, number, number, number];
        const perRow = inputs[3]!.shape.length === 3;
        const grouped = params.group > 1;
        const open = grouped ? [batch, heads, params.group, rows / params.group, length] : outputs[1]!.shape;
        const axes = [batch, ...open.slice(1, -2).map(() => 1), rows / params.group, length];
        const lined = perRow ? e.one("Reshape", [additive, e.ints(axes)]) : additive;
        if (!grouped) return e.one("Add", [plain, lined]);
        return e.one("Reshape", [
          e.one("Add", [e.one("Reshape", [plain, e.ints(open)]), lined]),
          e.ints(outputs[1]!.shape),
        ]);
      }
    },
  },
};

function requireShape(operand: string, type: TensorType, shape: readonly number[]): void {
  if (type.shape.some((dim, axis) => dim !== shape[axis])) {
    throw shapeError("attention", operand, `shape [${shape.join(", ")}]`, type);
  }
}

function requireMask(mask: TensorType, batch: number, length: number, keys: number): void {
  requireDType("attention", "mask", mask, "f32");
  const perRow = mask.shape.length === 3;
  const expected = perRow ? [batch, length, keys] : [length, keys];
  if (mask.shape.length !== expected.length) throw shapeError("attention", "mask", "two or three axes", mask);
  requireShape("mask", mask, expected);
}
