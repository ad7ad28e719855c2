import { createHash } from "node:crypto";
import { formatType, type HostTensor } from "../tensor/index.js";
import type { Graph, Node, Value } from "./types.js";

/**
 * The graph as text, one line a value, numbered in order of appearance: equal graphs print equally whatever order
 * their builder made ids in, and a change shows as a small diff.
 */
export function printGraph(graph: Graph): string {
  const names = new Map<number, string>();
  const nameOf = (value: Value) => names.get(value.id) ?? `?${value.id}`;
  const lines = [`graph ${graph.name}`];
  for (const { name, value } of graph.inputs) {
    names.set(value.id, name);
    lines.push(`  input ${name}: ${formatType(value.dtype, value.shape)}`);
  }
  graph.constants.forEach(({ value, tensor }, i) => {
    names.set(value.id, `#${i}`);
    lines.push(`  #${i}: ${formatType(value.dtype, value.shape)} = ${describeConstant(tensor)}`);
  });
  let next = 0;
  for (const node of graph.nodes) {
    const operands = node.inputs.map(nameOf).join(", ");
    for (const output of node.outputs) names.set(output.id, `%${next++}`);
    const results = node.outputs.map(nameOf).join(", ");
    const types = node.outputs.map((output) => formatType(output.dtype, output.shape)).join(", ");
    lines.push(`  ${results}: ${types} = ${node.kind}(${operands})${describeParams(node)}`);
  }
  for (const { name, value } of graph.outputs) lines.push(`  output ${name} = ${nameOf(value)}`);
  return `${lines.join("\n")}\n`;
}

/** SHA-256 of the text form, which holds the constants' contents or their hashes. */
export function digestGraph(graph: Graph): string {
  return createHash("sha256").update(printGraph(graph)).digest("hex");
}

/** Equal for tensors of equal type and contents. A graph's constants are not changed once they are in it. */
export function constantKey(tensor: HostTensor): string {
  const known = keys.get(tensor);
  if (known) return known;
  const { dtype, shape, data } = tensor;
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  const key = `${formatType(dtype, shape)} ${createHash("sha256").update(bytes).digest("hex")}`;
  keys.set(tensor, key);
  return key;
}

/** Passes ask for the same large constants again and again. */
const keys = new WeakMap<HostTensor, string>();

const printedElements = 8;

function describeConstant(tensor: HostTensor): string {
  if (tensor.data.length <= printedElements) return `{${Array.from(tensor.data, describeNumber).join(", ")}}`;
  return `sha256:${constantKey(tensor).split(" ").at(-1)}`;
}

/** Like String, but keeps the sign of zero. */
function describeNumber(value: number | bigint): string {
  return Object.is(value, -0) ? "-0" : String(value);
}

function describeParams({ params }: Node): string {
  const entries = Object.entries(params).filter(([, value]) => value !== false);
  if (entries.length === 0) return "";
  const describe = (value: unknown) =>
    Array.isArray(value) ? `[${value.join(", ")}]` : typeof value === "number" ? describeNumber(value) : String(value);
  return ` {${entries.map(([name, value]) => `${name}: ${describe(value)}`).join(", ")}}`;
}
