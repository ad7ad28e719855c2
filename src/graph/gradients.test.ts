import { expect, test } from "vitest";
import { angles, caseFeeds, gradientCases, int8Matrix, type OperatorCase } from "../../test/support/operator-cases.js";
import { gradients } from "./autodiff.js";
import { createGraph } from "./builder.js";
import { ops } from "./ops/index.js";
import type { OpKind } from "./ops/params.js";
import { optimise } from "./passes/index.js";
import { interpret } from "./reference/interpret.js";

test.each(Object.entries(gradientCases))("%s: gradient equals central differences", (name, operatorCase) => {
  const { analytic, numeric } = bothGradients(operatorCase, name);
  analytic.forEach((value, i) => {
    expect(Math.abs(value - numeric[i]!), `element ${i}: ${value} against ${numeric[i]}`).toBeLessThan(
      2e-7 * (1 + Math.abs(value)),
    );
  });
});

test("every operator has a gradient case or says why it has no gradient", () => {
  const tested = new Set(Object.keys(gradientCases).map((name) => name.split(",")[0]));
  const untested = (Object.keys(ops) as OpKind[]).filter(
    (kind) => typeof ops[kind].grad === "function" && !tested.has(kind) && !straightThrough.has(kind),
  );
  expect(untested).toEqual([]);
});

/** Operators whose gradient is that of what they round. */
const straightThrough: ReadonlySet<OpKind> = new Set(["int8Linear"]);

test("int8Linear: the gradient is the product with the transposed matrix, rounded likewise", () => {
  const g = createGraph("int8");
  const [x, dy] = [g.input("x", [2, 5]), g.input("dy", [2, 3])];
  const operands = int8Matrix(g, 5, 3);
  const { matrix, steps, back, backSteps } = operands;
  const [dx] = gradients(g, g.sum(g.mul(g.int8Linear(x, operands), dy)), [x]);
  g.output("dx", dx!);
  g.output("expected", g.int8Linear(dy, { matrix: back, steps: backSteps, back: matrix, backSteps: steps }));
  const slopes = Float64Array.of(1, -127, 63.5, 0.5, 2, -0.25);
  const { dx: found, expected } = interpret(g, { x: new Float64Array(10).fill(1), dy: slopes });
  expect(found!.data).toEqual(expected!.data);
  // The first row has steps of 1: 63.5 becomes 64, the even one.
  const { tensor } = g.constants.find(({ value }) => value === back)!;
  const { tensor: widths } = g.constants.find(({ value }) => value === backSteps)!;
  const entry = (n: number, k: number) => Number(tensor.data[n * 5 + k]) * Number(widths.data[k]);
  expect(found!.data[4]).toBeCloseTo(entry(0, 4) - 127 * entry(1, 4) + 64 * entry(2, 4), 9);
});

function bothGradients(operatorCase: OperatorCase, name: string) {
  const { shapes, build } = operatorCase;
  const g = createGraph(name);
  const xs = shapes.map((shape, i) => g.input(`x${i}`, shape));
  const y = build(g, xs);
  // A loss with a different slope at each output element.
  const slopes = angles(g, [...y.shape], (t) => Math.sin(3 * t) + 0.2);
  const loss = y.shape.length === 0 ? y : g.sum(g.mul(y, slopes));
  g.output("loss", loss);
  gradients(g, loss, xs).forEach((gradient, i) => {
    expect(gradient.shape).toEqual(shapes[i]);
    g.output(`d${i}`, gradient);
  });
  const feeds = caseFeeds(operatorCase);
  const graph = optimise(g);
  const results = interpret(graph, feeds);
  const analytic = shapes.flatMap((_, i) => [...results[`d${i}`]!.data]);
  const numeric = shapes.flatMap((_, i) =>
    centralDifferences(feeds, `x${i}`, () => interpret(graph, feeds).loss!.data[0]!),
  );
  return { analytic, numeric };
}

function centralDifferences(feeds: Record<string, Float64Array>, name: string, loss: () => number): number[] {
  const step = 1e-5;
  const x = feeds[name]!;
  return Array.from(x, (value, i) => {
    x[i] = value + step;
    const above = loss();
    x[i] = value - step;
    const below = loss();
    x[i] = value;
    return (above - below) / (2 * step);
  });
}
