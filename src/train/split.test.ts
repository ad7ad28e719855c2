import { describe, expect, test } from "vitest";
import { createGraph, gradients, interpret } from "../graph/index.js";
import { splitGraph } from "./split.js";

/** y = silu(x A^T) B^T with the gradients of sum(y slope). */
function joint() {
  const g = createGraph("joint");
  const [x, a, b] = [g.input("x", [3, 4]), g.input("a", [5, 4]), g.input("b", [2, 5])];
  const y = g.linear(g.silu(g.linear(x, a)), b);
  const forwardNodes = g.nodes.length;
  const handed = g.sum(g.mul(y, g.input("slope", [3, 2])));
  gradients(g, handed, [x, a, b]).forEach((gradient, i) => {
    g.output(["dx", "da", "db"][i]!, gradient);
  });
  return { graph: g, forwardNodes, results: [{ name: "y", value: y }] };
}

const feeds = {
  x: Float32Array.from({ length: 12 }, (_, i) => Math.sin(i)),
  a: Float32Array.from({ length: 20 }, (_, i) => Math.cos(i)),
  b: Float32Array.from({ length: 10 }, (_, i) => Math.sin(2 * i)),
  slope: Float32Array.from({ length: 6 }, (_, i) => i - 2),
};

function run(graph: Parameters<typeof interpret>[0], given: Record<string, ArrayLike<number>>) {
  return interpret(graph, Object.fromEntries(graph.inputs.map(({ name }) => [name, given[name]!])) as typeof feeds);
}

describe("a graph split in two", () => {
  test("keeps the product that the backward sweep reads, not the last one", () => {
    const whole = joint();
    const { forward, backward, kept } = splitGraph(whole, ["matmul", "gemm"]);
    expect(kept.map(({ value }) => value.shape)).toEqual([[3, 5]]);
    expect(forward.inputs.map(({ name }) => name)).toEqual(["x", "a", "b"]);
    const products = backward.nodes.filter(({ kind }) => kind === "matmul" || kind === "gemm");
    expect(products.length).toBe(4); // two gradients of each product, and neither product itself
    const first = run(forward, feeds);
    const second = run(backward, { ...feeds, "kept/0": first["kept/0"]!.data });
    expect(second).toEqual(run(whole.graph, feeds));
  });

  test("keeps nothing where nothing is named, and computes it again", () => {
    const whole = joint();
    const { forward, backward, kept } = splitGraph(whole, []);
    expect(kept).toEqual([]);
    expect(forward.outputs.map(({ name }) => name)).toEqual(["y"]);
    expect(run(backward, feeds)).toEqual(run(whole.graph, feeds));
  });
});
