import type { Runtime } from "../../runtime/index.js";
import { createFlatProgram } from "../chunks.js";
import type { Optimiser, Update } from "./types.js";

export interface SgdOptions {
  /** Share of the last step's velocity that is kept. Defaults to 0. */
  momentum?: number;
}

/** Gradient descent with heavy-ball momentum: u' = momentum u + c g, p' = p - rate u'. */
export function sgd({ momentum = 0 }: SgdOptions = {}): Optimiser {
  return {
    description: `sgd ${JSON.stringify({ momentum })}`,
    init: ({ size }) => ({ step: 0, arrays: momentum === 0 ? {} : { u: new Float32Array(size) }, scalars: {} }),
    createUpdate: (runtime) => (momentum === 0 ? createPlainUpdate(runtime) : createMomentumUpdate(runtime, momentum)),
  };
}

function createPlainUpdate(runtime: Runtime): Update {
  const program = createFlatProgram(runtime, "sgd", { arrays: ["p", "g"], scalars: ["k"] }, (g, x, s) => ({
    p: g.sub(x.p!, g.mul(x.g!, s.k!)),
  }));
  return async ({ layout, parameters, gradients, state, learningRate, gradientScale }) => {
    state.step += 1;
    const scalars = { k: learningRate * gradientScale };
    await program.run({ arrays: { p: parameters, g: gradients }, scalars }, 0, layout.size);
  };
}

function createMomentumUpdate(runtime: Runtime, momentum: number): Update {
  const program = createFlatProgram(
    runtime,
    "sgd_momentum",
    { arrays: ["p", "g", "u"], scalars: ["momentum", "scale", "k"] },
    (g, x, s) => {
      const u = g.add(g.mul(x.u!, s.momentum!), g.mul(x.g!, s.scale!));
      return { u, p: g.sub(x.p!, g.mul(u, s.k!)) };
    },
  );
  return async ({ layout, parameters, gradients, state, learningRate, gradientScale }) => {
    state.step += 1;
    const arrays = { p: parameters, g: gradients, u: state.arrays.u! };
    await program.run({ arrays, scalars: { momentum, scale: gradientScale, k: learningRate } }, 0, layout.size);
  };
}
