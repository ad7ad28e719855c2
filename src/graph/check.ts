import { internal } from "../base/index.js";
import { formatType, sameShape, sizeOf } from "../tensor/index.js";
import { ops } from "./ops/index.js";
import type { OpKind } from "./ops/params.js";
import type { Graph, NodeOf, TensorType, Value } from "./types.js";

/**
 * Checks that every value is defined once and before it is read, that every node's types are those that its shape
 * rule gives, and that names are unique. A graph that fails was made by a bug of our own.
 */
export function checkGraph(graph: Graph): void {
  const fail = (message: string) => internal(`graph ${graph.name}: ${message}`);
  const defined = new Map<number, Value>();
  const define = (value: Value) => {
    if (defined.has(value.id)) fail(`value ${value.id} is defined twice`);
    defined.set(value.id, value);
  };
  const requireDefined = (value: Value, reader: string) => {
    const known = defined.get(value.id) ?? fail(`${reader} reads value ${value.id} before it is defined`);
    if (!sameType(known, value))
      fail(`${reader} reads value ${value.id} as ${print(value)}, defined as ${print(known)}`);
  };
  for (const names of [graph.inputs, graph.outputs].map((list) => list.map(({ name }) => name))) {
    if (new Set(names).size !== names.length) fail(`names are not unique: ${names.join(", ")}`);
  }
  for (const { value } of graph.inputs) define(value);
  for (const { value, tensor } of graph.constants) {
    define(value);
    const fits = tensor.dtype === value.dtype && sameShape(tensor.shape, value.shape);
    if (!fits || tensor.data.length !== sizeOf(value.shape)) fail(`constant ${value.id} is not ${print(value)}`);
  }
  for (const node of graph.nodes) {
    for (const input of node.inputs) requireDefined(input, node.kind);
    const types = inferNode(node as NodeOf<OpKind>);
    const fits = types.length === node.outputs.length && types.every((type, i) => sameType(type, node.outputs[i]!));
    if (!fits)
      fail(`${node.kind} gives ${types.map(print).join(", ")}, recorded ${node.outputs.map(print).join(", ")}`);
    for (const output of node.outputs) define(output);
  }
  for (const { name, value } of graph.outputs) requireDefined(value, `output ${name}`);
}

function inferNode<K extends OpKind>(node: NodeOf<K>): readonly TensorType[] {
  return ops[node.kind].infer(node.inputs, node.params);
}

function sameType(a: TensorType, b: TensorType): boolean {
  return a.dtype === b.dtype && sameShape(a.shape, b.shape);
}

function print({ dtype, shape }: TensorType): string {
  return formatType(dtype, shape);
}
