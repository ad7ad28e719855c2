import { sameShape } from "../../tensor/index.js";
import type { GraphBuilder } from "../builder.js";
import type { Graph, Node, NodeOf, Value } from "../types.js";
import { producers, rewrite } from "./rewrite.js";

type Producers = ReturnType<typeof producers>;

interface Site {
  g: GraphBuilder;
  inputs: readonly Value[];
  output: Value;
  producer(value: Value): Node | undefined;
  /** The number that a constant scalar or a fill repeats. */
  uniform(value: Value): number | undefined;
}

/** Rules of algebra and of movement that need no cost model: the right side is never dearer. */
export function simplify(graph: Graph): Graph {
  const made = producers();
  return rewrite(graph, (node, inputs, g) => {
    const site: Site = {
      g,
      inputs,
      output: node.outputs[0]!,
      producer: (value) => made.of(value, g),
      uniform: (value) => uniformOf(value, g, made),
    };
    const result = simplifyNode(node, site);
    return result && [result];
  });
}

function simplifyNode(node: Node, site: Site): Value | undefined {
  const { g, inputs } = site;
  switch (node.kind) {
    case "stopGradient":
    case "withGradient":
    case "headLogProbs":
      return inputs[0];
    case "mul":
      return simplifyMul(site);
    case "add":
      return simplifyAdd(site);
    case "sub":
      return site.uniform(inputs[1]!) === 0 ? unchanged(inputs[0]!, site) : undefined;
    case "div":
      return simplifyDiv(site);
    case "neg":
      return inner(site, "neg")?.inputs[0];
    case "scale": {
      const before = inner(site, "scale");
      return before && g.scale(before.inputs[0]!, before.params.factor * node.params.factor);
    }
    case "reshape": {
      const before = inner(site, "reshape");
      return g.reshape(before ? before.inputs[0]! : inputs[0]!, node.params.shape);
    }
    case "transpose":
      return simplifyTranspose(node, site);
    case "matmul":
    case "gemm":
      return simplifyProduct(node, site);
    default:
      return undefined;
  }
}

function inner<K extends Node["kind"]>({ inputs, producer }: Site, kind: K): NodeOf<K> | undefined {
  const node = producer(inputs[0]!);
  return node?.kind === kind ? (node as unknown as NodeOf<K>) : undefined;
}

/** The operand, when it has the type of the result (broadcasting may have widened it). */
function unchanged(value: Value, { output }: Site): Value | undefined {
  return value.dtype === output.dtype && sameShape(value.shape, output.shape) ? value : undefined;
}

function simplifyMul(site: Site): Value | undefined {
  const { g, inputs, output } = site;
  for (const [x, other] of [inputs, [...inputs].reverse()] as [Value, Value][]) {
    const factor = site.uniform(other);
    if (factor === undefined || x.dtype !== "f32" || !sameShape(x.shape, output.shape)) continue;
    return g.scale(x, factor);
  }
  return dropExpand(site, "mul");
}

function simplifyAdd(site: Site): Value | undefined {
  for (const [x, other] of [site.inputs, [...site.inputs].reverse()] as [Value, Value][]) {
    if (site.uniform(other) === 0 && unchanged(x, site)) return x;
  }
  return dropExpand(site, "add");
}

function simplifyDiv(site: Site): Value | undefined {
  const divisor = site.uniform(site.inputs[1]!);
  if (divisor === 1) return unchanged(site.inputs[0]!, site);
  return undefined;
}

/** Operands broadcast by themselves, so an expanded one need not be written out when the other is as large. */
function dropExpand({ g, inputs, output, producer }: Site, kind: "add" | "mul"): Value | undefined {
  const narrow = inputs.map((input) => {
    const node = producer(input);
    return node?.kind === "expand" ? node.inputs[0]! : input;
  }) as [Value, Value];
  for (const [a, b] of [
    [inputs[0]!, narrow[1]],
    [narrow[0], inputs[1]!],
  ] as const) {
    const changed = a !== inputs[0] || b !== inputs[1];
    const whole = a === inputs[0] ? a : b;
    if (changed && sameShape(whole.shape, output.shape)) return g[kind](a, b);
  }
  return undefined;
}

function simplifyTranspose(node: NodeOf<"transpose">, site: Site): Value | undefined {
  const x = site.inputs[0]!;
  // Axes of size 1 may go anywhere without an element moving.
  const moving = node.params.perm.filter((axis) => x.shape[axis] !== 1);
  if (moving.every((axis, i) => i === 0 || axis > moving[i - 1]!)) return site.g.reshape(x, site.output.shape);
  const before = inner(site, "transpose");
  if (!before) return undefined;
  return site.g.transpose(
    before.inputs[0]!,
    node.params.perm.map((axis) => before.params.perm[axis]!),
  );
}

/** Products transpose their operands themselves. */
function simplifyProduct(node: NodeOf<"matmul"> | NodeOf<"gemm">, { g, inputs, producer }: Site): Value | undefined {
  const [a, b] = inputs.map((input) => untransposed(producer(input))) as [Value | undefined, Value | undefined];
  if (!a && !b) return undefined;
  const { transposeA, transposeB, alpha } = node.params;
  const params = { transposeA: transposeA !== Boolean(a), transposeB: transposeB !== Boolean(b), alpha };
  const operands = [a ?? inputs[0]!, b ?? inputs[1]!, ...inputs.slice(2)];
  return g.apply(node.kind, operands, params)[0]!;
}

/** The operand of a transpose that swaps the last two axes and no others. */
function untransposed(node: Node | undefined): Value | undefined {
  if (node?.kind !== "transpose") return undefined;
  const { perm } = node.params;
  const last = perm.length - 1;
  const swaps = perm[last] === last - 1 && perm[last - 1] === last && perm.slice(0, -2).every((axis, i) => axis === i);
  return swaps ? node.inputs[0] : undefined;
}

function uniformOf(value: Value, g: GraphBuilder, made: Producers): number | undefined {
  const node = made.of(value, g);
  if (node?.kind === "fill") return node.params.value;
  if (node?.kind === "expand" || node?.kind === "reshape") return uniformOf(node.inputs[0]!, g, made);
  if (node || value.shape.some((dim) => dim !== 1)) return undefined;
  const constant = g.constants.find((candidate) => candidate.value === value);
  return constant && Number(constant.tensor.data[0]);
}
