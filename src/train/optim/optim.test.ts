import { describe, expect, test } from "vitest";
import { createRng } from "../../base/index.js";
import { createRuntime } from "../../runtime/index.js";
import { createLayout } from "../parameters.js";
import { adamw, type Optimiser, sgd } from "./index.js";

const layout = createLayout([
  { name: "norm", shape: [5] },
  { name: "matrix", shape: [3, 4] },
]);
const isMatrix = (i: number) => i < layout.matrixSize;

/** Gradients of four steps with the factor of clipping, the last one a jump of six orders. */
function gradientsOf(step: number): { gradients: Float32Array; gradientScale: number } {
  const rng = createRng(step);
  const size = step === 3 ? 1e6 : 1;
  return {
    gradients: Float32Array.from({ length: layout.size }, () => rng.normal() * size),
    gradientScale: step === 3 ? 1e-6 : 1 / (step + 1),
  };
}

async function run(optimiser: Optimiser, learningRate: number): Promise<Float32Array> {
  const runtime = await createRuntime();
  const parameters = Float32Array.from({ length: layout.size }, (_, i) => i / 10 - 0.8);
  const state = optimiser.init(layout);
  const update = optimiser.createUpdate(runtime);
  for (let step = 0; step < 4; step++) {
    await update({ layout, parameters, state, learningRate, ...gradientsOf(step) });
  }
  await runtime.dispose();
  return parameters;
}

function expectNear(found: Float32Array, expected: readonly number[], tolerance: number): void {
  found.forEach((value, i) => {
    expect(Math.abs(value - expected[i]!), `element ${i}: ${value}, ${expected[i]}`).toBeLessThan(tolerance);
  });
}

describe("adamw", () => {
  test("follows algorithm 2 of arXiv:1711.05101, decay on matrices only", async () => {
    const [rate, beta1, beta2, epsilon, decay] = [0.01, 0.9, 0.95, 1e-4, 0.1];
    const expected = Array.from({ length: layout.size }, (_, i) => {
      let [p, m, v] = [i / 10 - 0.8, 0, 0];
      for (let step = 0; step < 4; step++) {
        const { gradients, gradientScale } = gradientsOf(step);
        const g = gradients[i]! * gradientScale;
        m = beta1 * m + (1 - beta1) * g;
        v = beta2 * v + (1 - beta2) * g * g;
        const mHat = m / (1 - beta1 ** (step + 1));
        const vHat = v / (1 - beta2 ** (step + 1));
        p -= rate * (mHat / (Math.sqrt(vHat) + epsilon) + (isMatrix(i) ? decay * p : 0));
      }
      return p;
    });
    expectNear(await run(adamw({ beta1, beta2, epsilon, weightDecay: decay }), rate), expected, 1e-6);
  });
});

describe("sgd", () => {
  test.each([0, 0.9])("with momentum %d", async (momentum) => {
    const expected = Array.from({ length: layout.size }, (_, i) => {
      let [p, u] = [i / 10 - 0.8, 0];
      for (let step = 0; step < 4; step++) {
        const { gradients, gradientScale } = gradientsOf(step);
        u = momentum * u + gradients[i]! * gradientScale;
        p -= 0.01 * u;
      }
      return p;
    });
    expectNear(await run(sgd({ momentum }), 0.01), expected, 1e-6);
  });
});
