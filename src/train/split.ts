/**
 * @module One graph of a forward and a backward sweep as two programs: what is dear in the first and read by the second
 * is an output of the one and an input of the other; the rest of it is computed again (arXiv:1604.06174).
 */
import type { Graph, Node } from "../graph/index.js";

type NamedValue = Graph["outputs"][number];

export interface JointGraph {
  graph: Graph;
  /** Nodes of the forward sweep: so many from the beginning. */
  forwardNodes: number;
  /** Results of the forward sweep by name; all outputs of `graph` are results of the backward sweep. */
  results: readonly NamedValue[];
}

export interface SplitGraph {
  forward: Graph;
  backward: Graph;
  /** Outputs of the forward program and inputs of the backward one, by name. */
  kept: readonly NamedValue[];
}

/** Keeps the results of forward nodes of the given kinds, where the backward sweep reads them. */
export function splitGraph({ graph, forwardNodes, results }: JointGraph, kinds: readonly Node["kind"][]): SplitGraph {
  const [first, second] = [graph.nodes.slice(0, forwardNodes), graph.nodes.slice(forwardNodes)];
  const dear = first.filter(({ kind }) => kinds.includes(kind));
  const again = [...first.filter((node) => !dear.includes(node)), ...second];
  const read = liveValues(again, graph.outputs);
  const kept = dear
    .flatMap(({ outputs }) => outputs)
    .filter(({ id }) => read.has(id))
    .map((value, i) => ({ name: `kept/${i}`, value }));
  const needed = liveValues(first, [...results, ...kept]);
  return {
    forward: {
      ...graph,
      name: `${graph.name}_forward`,
      inputs: graph.inputs.filter(({ value }) => needed.has(value.id)),
      nodes: first,
      outputs: [...results, ...kept],
    },
    backward: {
      ...graph,
      name: `${graph.name}_backward`,
      inputs: [...graph.inputs.filter(({ value }) => read.has(value.id)), ...kept],
      nodes: again.filter(({ outputs }) => outputs.some(({ id }) => read.has(id))),
    },
    kept,
  };
}

function liveValues(nodes: readonly Node[], outputs: readonly NamedValue[]): ReadonlySet<number> {
  const live = new Set(outputs.map(({ value }) => value.id));
  for (const { inputs, outputs: own } of [...nodes].reverse()) {
    if (own.some(({ id }) => live.has(id))) for (const { id } of inputs) live.add(id);
  }
  return live;
}
