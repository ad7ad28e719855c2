import { EspalierError } from "../../base/index.js";
import { type HostTensor, i64Tensor, type Shape } from "../../tensor/index.js";
import { onnxTypeOf } from "../ops/elementwise.js";
import { ops } from "../ops/index.js";
import type { OpKind } from "../ops/params.js";
import { constantKey } from "../print.js";
import type { Graph, GraphDType, NodeOf, Value } from "../types.js";
import type { Attribute, Emitter, OnnxNode } from "./emitter.js";
import { createProtoWriter, type ProtoWriter } from "./proto.js";

export interface EmitOnnxOptions {
  /** Constants of at least so many bytes go to an external file. Defaults to none; needed beyond 2 GB. */
  externalBytes?: number;
  /** Name under which the model looks its external data up. Defaults to "weights.bin". */
  externalName?: string;
}

export interface OnnxModel {
  /** A serialised `ModelProto`. */
  readonly bytes: Uint8Array;
  /** Large constants, when there are any: contents and the name by which the model refers to them. */
  readonly externalData?: { readonly path: string; readonly data: Uint8Array };
}

const irVersion = 9;
const opset = 20;

/** The graph as an ONNX model, one to one: run `optimise` first. */
export function emitOnnx(graph: Graph, options: EmitOnnxOptions = {}): OnnxModel {
  const emission = emitNodes(graph);
  const external = createExternal(options);
  const model = createProtoWriter();
  model.varint(1, irVersion);
  model.text(2, "espalier");
  model.message(7, (proto) => writeGraph(proto, graph, emission, external));
  writeOpset(model, "", opset);
  writeOpset(model, "com.microsoft", 1);
  const data = external.finish();
  return { bytes: checkSize(graph, model.finish()), ...(data && { externalData: data }) };
}

/** Protocol buffers end at 2 GB. */
function checkSize(graph: Graph, bytes: Uint8Array): Uint8Array {
  if (bytes.length < 2 ** 31) return bytes;
  throw new EspalierError({
    where: `ONNX model of graph ${graph.name}`,
    expected: "less than 2 GB",
    found: `${bytes.length} bytes`,
    fix: "make large constants inputs, or set `externalBytes`",
  });
}

interface Emission {
  nodes: readonly OnnxNode[];
  initializers: ReadonlyMap<string, HostTensor>;
}

function emitNodes(graph: Graph): Emission {
  const nodes: OnnxNode[] = [];
  const initializers = new Map<string, HostTensor>();
  const names = new Map<number, string>();
  const read = readValues(graph);
  const emitter = createEmitter(nodes, initializers, read);

  for (const { name, value } of graph.inputs) names.set(value.id, name);
  for (const { value, tensor } of graph.constants) {
    if (read.has(value.id)) names.set(value.id, emitter.initializer(tensor));
  }
  for (const node of graph.nodes) {
    const inputs = node.inputs.map((input) => names.get(input.id)!);
    const results = emitNode(emitter, inputs, node as NodeOf<OpKind>);
    node.outputs.forEach((output, i) => {
      names.set(output.id, results[i]!);
    });
  }
  return { nodes: resultsLast(nameOutputs(graph, nodes, names)), initializers };
}

function emitNode<K extends OpKind>(emitter: Emitter, inputs: readonly string[], node: NodeOf<K>): readonly string[] {
  return ops[node.kind].emit(emitter, inputs, node);
}

function readValues(graph: Graph): ReadonlySet<number> {
  const read = new Set(graph.outputs.map(({ value }) => value.id));
  for (const node of graph.nodes) for (const input of node.inputs) read.add(input.id);
  return read;
}

function createEmitter(nodes: OnnxNode[], initializers: Map<string, HostTensor>, read: ReadonlySet<number>): Emitter {
  const byContent = new Map<string, string>();
  let nextName = 0;
  const emitter: Emitter = {
    node(opType, inputs, { domain = "", attributes = {}, outputs = 1 } = {}) {
      const wanted = typeof outputs === "number" ? Array.from({ length: outputs }, () => true) : outputs;
      const names = wanted.map((isWanted) => (isWanted ? `%${nextName++}` : ""));
      const last = names.findLastIndex((name) => name !== "");
      nodes.push({ opType, domain, inputs, outputs: names.slice(0, last + 1), attributes });
      return names;
    },
    one: (opType, inputs, options) => emitter.node(opType, inputs, options)[0]!,
    ints: (values) => emitter.initializer(i64Tensor([values.length], values)),
    i64: (values, shape) => emitter.initializer(i64Tensor(shape, values)),
    scalar: (value, dtype) => emitter.initializer(scalarOf(value, dtype)),
    initializer(tensor) {
      const key = constantKey(tensor);
      const known = byContent.get(key);
      if (known) return known;
      const name = `#${byContent.size}`;
      byContent.set(key, name);
      initializers.set(name, tensor);
      return name;
    },
    isRead: (value: Value) => read.has(value.id),
  };
  return emitter;
}

function scalarOf(value: number, dtype: GraphDType): HostTensor {
  if (dtype === "i64") return i64Tensor([], [value]);
  const data = dtype === "f32" ? Float32Array.of(value) : dtype === "i32" ? Int32Array.of(value) : Uint8Array.of(value);
  return { dtype, shape: [], data };
}

function bytesOfData(data: HostTensor["data"]): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** Gives computed outputs their public names; an output that is an input, a constant or a second name is copied. */
function nameOutputs(graph: Graph, nodes: readonly OnnxNode[], names: ReadonlyMap<number, string>): OnnxNode[] {
  const computed = new Set(nodes.flatMap((node) => node.outputs));
  const renamed = new Map<string, string>();
  const copies: OnnxNode[] = [];
  for (const { name, value } of graph.outputs) {
    const inner = names.get(value.id)!;
    if (computed.has(inner) && !renamed.has(inner)) renamed.set(inner, name);
    else copies.push({ opType: "Identity", domain: "", inputs: [inner], outputs: [name], attributes: {} });
  }
  const rename = (name: string) => renamed.get(name) ?? name;
  return [...nodes, ...copies].map((node) => ({
    ...node,
    inputs: node.inputs.map(rename),
    outputs: node.outputs.map(rename),
  }));
}

/**
 * Moves nodes whose results nobody else reads to the end, the first of them last.
 *
 * ONNX Runtime runs a graph in the order of a depth-first search from such nodes, the last of them first. So each
 * result (a gradient of weights) is computed as soon as it can be, while its operands are warm in the cache, and not
 * after everything else with all operands kept until then.
 */
function resultsLast(nodes: readonly OnnxNode[]): OnnxNode[] {
  const read = new Set(nodes.flatMap((node) => node.inputs));
  const isResult = (node: OnnxNode) => !node.outputs.some((output) => read.has(output));
  return [...nodes.filter((node) => !isResult(node)), ...nodes.filter(isResult).reverse()];
}

function writeGraph(proto: ProtoWriter, graph: Graph, { nodes, initializers }: Emission, external: External): void {
  for (const [index, node] of nodes.entries()) proto.message(1, (inner) => writeNode(inner, node, index));
  proto.text(2, graph.name);
  for (const [name, tensor] of initializers) proto.message(5, (inner) => writeTensor(inner, name, tensor, external));
  for (const { name, value } of graph.inputs) proto.message(11, (inner) => writeValueInfo(inner, name, value));
  for (const { name, value } of graph.outputs) proto.message(12, (inner) => writeValueInfo(inner, name, value));
}

function writeNode(proto: ProtoWriter, node: OnnxNode, index: number): void {
  for (const input of node.inputs) proto.text(1, input);
  for (const output of node.outputs) proto.text(2, output);
  proto.text(3, `${node.opType}_${index}`);
  proto.text(4, node.opType);
  for (const [name, attribute] of Object.entries(node.attributes)) {
    proto.message(5, (inner) => writeAttribute(inner, name, attribute));
  }
  if (node.domain) proto.text(7, node.domain);
}

const attributeType = { float: 1, int: 2, string: 3, ints: 7 } as const;

function writeAttribute(proto: ProtoWriter, name: string, attribute: Attribute): void {
  proto.text(1, name);
  if ("float" in attribute) {
    proto.float(2, attribute.float);
    proto.varint(20, attributeType.float);
  } else if ("int" in attribute) {
    proto.varint(3, attribute.int);
    proto.varint(20, attributeType.int);
  } else if ("string" in attribute) {
    proto.text(4, attribute.string);
    proto.varint(20, attributeType.string);
  } else {
    proto.packedVarints(8, attribute.ints);
    proto.varint(20, attributeType.ints);
  }
}

function writeTensor(proto: ProtoWriter, name: string, tensor: HostTensor, external: External): void {
  proto.packedVarints(1, tensor.shape);
  proto.varint(2, onnxTypeOf[tensor.dtype as GraphDType]);
  proto.text(8, name);
  const bytes = bytesOfData(tensor.data);
  if (bytes.length < external.threshold) {
    proto.bytes(9, bytes);
    return;
  }
  const offset = external.add(bytes);
  for (const [key, value] of [
    ["location", external.path] as const,
    ["offset", offset] as const,
    ["length", bytes.length] as const,
  ]) {
    proto.message(13, (entry) => {
      entry.text(1, key);
      entry.text(2, String(value));
    });
  }
  proto.varint(14, 1); // DataLocation.EXTERNAL
}

function writeValueInfo(proto: ProtoWriter, name: string, { dtype, shape }: { dtype: GraphDType; shape: Shape }): void {
  proto.text(1, name);
  proto.message(2, (type) =>
    type.message(1, (tensor) => {
      tensor.varint(1, onnxTypeOf[dtype]);
      tensor.message(2, (dims) => {
        for (const dim of shape) dims.message(1, (size) => size.varint(1, dim));
      });
    }),
  );
}

function writeOpset(model: ProtoWriter, domain: string, version: number): void {
  model.message(8, (proto) => {
    proto.text(1, domain);
    proto.varint(2, version);
  });
}

interface External {
  readonly path: string;
  readonly threshold: number;
  /** Returns the offset at which the bytes will lie. */
  add(bytes: Uint8Array): number;
  finish(): { path: string; data: Uint8Array } | undefined;
}

/** Offsets are multiples of a page, so that a runtime can map the file. */
const pageBytes = 4096;

function createExternal({
  externalBytes = Number.POSITIVE_INFINITY,
  externalName = "weights.bin",
}: EmitOnnxOptions): External {
  const parts: { offset: number; bytes: Uint8Array }[] = [];
  let length = 0;
  return {
    path: externalName,
    threshold: externalBytes,
    add(bytes) {
      const offset = Math.ceil(length / pageBytes) * pageBytes;
      parts.push({ offset, bytes });
      length = offset + bytes.length;
      return offset;
    },
    finish() {
      if (parts.length === 0) return undefined;
      const data = new Uint8Array(length);
      for (const { offset, bytes } of parts) data.set(bytes, offset);
      return { path: externalName, data };
    },
  };
}
