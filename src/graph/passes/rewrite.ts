import { internal } from "../../base/index.js";
import { createGraph, type GraphBuilder } from "../builder.js";
import type { OpKind } from "../ops/params.js";
import type { Graph, Node, NodeOf, Value } from "../types.js";

/** A pass: a graph with the same inputs and outputs, cheaper. */
export type Pass = (graph: Graph) => Graph;

/**
 * Offered each node in order, with its operands in the new graph. Returns the values that take the place of its
 * outputs, or nothing to copy the node. What was copied needlessly is left for dead code elimination.
 */
export type Visit = (node: Node, inputs: readonly Value[], g: GraphBuilder) => readonly Value[] | undefined;

/** Rebuilds a graph through the builder, so that every rewritten type is checked by the shape rules again. */
export function rewrite(graph: Graph, visit: Visit): Graph {
  const g = createGraph(graph.name);
  const renamed = new Map<number, Value>();
  const find = (value: Value) => renamed.get(value.id) ?? internal(`graph ${graph.name}: value ${value.id} undefined`);
  for (const { name, value } of graph.inputs) renamed.set(value.id, g.input(name, value.shape, value.dtype));
  for (const { value, tensor } of graph.constants) renamed.set(value.id, g.constant(tensor));
  for (const node of graph.nodes) {
    const inputs = node.inputs.map(find);
    const results = visit(node, inputs, g) ?? copyNode(node as NodeOf<OpKind>, inputs, g);
    node.outputs.forEach((output, i) => {
      renamed.set(output.id, results[i]!);
    });
  }
  for (const { name, value } of graph.outputs) g.output(name, find(value));
  return { name: g.name, inputs: g.inputs, constants: g.constants, nodes: g.nodes, outputs: g.outputs };
}

function copyNode<K extends OpKind>(node: NodeOf<K>, inputs: readonly Value[], g: GraphBuilder): readonly Value[] {
  return g.apply(node.kind, inputs, node.params);
}

/** The node that computes each value of the graph under construction. */
export function producers(): { of(value: Value, g: GraphBuilder): Node | undefined } {
  const known = new Map<number, Node>();
  let seen = 0;
  return {
    of(value, g) {
      for (; seen < g.nodes.length; seen++) {
        for (const output of g.nodes[seen]!.outputs) known.set(output.id, g.nodes[seen]!);
      }
      return known.get(value.id);
    },
  };
}

/** How often each value is read, by nodes and as an output. */
export function useCounts(graph: Graph): ReadonlyMap<number, number> {
  const counts = new Map<number, number>();
  const count = (value: Value) => counts.set(value.id, (counts.get(value.id) ?? 0) + 1);
  for (const node of graph.nodes) node.inputs.forEach(count);
  for (const { value } of graph.outputs) count(value);
  return counts;
}
