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

/** Level of 8 bits that stands for zero. */
export const int8Zero = 128;

/**
 * x [M, K] times a constant matrix, [M, N]: few rows, so that the time is that of reading the matrix.
 *
 * Operands: x, levels u8 [N, blocks, B] (zero is 128, K is padded to a multiple of B) and the step of each block
 * [N * blocks]. Both must be constants: ONNX Runtime packs them once. Blocks of x are rounded likewise.
 */
const int8BlockLinear: OpDef<"int8BlockLinear"> = {
  infer: ([x, levels, steps]) => {
    requireDType("int8BlockLinear", "x", x!, "f32");
    requireDType("int8BlockLinear", "levels", levels!, "u8");
    requireDType("int8BlockLinear", "steps", steps!, "f32");
    const [rows, inner] = x!.shape as [number, number];
    const [columns, blocks, size] = levels!.shape as [number, number, number];
    if (blocks !== Math.ceil(inner / size))
      throw shapeError("int8BlockLinear", "levels", `${Math.ceil(inner / size)} blocks for ${inner} inputs`, levels!);
    if (steps!.shape.join() !== `${columns * blocks}`)
      throw shapeError("int8BlockLinear", "steps", `shape [${columns * blocks}]`, steps!);
    return [{ dtype: "f32", shape: [rows, columns] }];
  },
  grad: { none: "it is for sampling; training rounds by channel, with a matrix for the gradient" },
  emit: (e, inputs, node) => {
    const [columns, , size] = node.inputs[1]!.shape as [number, number, number];
    const attributes = {
      K: { int: node.inputs[0]!.shape[1]! },
      N: { int: columns },
      bits: { int: 8 },
      block_size: { int: size },
      accuracy_level: { int: 4 },
    };
    return [e.one("MatMulNBits", inputs, { domain: microsoft, attributes })];
  },
};

export const int8 = { int8Linear, int8BlockLinear };
