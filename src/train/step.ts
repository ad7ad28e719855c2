import { EspalierError } from "../base/index.js";
import {
  createGraph,
  type Graph,
  type GraphBuilder,
  gradients,
  type Node,
  optimise,
  recomputeSegments,
  type Value,
} from "../graph/index.js";
import type { Program, Runtime, Tensors } from "../runtime/index.js";
import { type F32Tensor, f32Tensor } from "../tensor/index.js";
import { type Parameters, viewsOf } from "./parameters.js";

export interface LossValues {
  /** f32 scalar: the sum over this batch, divided by `denominator`. */
  loss: Value;
  /** Further scalars to report, divided likewise. */
  parts?: Readonly<Record<string, Value>>;
  /** The residual stream before every block and after the last: what is kept where the rest is computed again. */
  streams?: readonly Value[];
}

/**
 * A loss as a graph. Besides the parameters it declares its own inputs (`g.input`): those of a batch, and frozen ones.
 *
 * `denominator` is an f32 scalar, the summed weight of all batches of the step, so that a step over several batches
 * equals one over their union.
 */
export type BuildLoss = (
  g: GraphBuilder,
  parameters: Readonly<Record<string, Value>>,
  denominator: Value,
) => LossValues;

/** What a batch adds up to: its share of the step's loss and parts, and (in `gradients`) of the gradient. */
export interface BatchResult {
  loss: number;
  parts: Record<string, number>;
}

export interface StepProgram {
  /** Writes the gradient of the first batch of a step, adds those of the others. */
  run(feeds: Tensors, denominator: number, first: boolean): Promise<BatchResult>;
}

/** Another way to the gradient than one program of the whole loss. */
export interface StepSource {
  /** `gradients` is the flat array that results are written into, laid out like `parameters`. */
  create(runtime: Runtime, name: string, parameters: Parameters, gradients: Float32Array): StepProgram;
}

const denominatorInput = "denominator";
const lossOutput = "loss";
const partPrefix = "part/";
const gradientPrefix = "gradient/";
const sumPrefix = "sum/";
const idsPrefix = "ids/";
const rowsPrefix = "rows/";

/**
 * The graph of one batch: loss, parts and the gradient of every parameter.
 *
 * @param accumulate takes the gradients so far as inputs `sum/NAME` and returns their sums with this batch's
 */
export function buildStep(
  name: string,
  { layout }: Pick<Parameters, "layout">,
  loss: BuildLoss,
  { accumulate = false, recompute = false }: { accumulate?: boolean } & StepOptions = {},
): Graph {
  const g = createGraph(accumulate ? `${name}_accumulate` : name);
  const inputs = Object.fromEntries(layout.places.map(({ name: input, shape }) => [input, g.input(input, shape)]));
  const { loss: total, parts = {}, streams = [] } = loss(g, inputs, g.input(denominatorInput, []));
  if (recompute && streams.length === 0) throw withoutStreams(name);
  const forwardNodes = g.nodes.length;
  const kept = recompute ? streams : [];
  const slopes = gradients(g, total, [...Object.values(inputs), ...kept]);
  const results = slopes.slice(0, layout.places.length);
  g.output(lossOutput, total);
  for (const part in parts) g.output(partPrefix + part, parts[part]!);
  layout.places.forEach(({ name: input, shape }, i) => {
    const own = results[i]!;
    g.output(gradientPrefix + input, accumulate ? g.add(own, g.input(sumPrefix + input, shape)) : own);
  });
  const boundaries = kept.map((value, i) => ({ value, slope: slopes[layout.places.length + i]! }));
  return recompute ? recomputeSegments(g, forwardNodes, boundaries) : g;
}

function withoutStreams(name: string): EspalierError {
  return new EspalierError({
    where: `${name}: recompute`,
    expected: "a loss that names its residual streams",
    found: "one that does not",
    fix: "train without recompute",
  });
}

/**
 * Leaves rows that are added to a gradient (of an embedding) to the caller: in place of `scatterAdd(base, ids, rows)`
 * the graph returns `base` as the gradient, `ids/NAME` and `rows/NAME`. Within one graph the sum would be a second copy
 * of the whole table; done afterwards, in place, it touches the rows only.
 */
export function deferScatters(graph: Graph): Graph {
  const optimised = optimise(graph);
  const producers = new Map(optimised.nodes.flatMap((node) => node.outputs.map((value) => [value.id, node] as const)));
  const readers = new Set(optimised.nodes.flatMap((node) => node.inputs.map(({ id }) => id)));
  const deferred = new Set<Node>();
  const outputs = optimised.outputs.flatMap((output) => {
    const node = producers.get(output.value.id);
    const name = output.name.slice(gradientPrefix.length);
    if (!output.name.startsWith(gradientPrefix) || node?.kind !== "scatterAdd" || readers.has(output.value.id)) {
      return [output];
    }
    deferred.add(node);
    const [base, ids, rows] = node.inputs as [Value, Value, Value];
    return [
      { name: output.name, value: base },
      { name: idsPrefix + name, value: ids },
      { name: rowsPrefix + name, value: rows },
    ];
  });
  return { ...optimised, nodes: optimised.nodes.filter((node) => !deferred.has(node)), outputs };
}

/** Does what `deferScatters` left: adds rows to tables in place, in their order. */
function addRows(results: Tensors, tables: Readonly<Record<string, F32Tensor>>): void {
  for (const output of Object.keys(results).filter((candidate) => candidate.startsWith(rowsPrefix))) {
    const name = output.slice(rowsPrefix.length);
    const table = tables[name]!.data;
    const rows = results[output]!.data as Float32Array;
    const ids = results[idsPrefix + name]!.data;
    const width = rows.length / ids.length;
    for (let row = 0; row < ids.length; row++) {
      const [from, to] = [row * width, Number(ids[row]) * width];
      for (let i = 0; i < width; i++) table[to + i]! += rows[from + i]!;
    }
  }
}

export interface StepOptions {
  /** The inside of blocks is computed again in the backward sweep instead of being kept. Defaults to false. */
  recompute?: boolean;
}

/** Compiles the step; `gradients` is the flat array that its results are written into. */
export function createStep(
  runtime: Runtime,
  name: string,
  parameters: Parameters,
  gradientsFlat: Float32Array,
  loss: BuildLoss,
  options: StepOptions = {},
): StepProgram {
  const tables = viewsOf(parameters.layout, gradientsFlat);
  const views = Object.entries(tables);
  const into = Object.fromEntries(views.map(([parameter, view]) => [gradientPrefix + parameter, view]));
  const sums = Object.fromEntries(views.map(([parameter, view]) => [sumPrefix + parameter, view]));
  const compile = (accumulate: boolean) =>
    runtime.compile(deferScatters(buildStep(name, parameters, loss, { ...options, accumulate })));
  let fresh: Promise<Program> | undefined;
  let adding: Promise<Program> | undefined;

  return {
    async run(feeds, denominator, first) {
      if (first) fresh ??= compile(false);
      else adding ??= compile(true);
      const program = await (first ? fresh! : adding!);
      const all = { ...parameters.tensors, ...feeds, [denominatorInput]: f32Tensor([], [denominator]) };
      const results = await program.run(first ? all : { ...all, ...sums }, into);
      addRows(results, tables);
      return resultOf(results);
    },
  };
}

function resultOf(outputs: Tensors): BatchResult {
  const scalar = (name: string) => (outputs[name]!.data as Float32Array)[0]!;
  const names = Object.keys(outputs).filter((name) => name.startsWith(partPrefix));
  return {
    loss: scalar(lossOutput),
    parts: Object.fromEntries(names.map((name) => [name.slice(partPrefix.length), scalar(name)])),
  };
}
