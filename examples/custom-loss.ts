/** A loss of one's own as a graph, its gradient checked by hand, then trained: fits a plane robustly among outliers. */
import { createGraph, createRuntime, gradients, train } from "espalier";
import { createRng } from "espalier/base";
import { f32Tensor } from "espalier/tensor";
import { adamw, type BuildLoss, cosine, createParameters } from "espalier/train";

const rows = 256;
const truth = [2, -1, 0.5];
const rng = createRng(0);
const x = f32Tensor(
  [rows, 3],
  Float32Array.from({ length: rows * 3 }, () => rng.normal()),
);
const y = f32Tensor([rows, 1]);
for (let i = 0; i < rows; i++) {
  const clean = truth.reduce((sum, w, j) => sum + w * x.data[3 * i + j]!, 0);
  y.data[i] = i % 10 === 0 ? clean + 20 : clean; // every tenth is far off
}

/** Log-cosh error: quadratic near zero, linear far out. log cosh e = |e| + softplus(-2 |e|) - log 2. */
const robust: BuildLoss = (g, { plane }, denominator) => {
  const size = g.abs(g.sub(g.linear(g.input("x", [rows, 3]), plane!), g.input("y", [rows, 1])));
  const errors = g.addScalar(g.add(size, g.softplus(g.scale(size, -2))), -Math.LN2);
  return { loss: g.div(g.sum(errors), denominator) };
};

// Gradients are values of the same graph. By hand: d/dw mean(log cosh(w x - y)) = -mean(x tanh(y)) at w = 0.
const g = createGraph("gradient");
const w = g.input("w", [1, 3]);
const { loss } = robust(g, { plane: w }, g.scalar(rows));
g.output("gradient", gradients(g, loss, [w])[0]!);
const runtime = await createRuntime();
const program = await runtime.compile(g);
const { gradient } = await program.run({ w: f32Tensor([1, 3]), x, y });
const byHand = [0, 1, 2].map((j) => -y.data.reduce((sum, v, i) => sum + x.data[3 * i + j]! * Math.tanh(v), 0) / rows);
console.log("gradient", fixed(gradient!.data as Float32Array), "by hand", fixed(byHand));

const parameters = createParameters([{ name: "plane", shape: [1, 3] }]);
const steps = 300;
const { losses } = await train({
  ...{ runtime, stage: "robust plane", parameters, loss: robust, steps, learningRate: 0.05, schedule: cosine() },
  optimiser: adamw({ weightDecay: 0 }),
  batches: () => ({ feeds: { x, y }, weight: rows, tokens: rows }),
});
console.log(`loss ${losses[0]!.toFixed(3)} -> ${losses.at(-1)!.toFixed(3)}`);
console.log("found", fixed(parameters.flat), "truth", fixed(truth));
await runtime.dispose();

function fixed(values: Iterable<number>): string {
  return Array.from(values, (value) => value.toFixed(3)).join(" ");
}
