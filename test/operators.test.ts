import { afterAll, beforeAll, expect, test } from "vitest";
import { createGraph, type Graph, gradients, interpret } from "../src/graph/index.js";
import { ops } from "../src/graph/ops/index.js";
import { createRuntime, type Runtime } from "../src/runtime/index.js";
import { f32Tensor } from "../src/tensor/index.js";
import { caseFeeds, gradientCases, type OperatorCase, valueCases } from "./support/operator-cases.js";

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
  const tensors = graph.inputs.map(({ name, value }) => [
    name,
    f32Tensor(value.shape, Float32Array.from(feeds[name]!)),
  ]);
  return program.run(Object.fromEntries(tensors));
}
