import type { Graph, Node, Value } from "../types.js";

/** Removes nodes and constants that no output depends on. Inputs stay: they are the program's signature. */
export function removeDeadCode(graph: Graph): Graph {
  const live = liveValues(graph);
  const renamed = new Map<number, Value>();
  const renew = (value: Value) => renamed.get(value.id) ?? value;
  const nodes: Node[] = [];
  for (const node of graph.nodes) {
    if (!node.outputs.some((output) => live.has(output.id))) continue;
    const [first, ...rest] = node.inputs.map(renew);
    if (node.kind !== "after") {
      nodes.push({ ...node, inputs: node.inputs.map(renew) } as Node);
      continue;
    }
    // An order among values that are not computed is no order.
    const waited = rest.filter((value) => live.has(value.id));
    if (waited.length > 0) nodes.push({ ...node, inputs: [first!, ...waited] });
    else renamed.set(node.outputs[0]!.id, first!);
  }
  const constants = graph.constants.filter(({ value }) => live.has(value.id));
  return {
    ...graph,
    constants,
    nodes,
    outputs: graph.outputs.map(({ name, value }) => ({ name, value: renew(value) })),
  };
}

/** What the outputs need. `after` needs its first operand only: it waits for the others, if they are computed. */
function liveValues(graph: Graph): ReadonlySet<number> {
  const live = new Set(graph.outputs.map(({ value }) => value.id));
  for (const node of [...graph.nodes].reverse()) {
    if (!node.outputs.some((output) => live.has(output.id))) continue;
    for (const input of node.kind === "after" ? node.inputs.slice(0, 1) : node.inputs) live.add(input.id);
  }
  return live;
}
