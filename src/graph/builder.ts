import { EspalierError } from "../base/index.js";
import type { HostTensor, Shape } from "../tensor/index.js";
import { createLosses } from "./losses.js";
import { lookupMethods, movementMethods, productMethods, reductionMethods } from "./methods/arrays.js";
import { constantMethods, elementwiseMethods } from "./methods/elementwise.js";
import { attentionMethods, controlMethods, networkMethods } from "./methods/networks.js";
import { onnxTypeOf } from "./ops/elementwise.js";
import { ops } from "./ops/index.js";
import type { OpKind, OpParams } from "./ops/params.js";
import type { Constant, Graph, GraphDType, NamedValue, Node, TensorType, Value } from "./types.js";

/**
 * Builds one graph, checking the type of every operation as it is added.
 *
 * A builder is itself a {@link Graph}: pass it to `gradients`, `optimise`, `printGraph` or `emitOnnx` as it stands.
 */
export type GraphBuilder = GraphCore & GraphMethods & ReturnType<typeof createLosses>;
export type GraphMethods = ReturnType<typeof createMethods>;

export interface GraphCore extends Graph {
  /** Declares an input. Defaults to f32. */
  input(name: string, shape: Shape, dtype?: GraphDType): Value;
  constant(tensor: HostTensor): Value;
  output(name: string, value: Value): void;
  /** Adds any operation of the table; the named methods below call this. */
  apply<K extends OpKind>(kind: K, inputs: readonly Value[], params: OpParams[K]): readonly Value[];
}

export function createGraph(name: string): GraphBuilder {
  const core = createCore(name);
  const g = { ...core, ...createMethods(core) };
  return { ...g, ...createLosses(g) };
}

function createCore(name: string): GraphCore {
  const inputs: NamedValue[] = [];
  const constants: Constant[] = [];
  const nodes: Node[] = [];
  const outputs: NamedValue[] = [];
  let nextId = 0;
  const fresh = ({ dtype, shape }: TensorType): Value => ({ id: nextId++, dtype, shape });

  return {
    name,
    inputs,
    constants,
    nodes,
    outputs,
    input(inputName, shape, dtype = "f32") {
      requireFreshName("input", inputName, inputs);
      requireDims(inputName, shape);
      const value = fresh({ dtype, shape: [...shape] });
      inputs.push({ name: inputName, value });
      return value;
    },
    constant(tensor) {
      const value = fresh({ dtype: graphDTypeOf(tensor), shape: tensor.shape });
      constants.push({ value, tensor });
      return value;
    },
    output(outputName, value) {
      requireFreshName("output", outputName, outputs);
      outputs.push({ name: outputName, value });
    },
    apply(kind, operands, params) {
      const types = ops[kind].infer(operands, params);
      const results = types.map(fresh);
      // The table pairs each kind with its own parameters; a union of nodes cannot express that for a generic kind.
      nodes.push({ kind, inputs: [...operands], params, outputs: results } as unknown as Node);
      return results;
    },
  };
}

function requireFreshName(what: string, name: string, taken: readonly NamedValue[]): void {
  if (!taken.some((other) => other.name === name)) return;
  throw new EspalierError({ where: `graph: ${what} "${name}"`, expected: "a name of its own", found: "it twice" });
}

function requireDims(name: string, shape: Shape): void {
  if (shape.every((dim) => Number.isInteger(dim) && dim > 0)) return;
  throw new EspalierError({
    where: `graph: input "${name}"`,
    expected: "positive whole sizes (graphs are compiled per shape)",
    found: `[${shape.join(", ")}]`,
  });
}

function graphDTypeOf({ dtype }: HostTensor): GraphDType {
  if (dtype in onnxTypeOf) return dtype as GraphDType;
  const expected = `one of ${Object.keys(onnxTypeOf).join(", ")}`;
  throw new EspalierError({ where: "graph: constant", expected, found: dtype });
}

/** The named operations. Axes may be negative. */
function createMethods(core: GraphCore) {
  return {
    ...constantMethods(core),
    ...elementwiseMethods(core),
    ...productMethods(core),
    ...reductionMethods(core),
    ...movementMethods(core),
    ...lookupMethods(core),
    ...networkMethods(core),
    ...attentionMethods(core),
    ...controlMethods(core),
  };
}
