import { checkGraph } from "../check.js";
import type { Graph } from "../types.js";
import { removeDeadCode } from "./dead-code.js";
import { dedupe } from "./dedupe.js";
import { foldConstants } from "./fold.js";
import { fuse } from "./fuse.js";
import type { Pass } from "./rewrite.js";
import { simplify } from "./simplify.js";

/** Each pass makes work for the next; simplification runs again on what deduplication brought together. */
const pipeline: readonly Pass[] = [
  simplify,
  removeDeadCode,
  foldConstants,
  dedupe,
  simplify,
  removeDeadCode,
  fuse,
  removeDeadCode,
  fuse, // scatters that the first round brought together
  removeDeadCode,
];

/** The graph as ONNX Runtime should see it. Inputs, outputs and results stay; the graph is checked after each pass. */
export function optimise(graph: Graph): Graph {
  checkGraph(graph);
  return pipeline.reduce((current, pass) => {
    const next = pass(current);
    checkGraph(next);
    return next;
  }, graph);
}
