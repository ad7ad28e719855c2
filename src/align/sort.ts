/**
 * @module Sorting inside a graph, for losses over a whole batch of pairs: the operators have no sort, and a batch has
 * tens of pairs, so ranks come from all pairwise comparisons, O(P^2), and the sorted vector from the permutation matrix
 * that they make. The permutation is constant almost everywhere, so gradients flow through the values alone.
 */
import type { GraphBuilder, Value } from "../graph/index.js";
import { i64Tensor } from "../tensor/index.js";

/**
 * x in ascending order, [P]; equal values keep their order.
 *
 * @param counts f32 [P]: entries with 0 come last, whatever their values
 */
export function sortAscending(g: GraphBuilder, x: Value, counts?: Value): Value {
  const size = x.shape[0]!;
  const matrix = g.stopGradient(permutation(g, x, counts)); // [P, P]
  return g.reshape(g.matmul(matrix, g.reshape(x, [size, 1])), [size]);
}

/** f32 [P]: 1 for as many entries as count, then 0: the counts of a sorted vector. */
export function countedFirst(g: GraphBuilder, counts: Value): Value {
  const size = counts.shape[0]!;
  const counted = g.sum(g.cast(g.greater(counts, g.scalar(0)), "f32"));
  return g.cast(g.less(g.constant(indices([size])), g.cast(counted, "i64")), "f32");
}

/** f32 [P, P]: row r has its 1 at the entry of rank r. */
function permutation(g: GraphBuilder, x: Value, counts: Value | undefined): Value {
  const size = x.shape[0]!;
  const ranks = g.sum(g.cast(precedes(g, x, counts), "f32"), { axes: [1] }); // [P]
  const rows = g.constant(indices([size, 1]));
  return g.cast(g.equal(rows, g.reshape(g.cast(ranks, "i64"), [1, size])), "f32");
}

/** bool [P, P]: entry j comes before entry i. */
function precedes(g: GraphBuilder, x: Value, counts: Value | undefined): Value {
  const size = x.shape[0]!;
  const earlier = g.less(g.constant(indices([1, size])), g.constant(indices([size, 1])));
  const before = (key: Value, equalToo: Value) => {
    const [other, own] = [g.reshape(key, [1, size]), g.reshape(key, [size, 1])];
    return or(g, g.less(other, own), g.and(g.equal(other, own), equalToo));
  };
  const byValue = before(x, earlier);
  if (!counts) return byValue;
  return before(g.cast(g.not(g.greater(counts, g.scalar(0))), "f32"), byValue);
}

const or = (g: GraphBuilder, a: Value, b: Value) => g.not(g.and(g.not(a), g.not(b)));

/** 0, 1, ... along the axis that is not 1. */
function indices(shape: number[]) {
  const size = Math.max(...shape);
  return i64Tensor(
    shape,
    Array.from({ length: size }, (_, i) => i),
  );
}
