/**
 * @module Activations that are computed again in the backward sweep instead of being kept (arXiv:1604.06174, section 3.1):
 * memory for the inside of one segment instead of all of them, for about one more forward sweep.
 */
import { internal } from "../base/index.js";
import type { Graph, Node, Value } from "./types.js";

/** A value between two segments, and the gradient of the loss with respect to it. */
export interface Boundary {
  value: Value;
  slope: Value;
}

/**
 * Lets the backward sweep read copies of what lies between two neighbouring boundaries, computed from the first of them
 * once the slope of the second is known. The boundaries themselves are kept, and so is what comes before the first (masks,
 * rotary tables) and after the last (the head).
 *
 * @param forwardNodes nodes of the forward sweep: so many from the beginning, in the order of the boundaries
 * @param boundaries in the order in which they are computed
 */
export function recomputeSegments(graph: Graph, forwardNodes: number, boundaries: readonly Boundary[]): Graph {
  const forward = graph.nodes.slice(0, forwardNodes);
  const segments = segmentsOf(forward, boundaries);
  const nodes: Node[] = [...forward];
  let nextId =
    1 + Math.max(...[...graph.nodes.flatMap(({ outputs }) => outputs), ...valuesOf(graph)].map(({ id }) => id));
  const fresh = (value: Value): Value => ({ ...value, id: nextId++ });
  const copies = new Map<number, Value>();

  /** The segment's first boundary, not to be read before the slope of its second is there. */
  const startOf = (segment: Segment): Value => {
    if (segment.start) return segment.start;
    segment.start = fresh(segment.from.value);
    nodes.push({ kind: "after", inputs: [segment.from.value, segment.to.slope], params: {}, outputs: [segment.start] });
    return segment.start;
  };
  const copyOf = (value: Value): Value => {
    const segment = segments.get(value.id);
    if (!segment) return value;
    const found = copies.get(value.id);
    if (found) return found;
    const node = segment.producers.get(value.id)!;
    const inputs = node.inputs.map((input) => (input.id === segment.from.value.id ? startOf(segment) : copyOf(input)));
    const outputs = node.outputs.map(fresh);
    node.outputs.forEach((output, i) => {
      copies.set(output.id, outputs[i]!);
    });
    nodes.push({ ...node, inputs, outputs } as Node);
    return copies.get(value.id)!;
  };

  for (const node of graph.nodes.slice(forwardNodes)) {
    nodes.push({ ...node, inputs: node.inputs.map(copyOf) } as Node);
  }
  return { ...graph, nodes };
}

interface Segment {
  from: Boundary;
  to: Boundary;
  /** Of the values inside it, by id. */
  producers: Map<number, Node>;
  start?: Value;
}

/** The segment of every value that lies inside one. */
function segmentsOf(forward: readonly Node[], boundaries: readonly Boundary[]): ReadonlyMap<number, Segment> {
  const places = boundaries.map(({ value }) =>
    forward.findIndex(({ outputs }) => outputs.some(({ id }) => id === value.id)),
  );
  const inside = new Map<number, Segment>();
  for (let i = 0; i + 1 < boundaries.length; i++) {
    const [start, end] = [places[i]!, places[i + 1]!];
    if (start < 0 || end <= start) internal(`boundary ${i + 1} does not come after boundary ${i} in the forward sweep`);
    const segment: Segment = { from: boundaries[i]!, to: boundaries[i + 1]!, producers: new Map() };
    // The node at `end` makes the second boundary, which is kept.
    for (const node of forward.slice(start + 1, end)) {
      for (const output of node.outputs) {
        segment.producers.set(output.id, node);
        inside.set(output.id, segment);
      }
    }
  }
  return inside;
}

function valuesOf({ inputs, constants }: Graph): Value[] {
  return [...inputs, ...constants].map(({ value }) => value);
}
