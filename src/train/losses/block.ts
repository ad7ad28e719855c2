import type { GraphBuilder, Value } from "../../graph/index.js";

/**
 * Normalised error of a block's output, MSE(parent, child) / MSE(parent, 0): block-wise local distillation
 * (arXiv:2411.19146 section 3, eq. 1). 0 is a perfect copy, 1 a block that gives zeros.
 *
 * Departures: none. Feed what the block adds to the residual stream, or its whole output, but the same for both.
 *
 * @param parent [N, H], no gradient flows to it
 * @param child [N, H]
 * @returns f32 scalar
 */
export function normalisedError(g: GraphBuilder, parent: Value, child: Value): Value {
  const target = g.stopGradient(parent);
  return g.div(g.sum(g.square(g.sub(target, child))), g.sum(g.square(target)));
}
