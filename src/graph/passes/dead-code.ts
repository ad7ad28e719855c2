import type { Graph, Node } from "../types.js";

/** Removes nodes and constants that no output depends on. Inputs stay: they are the program's signature. */
export function removeDeadCode(graph: Graph): Graph {
  const live = new Set(graph.outputs.map(({ value }) => value.id));
  const kept: Node[] = [];
  for (const node of [...graph.nodes].reverse()) {
    if (!node.outputs.some((output) => live.has(output.id))) continue;
    kept.push(node);
    for (const input of node.inputs) live.add(input.id);
  }
  return { ...graph, constants: graph.constants.filter(({ value }) => live.has(value.id)), nodes: kept.reverse() };
}
