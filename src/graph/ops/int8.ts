import { microsoft } from "../onnx/emitter.js";
import { type OpDef, requireDType, shapeError } from "./def.js";

/** Steps of 8 bits on either side of zero. */
export const int8Steps = 127;

/**
 * x [M, K] times a frozen matrix of which 8 bits are kept, [M, N]. Each row of x is rounded to 127 steps of its largest
 * magnitude; sums are whole numbers.
 *
 * Operands: x, the matrix i8 [K, N] with the step of each column [N], and what the gradient needs: the same matrix
 * transposed, rounded on its own, i8 [N, K] with the steps of its columns [K].
 *
 * The gradient is straight-through (arXiv:1308.3432): dx is dy times the transposed matrix, rounded likewise.
 */
const int8Linear: OpDef<"int8Linear"> = {
  infer: ([x, w, steps, back, backSteps]) => {
    requireDType("int8Linear", "x", x!, "f32");
    const [rows, inner] = x!.shape as [number, number];
    const columns = w!.shape[1]!;
    const expected = [
      { name: "x", type: x!, dtype: "f32", shape: [rows, inner] },
      { name: "matrix", type: w!, dtype: "i8", shape: [inner, columns] },
      { name: "steps", type: steps!, dtype: "f32", shape: [columns] },
      { name: "transposed matrix", type: back!, dtype: "i8", shape: [columns, inner] },
      { name: "transposed steps", type: backSteps!, dtype: "f32", shape: [inner] },
    ] as const;
    for (const { name, type, dtype, shape } of expected) {
      requireDType("int8Linear", name, type, dtype);
      if (type.shape.join() !== shape.join()) throw shapeError("int8Linear", name, `shape [${shape.join(", ")}]`, type);
    }
    return [{ dtype: "f32", shape: [rows, columns] }];
  },
  grad: ({ g, inputs: [, w, steps, back, backSteps], upstream }) => [
    () => g.int8Linear(upstream, { matrix: back!, steps: backSteps!, back: w!, backSteps: steps! }),
    ...[null, null, null, null],
  ],
  // Products that share x share its rounding: ONNX Runtime merges equal nodes.
  emit: (e, [x, w, steps], { inputs }) => {
    const rows = inputs[0]!.shape[0]!;
    const last = e.ints([-1]);
    const largest = e.one("ReduceMax", [e.one("Abs", [x!]), last], { attributes: { keepdims: { int: 0 } } });
    const scale = e.one("Mul", [largest, e.scalar(1 / int8Steps, "f32")]);
    // A row of zeros stays one: whatever its step, nothing is left of it.
    const step = e.one("Max", [scale, e.scalar(smallestStep, "f32")]);
    const middle = (shape: readonly number[], length: number) =>
      e.initializer({ dtype: "u8", shape, data: new Uint8Array(length).fill(128) });
    const rounded = e.one("QuantizeLinear", [x!, step, middle([rows], rows)], { attributes: { axis: { int: 0 } } });
    const product = e.one("MatMulIntegerToFloat", [rounded, w!, e.scalar(1, "f32"), steps!, middle([], 1)], {
      domain: microsoft,
    });
    return [e.one("Mul", [product, e.one("Unsqueeze", [step, last])])];
  },
};

const smallestStep = 1e-30;

export const int8 = { int8Linear };
