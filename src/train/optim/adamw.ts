/**
 * @module AdamW: Adam (arXiv:1412.6980, algorithm 1) with decoupled weight decay (arXiv:1711.05101, algorithm 2).
 *
 * Departures: decay reaches matrices only (norms and biases keep their scale). Moments are stored with a factor taken
 * out, m = a M and v = b V, where a = (1 - beta1) c and b = (1 - beta2) c^2 for gradients scaled by c:
 *
 *   M' = (beta1 a / a') M + g        V' = (beta2 b / b') V + g^2
 *   p' = (1 - rate decay) p - k M' / (sqrt(V') + e)
 *
 * with k and e worked out on the host. These are the same numbers in fewer passes over memory, which is what an update
 * costs, and a clipping factor costs none.
 */
import { createFlatProgram } from "../chunks.js";
import type { Optimiser, OptimiserState, Update } from "./types.js";

export interface AdamWOptions {
  /** Decay of the first moment. Defaults to 0.9. */
  beta1?: number;
  /** Decay of the second moment. Defaults to 0.95. */
  beta2?: number;
  /** Added to the root of the second moment. Defaults to 1e-8. */
  epsilon?: number;
  /** Decoupled decay of matrices, per unit of learning rate. Defaults to 0. */
  weightDecay?: number;
}

export function adamw(options: AdamWOptions = {}): Optimiser {
  const settings = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0, ...options };
  return {
    description: `adamw ${JSON.stringify(settings)}`,
    init: ({ size }) => ({
      step: 0,
      arrays: { m: new Float32Array(size), v: new Float32Array(size) },
      scalars: { a: 1, b: 1 },
    }),
    createUpdate: (runtime) => createUpdate(runtime, settings),
  };
}

function createUpdate(runtime: Parameters<typeof createFlatProgram>[0], settings: Required<AdamWOptions>): Update {
  const program = (decays: boolean) =>
    createFlatProgram(
      runtime,
      decays ? "adamw_decay" : "adamw",
      { arrays: ["p", "g", "m", "v"], scalars: ["keepM", "keepV", "k", "e", ...(decays ? ["keepP"] : [])] },
      (g, x, s) => {
        const m = g.add(g.mul(x.m!, s.keepM!), x.g!);
        const v = g.add(g.mul(x.v!, s.keepV!), g.square(x.g!));
        const step = g.mul(g.div(m, g.add(g.sqrt(v), s.e!)), s.k!);
        return { m, v, p: g.sub(decays ? g.mul(x.p!, s.keepP!) : x.p!, step) };
      },
    );
  const decayed = program(settings.weightDecay !== 0);
  const plain = program(false);

  return async ({ layout, parameters, gradients, state, learningRate, gradientScale }) => {
    const keepP = 1 - learningRate * settings.weightDecay;
    const scalars = { ...nextScalars(state, settings, learningRate, gradientScale), keepP };
    const operands = { arrays: { p: parameters, g: gradients, m: state.arrays.m!, v: state.arrays.v! }, scalars };
    await decayed.run(operands, 0, layout.matrixSize);
    await plain.run(operands, layout.matrixSize, layout.size);
  };
}

function nextScalars(
  state: OptimiserState,
  { beta1, beta2, epsilon }: Required<AdamWOptions>,
  learningRate: number,
  gradientScale: number,
) {
  state.step += 1;
  const a = (1 - beta1) * gradientScale;
  const b = (1 - beta2) * gradientScale ** 2;
  const keepM = (beta1 * state.scalars.a!) / a;
  const keepV = (beta2 * state.scalars.b!) / b;
  state.scalars = { a, b };
  // m hat = a M / (1 - beta1^t); sqrt(v hat) = root sqrt(V).
  const root = Math.sqrt(b / (1 - beta2 ** state.step));
  return { keepM, keepV, k: (learningRate * a) / (1 - beta1 ** state.step) / root, e: epsilon / root };
}
