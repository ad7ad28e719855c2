import { afterAll, beforeAll, expect, test } from "vitest";
import { createRng } from "../src/base/index.js";
import { createGraph, type Graph, gradients, interpret } from "../src/graph/index.js";
import { ops } from "../src/graph/ops/index.js";
import { createRuntime, type Runtime } from "../src/runtime/index.js";
import { f32Tensor, i64Tensor, maxAbsDifference, sizeOf } from "../src/tensor/index.js";
import { caseFeeds, gradientCases, type OperatorCase, valueCases } from "./support/operator-cases.js";
import { trainingStep } from "./support/training-step.js";

let runtime: Runtime;
beforeAll(async () => {
  runtime = await createRuntime({ threads: 1 });
});
afterAll(() => runtime.dispose());

const cases = Object.entries({ ...valueCases, ...gradientCases });

test.each(cases)("%s: ONNX Runtime equals the float64 interpreter", async (name, operatorCase) => {
  const graph = build(name, operatorCase);
  const feeds = caseFeeds(operatorCase);
  const expected = interpret(graph, feeds);
  const found = await run(graph, feeds);
  for (const [output, { shape, data }] of Object.entries(expected)) {
    expect(found[output]!.shape).toEqual(shape);
    data.forEach((value, i) => {
      const difference = Math.abs(Number(found[output]!.data[i]) - value);
      expect(difference, `${output}[${i}], expected ${value}`).toBeLessThan(5e-6 * (1 + Math.abs(value)));
    });
  }
});

test("a training step at sizes off every kernel's tile: ONNX Runtime equals the float64 interpreter", async () => {
  const graph = trainingStep({ B: 2, T: 37, H: 60, heads: 6, kv: 2, F: 130, V: 333 }, { chunk: 30, tile: 100 });
  const rng = createRng(11);
  const feeds: Record<string, Float64Array> = {};
  for (const { name, value } of graph.inputs) {
    const draw =
      value.dtype === "i64" ? () => rng.int(333) : name === "weights" ? () => rng.int(2) : () => rng.normal() / 4;
    feeds[name] = Float64Array.from({ length: sizeOf(value.shape) }, () => Math.fround(draw()));
  }
  const expected = interpret(graph, feeds);
  const found = await run(graph, feeds);
  for (const [output, { data }] of Object.entries(expected)) {
    const scale = data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    expect(maxAbsDifference(found[output]!.data as Float32Array, data), output).toBeLessThan(1e-5 * scale);
  }
});

test("every operator is compared", () => {
  const tested = new Set(cases.flatMap(([name]) => name.split(", ")));
  expect(Object.keys(ops).filter((kind) => !tested.has(kind))).toEqual([]);
});

/** Value and, where there are any, gradients of the case's operands. */
function build(name: string, { shapes, build: buildCase }: OperatorCase): Graph {
  const g = createGraph(name);
  const xs = shapes.map((shape, i) => g.input(`x${i}`, shape));
  const y = buildCase(g, xs);
  g.output("y", y);
  if (!(name in gradientCases)) return g;
  gradients(g, y.shape.length === 0 ? y : g.sum(g.mul(y, y)), xs).forEach((gradient, i) => {
    g.output(`d${i}`, gradient);
  });
  return g;
}

async function run(graph: Graph, feeds: Record<string, Float64Array>) {
  const program = await runtime.compile(graph);
  const tensors = graph.inputs.map(({ name, value: { dtype, shape } }) => {
    return [name, dtype === "i64" ? i64Tensor(shape, feeds[name]!) : f32Tensor(shape, Float32Array.from(feeds[name]!))];
  });
  return program.run(Object.fromEntries(tensors));
}
