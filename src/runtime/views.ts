/**
 * @module Rows of large tensors without copies. ONNX Runtime copies what is sliced or concatenated; along the first axis
 * both are ranges of the same memory. So a slice of an input becomes an input of its own, fed with a view, and an output
 * that is a concatenation becomes several outputs, written into views of one tensor.
 */
import type { Graph, Node, Value } from "../graph/index.js";
import { type HostTensor, sizeOf } from "../tensor/index.js";
import type { Tensors } from "./session.js";

/** An input or output that stands for some rows of another one. */
export interface Part {
  name: string;
  /** Name of the tensor it is part of. */
  whole: string;
  /** First row, and the row after the last. */
  from: number;
  to: number;
}

export interface ViewedGraph {
  graph: Graph;
  inputs: readonly Part[];
  outputs: readonly Part[];
}

interface PartOfGraph extends Part {
  value: Value;
  /** The node that its existence makes needless. */
  node: Node;
}

/** The graph with parts in place of wholes wherever that saves a copy. Expects an optimised graph. */
export function viewGraph(graph: Graph): ViewedGraph {
  const inputs = slicesOfInputs(graph);
  const outputs = piecesOfOutputs(graph);
  const needless = new Set([...inputs, ...outputs].map(({ node }) => node));
  const nodes = graph.nodes.filter((node) => !needless.has(node));
  const read = new Set(nodes.flatMap((node) => node.inputs.map(({ id }) => id)));
  for (const { value } of graph.outputs) read.add(value.id);
  const sliced = new Set(inputs.map(({ whole }) => whole));
  const pieced = new Set(outputs.map(({ whole }) => whole));
  return {
    graph: {
      ...graph,
      nodes,
      inputs: [...graph.inputs.filter(({ name, value }) => !sliced.has(name) || read.has(value.id)), ...inputs],
      outputs: [...graph.outputs.filter(({ name }) => !pieced.has(name)), ...outputs],
    },
    inputs,
    outputs,
  };
}

/** Tensors of the given names, and views for parts of the tensors. */
export function withParts(tensors: Tensors, parts: readonly Part[], names: ReadonlySet<string>): Tensors {
  const result: Tensors = {};
  for (const name in tensors) if (names.has(name)) result[name] = tensors[name]!;
  for (const { name, whole, from, to } of parts) {
    const tensor = tensors[whole];
    if (tensor) result[name] = rowsOf(tensor, from, to);
  }
  return result;
}

function rowsOf({ dtype, shape, data }: HostTensor, from: number, to: number): HostTensor {
  const width = sizeOf(shape.slice(1));
  return { dtype, shape: [to - from, ...shape.slice(1)], data: data.subarray(from * width, to * width) };
}

function slicesOfInputs({ inputs, nodes }: Graph): PartOfGraph[] {
  const names = new Map(inputs.map(({ name, value }) => [value.id, name]));
  return nodes.flatMap((node) => {
    if (node.kind !== "slice" || node.params.axis !== 0) return [];
    const whole = names.get(node.inputs[0]!.id);
    if (whole === undefined) return [];
    const { start: from, end: to } = node.params;
    return [{ name: `${whole}[${from}:${to}]`, whole, from, to, value: node.outputs[0]!, node }];
  });
}

function piecesOfOutputs({ inputs, nodes, outputs }: Graph): PartOfGraph[] {
  const producers = new Map(nodes.flatMap((node) => node.outputs.map((value) => [value.id, node] as const)));
  const taken = new Set([...inputs, ...outputs].map(({ value }) => value.id));
  const readers = new Set(nodes.flatMap((node) => node.inputs.map(({ id }) => id)));
  return outputs.flatMap(({ name: whole, value }) => {
    const node = producers.get(value.id);
    if (node?.kind !== "concat" || node.params.axis !== 0 || readers.has(value.id)) return [];
    if (outputs.filter((other) => other.value.id === value.id).length > 1) return [];
    // A piece that has another name already would have to be copied after all.
    const ids = node.inputs.map(({ id }) => id);
    if (new Set(ids).size < ids.length || ids.some((id) => taken.has(id) || !producers.has(id))) return [];
    let from = 0;
    return node.inputs.map((piece) => {
      const to = from + piece.shape[0]!;
      const part = { name: `${whole}[${from}:${to}]`, whole, from, to, value: piece, node };
      from = to;
      return part;
    });
  });
}
