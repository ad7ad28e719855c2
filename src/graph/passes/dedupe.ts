import { constantKey } from "../print.js";
import type { Graph, Node, Value } from "../types.js";
import { rewrite } from "./rewrite.js";

const commutative: ReadonlySet<string> = new Set(["add", "mul", "maximum", "minimum", "equal", "and"]);

/** Computes equal expressions once: same operator, parameters and operands; constants by content. */
export function dedupe(graph: Graph): Graph {
  const known = new Map<string, readonly Value[]>();
  return rewrite(mergeConstants(graph), (node, inputs, g) => {
    const key = keyOf(node, inputs);
    const results = known.get(key) ?? g.apply(node.kind, inputs, node.params);
    known.set(key, results);
    return results;
  });
}

function keyOf({ kind, params }: Node, inputs: readonly Value[]): string {
  const ids = inputs.map((input) => input.id);
  if (commutative.has(kind)) ids.sort((a, b) => a - b);
  return `${kind}(${ids.join()})${JSON.stringify(params)}`;
}

function mergeConstants(graph: Graph): Graph {
  const byKey = new Map<string, Value>();
  const replaced = new Map<number, Value>();
  const constants = graph.constants.filter(({ value, tensor }) => {
    const key = constantKey(tensor);
    const first = byKey.get(key);
    if (first) replaced.set(value.id, first);
    else byKey.set(key, value);
    return !first;
  });
  if (replaced.size === 0) return graph;
  const renew = (value: Value) => replaced.get(value.id) ?? value;
  const nodes = graph.nodes.map((node) => ({ ...node, inputs: node.inputs.map(renew) }) as Node);
  const outputs = graph.outputs.map(({ name, value }) => ({ name, value: renew(value) }));
  return { ...graph, constants, nodes, outputs };
}
