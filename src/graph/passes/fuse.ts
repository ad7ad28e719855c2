import { sameShape } from "../../tensor/index.js";
import type { GraphBuilder } from "../builder.js";
import type { MatmulParams } from "../ops/params.js";
import type { Graph, Node, NodeOf, Value } from "../types.js";
import { producers, rewrite, useCounts } from "./rewrite.js";

/**
 * Joins operations into ones that ONNX Runtime computes in a single kernel:
 *
 * - `add(c, a b)` becomes `gemm(a, b, c)`, so that sums of products (gradients of shared inputs, of chunks, residual
 *   connections, biases) are accumulated inside the product;
 * - `scale(a b)` becomes a product with alpha;
 * - `add(base, scatterAdd(0, ids, rows))` becomes `scatterAdd(base, ids, rows)` (tied embeddings: the rows are added
 *   to the head's gradient without a tensor of zeros), and two scatters in a row become one.
 *
 * Only values that nobody else reads are swallowed.
 */
export function fuse(graph: Graph): Graph {
  const counts = useCounts(graph);
  const single = new Set<number>(); // ids in the new graph
  const made = producers();
  return rewrite(graph, (node, inputs, g) => {
    node.inputs.forEach((old, i) => {
      if (counts.get(old.id) === 1) single.add(inputs[i]!.id);
      else single.delete(inputs[i]!.id);
    });
    const swallow = (value: Value) => (single.has(value.id) ? made.of(value, g) : undefined);
    const result = fuseNode(node, inputs, g, swallow);
    return result && [result];
  });
}

function fuseNode(
  node: Node,
  inputs: readonly Value[],
  g: GraphBuilder,
  swallow: (value: Value) => Node | undefined,
): Value | undefined {
  if (node.kind === "scatterAdd") return fuseScatter(inputs, swallow(inputs[0]!), g);
  if (node.kind === "scale") return fuseScale(node, swallow(inputs[0]!), g);
  if (node.kind !== "add") return undefined;
  const [a, b] = inputs as [Value, Value];
  return fuseAdd(a, swallow(b), g) ?? fuseAdd(b, swallow(a), g);
}

function fuseScale(node: NodeOf<"scale">, product: Node | undefined, g: GraphBuilder): Value | undefined {
  if (product?.kind !== "matmul") return undefined;
  const [a, b] = product.inputs as [Value, Value];
  return g.matmul(a, b, { ...product.params, alpha: product.params.alpha * node.params.factor });
}

function fuseAdd(base: Value, other: Node | undefined, g: GraphBuilder): Value | undefined {
  if (other?.kind === "matmul") return fuseProduct(base, other.inputs, other.params, g);
  if (other?.kind !== "scatterAdd" || !isZeros(other.inputs[0]!, g)) return undefined;
  if (!sameShape(base.shape, other.outputs[0]!.shape)) return undefined;
  return g.scatterAdd(base, other.inputs[1]!, other.inputs[2]!);
}

/** Each scatter copies its base, so two in a row become one with the rows of both. */
function fuseScatter([, ids, rows]: readonly Value[], first: Node | undefined, g: GraphBuilder): Value | undefined {
  if (first?.kind !== "scatterAdd" || first.inputs[1]!.dtype !== ids!.dtype) return undefined;
  return g.scatterAdd(first.inputs[0]!, g.concat([first.inputs[1]!, ids!], 0), g.concat([first.inputs[2]!, rows!], 0));
}

function fuseProduct(c: Value, [a, b]: readonly Value[], params: MatmulParams, g: GraphBuilder): Value | undefined {
  if (a!.shape.length !== 2 || c.shape.length > 2) return undefined;
  const rows = a!.shape[params.transposeA ? 1 : 0]!;
  const columns = b!.shape[params.transposeB ? 0 : 1]!;
  const full = sameShape(c.shape, [rows, columns]);
  const bias = sameShape(c.shape, [columns]);
  return full || bias ? g.gemm(a!, b!, c, params) : undefined;
}

function isZeros(value: Value, g: GraphBuilder): boolean {
  return g.nodes.some((node) => node.kind === "fill" && node.params.value === 0 && node.outputs[0] === value);
}
