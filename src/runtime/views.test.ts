import { expect, test } from "vitest";
import { createGraph, optimise, type Value } from "../graph/index.js";
import { f32Tensor } from "../tensor/index.js";
import { createRuntime } from "./index.js";
import { viewGraph } from "./views.js";

/** y = [2 x[0:2]; x[2:5] x[2:5]] */
function tiled(extra: (g: ReturnType<typeof createGraph>, x: Value, y: Value) => void = () => {}) {
  const g = createGraph("tiled");
  const x = g.input("x", [5, 3]);
  const y = g.concat([g.scale(g.slice(x, 0, 0, 2), 2), g.square(g.slice(x, 0, 2, 5))], 0);
  g.output("y", y);
  extra(g, x, y);
  return g;
}

const x = f32Tensor(
  [5, 3],
  Float32Array.from({ length: 15 }, (_, i) => i),
);
const expected = Array.from({ length: 15 }, (_, i) => (i < 6 ? 2 * i : i * i));

test("slices of inputs and pieces of outputs take the place of the whole", () => {
  const { graph } = viewGraph(optimise(tiled()));
  expect(graph.inputs.map(({ name }) => name)).toEqual(["x[0:2]", "x[2:5]"]);
  expect(graph.outputs.map(({ name }) => name)).toEqual(["y[0:2]", "y[2:5]"]);
  expect(graph.nodes.map(({ kind }) => kind)).toEqual(["scale", "mul"]);
});

test("a whole that is needed besides stays", () => {
  const both = viewGraph(
    optimise(
      tiled((g, x, y) => {
        g.output("sum", g.sum(g.add(x, y)));
      }),
    ),
  ).graph;
  expect(both.inputs.map(({ name }) => name)).toEqual(["x", "x[0:2]", "x[2:5]"]);
  expect(both.outputs.map(({ name }) => name)).toEqual(["y", "sum"]);
});

test("a program gives the same with views, into a given tensor or a new one", async () => {
  const runtime = await createRuntime();
  const program = await runtime.compile(tiled());
  expect([...(await program.run({ x })).y!.data]).toEqual(expected);
  const y = f32Tensor([5, 3]);
  expect((await program.run({ x }, { y })).y).toBe(y);
  expect([...y.data]).toEqual(expected);
  await runtime.dispose();
});

test("inputs that are outputs, and pieces that are, are copied as before", async () => {
  const runtime = await createRuntime();
  const g = createGraph("aliases");
  const input = g.input("x", [5, 3]);
  const doubled = g.scale(input, 2);
  g.output("twice", g.concat([doubled, doubled], 0));
  g.output("with itself", g.concat([input, doubled], 0));
  g.output("top", g.slice(input, 0, 0, 1));
  const outputs = await (await runtime.compile(g)).run({ x });
  const once = [...x.data].map((value) => 2 * Number(value));
  expect([...outputs.twice!.data]).toEqual([...once, ...once]);
  expect([...outputs["with itself"]!.data]).toEqual([...x.data, ...once]);
  expect([...outputs.top!.data]).toEqual([0, 1, 2]);
  await runtime.dispose();
});
