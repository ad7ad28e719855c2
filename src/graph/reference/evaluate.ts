import { roundHalf, sizeOf } from "../../tensor/index.js";
import { int8Steps, int8Zero } from "../ops/int8.js";
import type { OpKind } from "../ops/params.js";
import type { NodeOf } from "../types.js";
import { type Array64, around, array64, map, mapRows, multiply, strides, walk, zip } from "./arrays.js";

type Evaluate<K extends OpKind> = (inputs: readonly Array64[], node: NodeOf<K>) => readonly Array64[];

const unary =
  (f: (x: number) => number) =>
  ([x]: readonly Array64[]) => [map(x!, f)];

const binary = (f: (a: number, b: number) => number) => (inputs: readonly Array64[], node: NodeOf<OpKind>) => [
  zip(node.outputs[0]!.shape, inputs, f as (...values: number[]) => number),
];

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

function reduce(
  [x]: readonly Array64[],
  node: NodeOf<"sum" | "mean" | "max">,
  start: number,
  f: (total: number, value: number) => number,
): Array64 {
  const { axes } = node.params;
  const kept = x!.shape.map((dim, axis) => (axes.includes(axis) ? 1 : dim));
  const own = strides(kept);
  const offsets = walk(
    x!.shape,
    own.map((step, axis) => (axes.includes(axis) ? 0 : step)),
  );
  const result = array64(node.outputs[0]!.shape).data.fill(start);
  for (let i = 0; i < x!.data.length; i++) result[offsets[i]!] = f(result[offsets[i]!]!, x!.data[i]!);
  return array64(node.outputs[0]!.shape, result);
}

function softmaxRow(row: Float64Array): Float64Array {
  const largest = row.reduce((a, b) => Math.max(a, b));
  const powers = row.map((x) => Math.exp(x - largest));
  const total = powers.reduce((a, b) => a + b);
  return powers.map((x) => x / total);
}

function logSoftmaxRow(row: Float64Array): Float64Array {
  const largest = row.reduce((a, b) => Math.max(a, b));
  const total = row.reduce((sum, x) => sum + Math.exp(x - largest), 0);
  return row.map((x) => x - largest - Math.log(total));
}

function slice(x: Array64, axis: number, start: number, end: number): Array64 {
  const { outer, dim, inner } = around(x.shape, axis);
  const result = array64(x.shape.map((old, i) => (i === axis ? end - start : old)));
  const width = (end - start) * inner;
  for (let o = 0; o < outer; o++) {
    result.data.set(x.data.subarray((o * dim + start) * inner, (o * dim + end) * inner), o * width);
  }
  return result;
}

function pasted(target: Array64, x: Array64, axis: number, at: number): Array64 {
  const { outer, dim, inner } = around(target.shape, axis);
  const width = x.shape[axis]! * inner;
  for (let o = 0; o < outer; o++) {
    target.data.set(x.data.subarray(o * width, (o + 1) * width), (o * dim + at) * inner);
  }
  return target;
}

function gather([x, ids]: readonly Array64[], node: NodeOf<"gather">): Array64 {
  const { outer, dim, inner } = around(x!.shape, node.params.axis);
  const result = array64(node.outputs[0]!.shape);
  for (let o = 0; o < outer; o++) {
    ids!.data.forEach((id, i) => {
      const from = (o * dim + id) * inner;
      result.data.set(x!.data.subarray(from, from + inner), (o * ids!.data.length + i) * inner);
    });
  }
  return result;
}

function scatterRows([base, ids, updates]: readonly Array64[]): Array64 {
  const result = array64(base!.shape, base!.data.slice());
  const width = base!.shape[1]!;
  ids!.data.forEach((id, n) => {
    for (let j = 0; j < width; j++) result.data[id * width + j]! += updates!.data[n * width + j]!;
  });
  return result;
}

function scatterLast([base, ids, updates]: readonly Array64[]): Array64 {
  const result = array64(base!.shape, base!.data.slice());
  ids!.data.forEach((id, n) => {
    result.data[n * base!.shape[1]! + id]! += updates!.data[n]!;
  });
  return result;
}

/** y, mean and inverse deviation of each row; RMS normalisation when `centre` is false. */
function normalise(x: Array64, w: Array64, b: Array64 | undefined, eps: number, centre: boolean): Array64[] {
  const means: number[] = [];
  const inverses: number[] = [];
  const y = mapRows(x, (row) => {
    const mean = centre ? row.reduce((a, c) => a + c) / row.length : 0;
    const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / row.length;
    const inverse = 1 / Math.sqrt(variance + eps);
    means.push(mean);
    inverses.push(inverse);
    return row.map((value, i) => (value - mean) * inverse * w.data[i]! + (b ? b.data[i]! : 0));
  });
  const shape = [...x.shape.slice(0, -1), 1];
  const statistics = [means, inverses].map((values) => array64(shape, Float64Array.from(values)));
  return [y, ...(centre ? statistics : statistics.slice(1))];
}

/** Rows of x to 127 steps of their largest magnitude, the even neighbour at halves; sums of whole numbers. */
function int8Product([x, w, steps]: readonly Array64[]): Array64 {
  const [inner, columns] = w!.shape as [number, number];
  const rows = x!.shape[0]!;
  const result = array64([rows, columns]);
  for (let row = 0; row < rows; row++) {
    const own = x!.data.subarray(row * inner, (row + 1) * inner);
    const step = own.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0) / int8Steps;
    for (let k = 0; step > 0 && k < inner; k++) {
      const level = roundEven(own[k]! / step);
      for (let n = 0; n < columns; n++) {
        result.data[row * columns + n]! += level * w!.data[k * columns + n]! * steps!.data[n]! * step;
      }
    }
  }
  return result;
}

/** Blocks of x to 127 steps of their largest magnitude, those of the matrix as they are stored. */
function int8BlockProduct([x, levels, steps]: readonly Array64[]): Array64 {
  const [columns, blocks, size] = levels!.shape as [number, number, number];
  const [rows, inner] = x!.shape as [number, number];
  const result = array64([rows, columns]);
  for (let row = 0; row < rows; row++) {
    for (let block = 0; block < blocks; block++) {
      const [from, end] = [block * size, Math.min((block + 1) * size, inner)];
      const own = x!.data.subarray(row * inner + from, row * inner + end);
      const step = own.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0) / int8Steps;
      const rounded = own.map((value) => (step > 0 ? roundEven(value / step) : 0));
      for (let n = 0; n < columns; n++) {
        const at = n * blocks + block;
        const sum = rounded.reduce((total, level, k) => total + level * (levels!.data[at * size + k]! - int8Zero), 0);
        result.data[row * columns + n]! += sum * step * steps!.data[at]!;
      }
    }
  }
  return result;
}

function roundEven(x: number): number {
  const below = Math.floor(x);
  if (x - below !== 0.5) return Math.round(x);
  return below % 2 === 0 ? below : below + 1;
}

function rotate([x, cos, sin]: readonly Array64[], node: NodeOf<"rotary">): Array64 {
  const [batch, heads, length, width] = x!.shape as [number, number, number, number];
  const half = width / 2;
  const result = array64(x!.shape);
  for (let row = 0; row < batch * heads * length; row++) {
    const tableRow = (cos!.shape[0] === 1 ? 0 : Math.floor(row / (heads * length)) * length) + (row % length);
    for (let i = 0; i < half; i++) {
      const [first, second] = node.params.pairing === "half" ? [i, i + half] : [2 * i, 2 * i + 1];
      const [a, b] = [x!.data[row * width + first]!, x!.data[row * width + second]!];
      const [c, s] = [cos!.data[tableRow * half + i]!, sin!.data[tableRow * half + i]!];
      result.data[row * width + first] = a * c - b * s;
      result.data[row * width + second] = a * s + b * c;
    }
  }
  return result;
}

function attend([q, k, v, mask]: readonly Array64[], { params }: NodeOf<"attention">): Array64[] {
  const scores = multiply(q!, k!, { transposeA: false, transposeB: true, alpha: params.scale });
  const [batch, heads, rows, keys] = scores.shape as [number, number, number, number];
  const length = rows / params.group;
  if (mask) {
    for (let i = 0; i < scores.data.length; i++) {
      const row = Math.floor(i / keys);
      const ofBatch = mask.shape.length === 3 ? Math.floor(row / (heads * rows)) * length : 0;
      scores.data[i]! += mask.data[(ofBatch + (row % length)) * keys + (i % keys)]!;
    }
  }
  const p = mapRows(array64([batch, heads, rows, keys], scores.data), softmaxRow);
  return [multiply(p, v!, { transposeA: false, transposeB: false, alpha: 1 }), p];
}

/** What each operator means, in float64 and without regard for speed: the yardstick for ONNX Runtime and gradients. */
export const evaluators: { readonly [K in OpKind]: Evaluate<K> } = {
  neg: unary((x) => -x),
  exp: unary(Math.exp),
  log: unary(Math.log),
  sqrt: unary(Math.sqrt),
  reciprocal: unary((x) => 1 / x),
  abs: unary(Math.abs),
  sigmoid: unary(sigmoid),
  silu: unary((x) => x * sigmoid(x)),
  tanh: unary(Math.tanh),
  relu: unary((x) => Math.max(x, 0)),
  softplus: unary((x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)))),
  not: unary((x) => (x ? 0 : 1)),
  scale: ([x], { params }) => [map(x!, (value) => value * params.factor)],
  addScalar: ([x], { params }) => [map(x!, (value) => value + params.term)],
  clip: ([x], { params }) => [map(x!, (value) => Math.min(Math.max(value, params.low), params.high))],
  cast: ([x], { params }) => [
    map(x!, params.to === "bool" ? (v) => Number(v !== 0) : params.to === "f32" ? (v) => v : Math.trunc),
  ],
  roundTo: ([x], { params }) => [
    array64(x!.shape, Float64Array.from(roundHalf(Float32Array.from(x!.data), params.to))),
  ],
  add: binary((a, b) => a + b),
  sub: binary((a, b) => a - b),
  mul: binary((a, b) => a * b),
  div: ([a, b], node) => [
    zip(
      node.outputs[0]!.shape,
      [a!, b!],
      node.outputs[0]!.dtype === "f32" ? (x, y) => x! / y! : (x, y) => Math.trunc(x! / y!),
    ),
  ],
  maximum: binary(Math.max),
  minimum: binary(Math.min),
  greater: binary((a, b) => Number(a > b)),
  greaterEqual: binary((a, b) => Number(a >= b)),
  less: binary((a, b) => Number(a < b)),
  equal: binary((a, b) => Number(a === b)),
  and: binary((a, b) => Number(a !== 0 && b !== 0)),
  where: (inputs, node) => [zip(node.outputs[0]!.shape, inputs, (condition, a, b) => (condition ? a! : b!))],
  matmul: ([a, b], { params }) => [multiply(a!, b!, params)],
  gemm: ([a, b, c], { params }) => {
    const product = multiply(a!, b!, params);
    return [zip(product.shape, [product, c!], (x, y) => x! + y!)];
  },
  sum: (inputs, node) => [reduce(inputs, node, 0, (a, b) => a + b)],
  mean: (inputs, node) => {
    const count = inputs[0]!.data.length / sizeOf(node.outputs[0]!.shape);
    return [
      map(
        reduce(inputs, node, 0, (a, b) => a + b),
        (x) => x / count,
      ),
    ];
  },
  max: (inputs, node) => [reduce(inputs, node, Number.NEGATIVE_INFINITY, Math.max)],
  argMax: ([x], node) => [
    array64(node.outputs[0]!.shape, mapRows(x!, (row) => [row.indexOf(row.reduce((a, b) => Math.max(a, b)))]).data),
  ],
  reshape: ([x], { params }) => [array64(params.shape, x!.data)],
  transpose: ([x], { params, outputs }) => {
    const own = strides(x!.shape);
    const offsets = walk(
      outputs[0]!.shape,
      params.perm.map((axis) => own[axis]!),
    );
    return [
      array64(
        outputs[0]!.shape,
        Float64Array.from(offsets, (offset) => x!.data[offset]!),
      ),
    ];
  },
  slice: ([x], { params }) => [slice(x!, params.axis, params.start, params.end)],
  pad: ([x], { params, outputs }) => [pasted(array64(outputs[0]!.shape), x!, params.axis, params.before)],
  concat: (inputs, { params, outputs }) => {
    let at = 0;
    const result = array64(outputs[0]!.shape);
    for (const input of inputs) {
      pasted(result, input, params.axis, at);
      at += input.shape[params.axis]!;
    }
    return [result];
  },
  split: ([x], { params }) => {
    let at = 0;
    return params.sizes.map((size) => {
      at += size;
      return slice(x!, params.axis, at - size, at);
    });
  },
  expand: ([x], { params }) => [zip(params.shape, [x!], (value) => value!)],
  fill: (_, { params }) => [array64(params.shape, new Float64Array(sizeOf(params.shape)).fill(params.value))],
  gather: (inputs, node) => [gather(inputs, node)],
  gatherLast: ([x, ids]) => [
    array64(
      [ids!.data.length],
      ids!.data.map((id, n) => x!.data[n * x!.shape[1]! + id]!),
    ),
  ],
  scatterAdd: (inputs) => [scatterRows(inputs)],
  scatterLast: (inputs) => [scatterLast(inputs)],
  softmax: ([x]) => [mapRows(x!, softmaxRow)],
  logSoftmax: ([x]) => [mapRows(x!, logSoftmaxRow)],
  rmsNorm: ([x, w], { params }) => normalise(x!, w!, undefined, params.eps, false),
  layerNorm: ([x, w, b], { params }) => normalise(x!, w!, b!, params.eps, true),
  int8Linear: (inputs) => [int8Product(inputs)],
  int8BlockLinear: (inputs) => [int8BlockProduct(inputs)],
  rotary: (inputs, node) => [rotate(inputs, node)],
  attention: (inputs, node) => attend(inputs, node),
  after: ([x]) => [x!],
  stopGradient: ([x]) => [x!],
  withGradient: ([x]) => [x!],
  headLogProbs: ([x]) => [x!],
};
