import { EspalierError, internal } from "../base/index.js";
import { formatType } from "../tensor/index.js";
import type { GraphBuilder } from "./builder.js";
import type { GradContext, GradRule } from "./ops/def.js";
import { ops } from "./ops/index.js";
import type { OpKind } from "./ops/params.js";
import type { Node, NodeOf, Value } from "./types.js";

/**
 * Extends the graph by the gradients of a scalar with respect to each of `wrt` (reverse mode). Values that the loss
 * does not depend on get zeros.
 *
 * @throws EspalierError when the loss is no f32 scalar, or a value of `wrt` is not f32
 */
export function gradients(g: GraphBuilder, loss: Value, wrt: readonly Value[]): Value[] {
  requireLoss(loss);
  for (const value of wrt) requireFloat(value);
  const forward = [...g.nodes]; // rules append to g.nodes
  const dependent = dependentValues(forward, wrt);
  const tape = createTape(g, dependent);
  tape.add(loss, g.scalar(1));
  for (const node of forward.reverse()) backward(tape, node as NodeOf<OpKind>);
  return wrt.map((value) => tape.of(value) ?? g.fill(value.shape, 0));
}

function requireLoss(loss: Value): void {
  if (loss.dtype === "f32" && loss.shape.length === 0) return;
  const found = formatType(loss.dtype, loss.shape);
  throw new EspalierError({ where: "gradients: loss", expected: "f32[], a scalar", found, fix: "sum or average it" });
}

function requireFloat(value: Value): void {
  if (value.dtype === "f32") return;
  const found = formatType(value.dtype, value.shape);
  throw new EspalierError({ where: "gradients: wrt", expected: "f32 values", found });
}

/** Ids of the values through which a change of `wrt` can reach the loss. */
function dependentValues(nodes: readonly Node[], wrt: readonly Value[]): ReadonlySet<number> {
  const dependent = new Set(wrt.map((value) => value.id));
  for (const node of nodes) {
    if (typeof ops[node.kind].grad !== "function") continue;
    if (!node.inputs.some((input) => dependent.has(input.id))) continue;
    for (const output of node.outputs) dependent.add(output.id);
  }
  return dependent;
}

interface Tape {
  readonly g: GraphBuilder;
  wants(value: Value): boolean;
  of(value: Value): Value | undefined;
  add(value: Value, gradient: Value): void;
}

function createTape(g: GraphBuilder, dependent: ReadonlySet<number>): Tape {
  const found = new Map<number, Value>();
  return {
    g,
    wants: (value) => dependent.has(value.id),
    of: (value) => found.get(value.id),
    add(value, gradient) {
      const known = found.get(value.id);
      found.set(value.id, known ? g.add(known, gradient) : gradient);
    },
  };
}

function backward<K extends OpKind>(tape: Tape, node: NodeOf<K>): void {
  const upstreams = node.outputs.map((output) => tape.of(output));
  if (upstreams.every((upstream) => upstream === undefined)) return;
  const rule = ops[node.kind].grad;
  if (typeof rule !== "function" || !node.outputs.some(tape.wants)) return;
  if (node.kind !== "split" && upstreams.slice(1).some(Boolean)) {
    internal(`gradient through the statistics of ${node.kind}: second derivatives of it are not supported`);
  }
  const terms = (rule as GradRule<K>)(contextOf(tape, node, upstreams));
  node.inputs.forEach((input, i) => {
    const term = terms[i];
    if (term && tape.wants(input)) tape.add(input, term());
  });
}

function contextOf<K extends OpKind>(
  tape: Tape,
  node: NodeOf<K>,
  upstreams: readonly (Value | undefined)[],
): GradContext<K> {
  const { inputs, outputs } = node;
  const upstream = upstreams[0] ?? upstreams.find((value) => value !== undefined)!;
  return { g: tape.g, node, inputs, output: outputs[0]!, upstream, upstreams };
}
