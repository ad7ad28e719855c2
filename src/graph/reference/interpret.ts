import { EspalierError, internal } from "../../base/index.js";
import { type HostTensor, type Shape, sizeOf } from "../../tensor/index.js";
import type { OpKind } from "../ops/params.js";
import type { Graph, NodeOf } from "../types.js";
import { type Array64, array64 } from "./arrays.js";
import { evaluators } from "./evaluate.js";

/** Values for an input: a host tensor, or plain numbers in row-major order. */
export type Feed = HostTensor | ArrayLike<number>;

/** Runs a graph in float64 in plain JavaScript. Slow; for checks and for folding small constants. */
export function interpret(graph: Graph, feeds: Readonly<Record<string, Feed>>): Record<string, Array64> {
  const values = new Map<number, Array64>();
  for (const { name, value } of graph.inputs) values.set(value.id, feedOf(name, feeds[name], value.shape));
  for (const { value, tensor } of graph.constants) values.set(value.id, array64(value.shape, numbersOf(tensor.data)));
  for (const node of graph.nodes) {
    const inputs = node.inputs.map((input) => values.get(input.id) ?? internal(`value ${input.id} is not computed`));
    const results = evaluateNode(node as NodeOf<OpKind>, inputs);
    node.outputs.forEach((output, i) => {
      values.set(output.id, results[i]!);
    });
  }
  return Object.fromEntries(graph.outputs.map(({ name, value }) => [name, values.get(value.id)!]));
}

export function evaluateNode<K extends OpKind>(node: NodeOf<K>, inputs: readonly Array64[]): readonly Array64[] {
  return evaluators[node.kind](inputs, node);
}

export function numbersOf(data: HostTensor["data"]): Float64Array {
  return data instanceof BigInt64Array ? Float64Array.from(data, Number) : Float64Array.from(data);
}

function feedOf(name: string, feed: Feed | undefined, shape: Shape): Array64 {
  const data = feed === undefined ? undefined : "dtype" in feed ? numbersOf(feed.data) : Float64Array.from(feed);
  if (data?.length === sizeOf(shape)) return array64(shape, data);
  throw new EspalierError({
    where: `interpret: input "${name}"`,
    expected: `${sizeOf(shape)} elements`,
    found: data ? `${data.length}` : "none",
  });
}
