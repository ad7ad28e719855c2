import { expect, test } from "vitest";
import { createRng } from "../../base/index.js";
import { createGraph, type GraphBuilder, gradients, interpret, type Value } from "../../graph/index.js";
import { f32Tensor, i64Tensor } from "../../tensor/index.js";
import { cachedDivergence, type DivergenceOptions, headLoss, headValues, logitDivergence } from "../index.js";

const [N, H, V, K] = [5, 3, 7, 2];
const rng = createRng("heads");
const random = (...shape: number[]) =>
  f32Tensor(
    shape,
    Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => rng.normal()),
  );
const feeds = {
  hidden: random(N, H),
  head: random(V, H),
  teacher: random(N, V),
  weights: f32Tensor([N], [1, 2, 0, 1, 1]),
  denominator: f32Tensor([], [5]),
  ids: i64Tensor([N, K], [0, 3, 6, 2, 1, 5, 4, 0, 2, 1]),
};

type ValuesOf = (g: GraphBuilder, logits: Value, teacher: Value, ids: Value) => Value;

/** Loss and gradients, chunk by chunk or of all logits at once. */
function run(valuesOf: ValuesOf, chunk?: number) {
  const g = createGraph("head");
  const [hidden, head] = [g.input("hidden", [N, H]), g.input("head", [V, H])];
  const [teacher, ids] = [g.input("teacher", [N, V]), g.input("ids", [N, K], "i64")];
  const over = { weights: g.input("weights", [N]), denominator: g.input("denominator", []) };
  const all = valuesOf(g, g.linear(hidden, head), teacher, ids);
  const loss = chunk
    ? headLoss(g, { hidden, head }, { ...over, chunk }, ({ logits, from, to }) =>
        valuesOf(g, logits, g.slice(teacher, 0, from, to), g.slice(ids, 0, from, to)),
      )
    : g.div(g.sum(g.mul(all, over.weights)), over.denominator);
  const [dHidden, dHead] = gradients(g, loss, [hidden, head]);
  for (const [name, value] of Object.entries({ loss, dHidden, dHead })) g.output(name, value!);
  const { loss: found, dHidden: a, dHead: b } = interpret(g, feeds);
  return [found, a, b].flatMap((tensor) => Array.from(tensor!.data, Number));
}

const cases: [string, ValuesOf][] = [
  ...(["forward", "reverse", "js", "mixed"] as const).map((divergence): [string, ValuesOf] => [
    divergence,
    (g, logits, teacher) => logitDivergence(g, logits, teacher, { divergence, mix: 0.3, temperature: 2 }),
  ]),
  [
    "cached",
    (g, logits, teacher, ids) => cachedDivergence(g, logits, g.logSoftmax(g.slice(teacher, 1, 0, K)), ids, {}),
  ],
];

test.each(cases)("%s: chunks of logits give the loss and gradients of all of them", (_, valuesOf) => {
  const [chunked, whole] = [run(valuesOf, 2), run(valuesOf)];
  chunked.forEach((value, i) => {
    expect(Math.abs(value - whole[i]!)).toBeLessThan(1e-6);
  });
  expect(Math.max(...whole.slice(1).map(Math.abs))).toBeGreaterThan(0.01);
});

test("values of every position, in their order", () => {
  const g = createGraph("values");
  const [hidden, head] = [g.input("hidden", [N, H]), g.input("head", [V, H])];
  g.output(
    "y",
    headValues(g, { hidden, head }, ({ logits }) => g.sum(logits, { axes: [1] }), 2),
  );
  g.output("whole", g.sum(g.linear(hidden, head), { axes: [1] }));
  const { y, whole } = interpret(g, feeds);
  expect(y!.shape).toEqual([N]);
  Array.from(y!.data, Number).forEach((value, i) => {
    expect(value).toBeCloseTo(Number(whole!.data[i]), 5);
  });
});

/** A teacher of three tokens, 0.5, 0.3 and 0.2, of which one or two are kept, and a student that gives 0.2, 0.2, 0.6. */
function divergenceOf(kept: number[], options: DivergenceOptions = {}): number {
  const g = createGraph("cached");
  const student = g.input("student", [1, 3]);
  const teacher = g.input("teacher", [1, kept.length]);
  g.output("d", cachedDivergence(g, student, teacher, g.input("ids", [1, kept.length], "i64"), options));
  const p = [0.5, 0.3, 0.2];
  return Number(
    interpret(g, {
      student: f32Tensor([1, 3], [0.2, 0.2, 0.6].map(Math.log)),
      teacher: f32Tensor(
        [1, kept.length],
        kept.map((id) => Math.log(p[id]!)),
      ),
      ids: i64Tensor([1, kept.length], kept),
    }).d!.data[0],
  );
}

test("what the kept tokens leave is one token more", () => {
  const [p, q] = [0.5, 0.2];
  const forward = p * Math.log(p / q) + (1 - p) * Math.log((1 - p) / (1 - q));
  const reverse = q * Math.log(q / p) + (1 - q) * Math.log((1 - q) / (1 - p));
  expect(divergenceOf([0])).toBeCloseTo(forward, 6);
  expect(divergenceOf([0], { divergence: "reverse" })).toBeCloseTo(reverse, 6);
  expect(divergenceOf([0], { divergence: "mixed", mix: 0.25 })).toBeCloseTo(0.25 * forward + 0.75 * reverse, 6);
  const middle = (p + q) / 2;
  const half = (x: number) => 0.5 * (x * Math.log(x / middle) + (1 - x) * Math.log((1 - x) / (1 - middle)));
  expect(divergenceOf([0], { divergence: "js" })).toBeCloseTo(half(p) + half(q), 6);
});

test("more kept tokens see more, and all but one see everything", () => {
  const whole = 0.5 * Math.log(0.5 / 0.2) + 0.3 * Math.log(0.3 / 0.2) + 0.2 * Math.log(0.2 / 0.6);
  expect(divergenceOf([0, 1])).toBeCloseTo(whole, 6);
  expect(divergenceOf([1])).toBeLessThan(divergenceOf([1, 2]) + 1e-7);
});
