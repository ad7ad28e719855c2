import { allocate, type HostTensor, type Shape, sizeOf } from "../../tensor/index.js";
import type { OpKind } from "../ops/params.js";
import { type Array64, array64 } from "../reference/arrays.js";
import { evaluateNode, numbersOf } from "../reference/interpret.js";
import type { Graph, GraphDType, Node, NodeOf } from "../types.js";
import { rewrite } from "./rewrite.js";

/** Results larger than this stay computed: a big constant costs more to store and load than to make. */
const largestFolded = 4096;

/** Computes small expressions of constants now. */
export function foldConstants(graph: Graph): Graph {
  const constants = new Map(graph.constants.map(({ value, tensor }) => [value.id, tensor]));
  return rewrite(graph, (node, _, g) => {
    if (!isFoldable(node, constants)) return undefined;
    const inputs = node.inputs.map((input) => toArray64(constants.get(input.id)!));
    const results = evaluateNode(node as NodeOf<OpKind>, inputs);
    return node.outputs.map((output, i) => {
      const tensor = fromArray64(output.dtype, output.shape, results[i]!.data);
      constants.set(output.id, tensor);
      return g.constant(tensor);
    });
  });
}

function isFoldable(node: Node, constants: ReadonlyMap<number, HostTensor>): boolean {
  if (node.kind === "fill") return false; // already as small as it gets
  return (
    node.inputs.every((input) => constants.has(input.id)) &&
    node.outputs.every((output) => sizeOf(output.shape) <= largestFolded)
  );
}

function toArray64(tensor: HostTensor): Array64 {
  return array64(tensor.shape, numbersOf(tensor.data));
}

function fromArray64(dtype: GraphDType, shape: Shape, numbers: Float64Array): HostTensor {
  if (dtype === "i64") return { dtype, shape, data: BigInt64Array.from(numbers, BigInt) };
  const data = allocate(dtype, numbers.length);
  data.set(numbers);
  return { dtype, shape, data };
}
