/** @module For tests: a loss graph fed by nested numbers, computed in float64 and by ONNX Runtime, with gradients. */
import { createGraph, type GraphBuilder, gradients, interpret, type Value } from "../graph/index.js";
import type { Runtime } from "../runtime/index.js";
import { f32Tensor, type HostTensor, i64Tensor } from "../tensor/index.js";

export type Nested = number | readonly Nested[];

export const flat = (x: Nested): number[] => (typeof x === "number" ? [x] : x.flatMap(flat));

function shapeOf(x: Nested): number[] {
  return typeof x === "number" ? [] : [x.length, ...shapeOf(x[0]!)];
}

/** A graph under construction whose inputs come with what is fed. */
export interface Inputs {
  g: GraphBuilder;
  /** f32 input, of the numbers' shape or another with as many elements. */
  input(x: Nested, shape?: readonly number[]): Value;
  /** i64 input. */
  ids(x: Nested, shape?: readonly number[]): Value;
}

export interface Computed {
  values: Readonly<Record<string, Value>>;
  /** Name of a gradient: the scalar and what it is taken with respect to. */
  gradients?: Readonly<Record<string, readonly [loss: Value, wrt: Value]>>;
}

export interface LossGraph {
  graph: GraphBuilder;
  feeds: Readonly<Record<string, readonly number[]>>;
}

/** Outputs bear the names of the values and gradients. */
export function buildLoss(compute: (inputs: Inputs) => Computed): LossGraph {
  const g = createGraph("loss");
  const feeds: Record<string, number[]> = {};
  const declare = (x: Nested, shape: readonly number[] = shapeOf(x), dtype?: "i64") => {
    const name = `x${Object.keys(feeds).length}`;
    feeds[name] = flat(x);
    return g.input(name, shape, dtype);
  };
  const computed = compute({ g, input: (x, shape) => declare(x, shape), ids: (x, shape) => declare(x, shape, "i64") });
  for (const [name, value] of Object.entries(computed.values)) g.output(name, value);
  for (const [name, [loss, wrt]] of Object.entries(computed.gradients ?? {})) {
    g.output(name, gradients(g, loss, [wrt])[0]!);
  }
  return { graph: g, feeds };
}

export type Results = Readonly<Record<string, readonly number[]>>;

export function inFloat64({ graph, feeds }: LossGraph): Results {
  const outputs = interpret(graph, feeds);
  return Object.fromEntries(Object.entries(outputs).map(([name, { data }]) => [name, [...data]]));
}

export async function inRuntime(runtime: Runtime, { graph, feeds }: LossGraph): Promise<Results> {
  const tensors: Record<string, HostTensor> = {};
  for (const { name, value } of graph.inputs) {
    const make = value.dtype === "i64" ? i64Tensor : f32Tensor;
    tensors[name] = make([...value.shape], feeds[name]!);
  }
  const program = await runtime.compile(graph);
  const outputs = await program.run(tensors);
  const results = Object.entries(outputs).map(([name, tensor]) => [name, Array.from(tensor!.data, Number)] as const);
  await program.dispose();
  return Object.fromEntries(results);
}

/** f32 [S, S T] from masks [S][T]: rows of one width, laid end to end. */
export function membershipOf(mask: readonly (readonly number[])[]): number[][] {
  return mask.map((row, s) => mask.flatMap((other, o) => (o === s ? row : other.map(() => 0))));
}
