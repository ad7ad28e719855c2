/**
 * @module What a model loses when one of its matrices is quantised and all others are left alone: KL from the model itself, for
 * each matrix and type. The model stays in memory; a matrix is replaced there by what its quantised form stands for. What a
 * product in a quantised type loses besides, by rounding the other operand to eight bits, is not in it.
 */

import { batchSize, compareSequence, evaluateRows } from "./comparison.js";
import { allocate, type Block, copyFrom, copyTo, openEvaluation } from "./evaluation.js";
import { type Library, loadLibrary } from "./library.js";
import { readTensor, type TensorFields, typeF32 } from "./native-tensor.js";
import type { Methods } from "./protocol.js";

type Params = Methods["sensitivity"]["params"];

export async function measureSensitivity(
  { gguf, sequences, tensors, importance = {} }: Params,
  threads: number,
  send: (part: Methods["sensitivity"]["part"]) => void,
): Promise<Methods["sensitivity"]["result"]> {
  const library = await loadLibrary();
  const weights = new Map<string, TensorFields>();
  const contextSize = Math.max(...sequences.map((ids) => ids.length));
  let known = false;
  // Weights are operands of the graph's nodes; of the nodes themselves nothing is asked for.
  const onNode = (tensor: bigint) => {
    if (!known) for (const source of readTensor(tensor).sources) noteWeight(weights, source);
    return false;
  };
  const evaluation = await openEvaluation(gguf, { contextSize, batchSize, threads, onNode, writable: true });
  try {
    const truth = sequences.map((ids) => evaluateRows(evaluation, ids));
    known = true;
    const divergence = () =>
      sequences.map((ids, i) => {
        const { kl, tokens } = compareSequence(evaluation, ids, truth[i]!);
        return kl / tokens;
      });
    const results: number[][][] = [];
    const total = tensors.reduce((sum, { types }) => sum + types.length, 0);
    let done = 0;
    for (const { name, types } of tensors) {
      const matrix = openMatrix(library, name, weights.get(name), importance[name]);
      const own: number[][] = [];
      for (const type of types) {
        matrix.replace(type);
        own.push(divergence());
        send({ done: ++done, total });
        await new Promise((resolve) => setImmediate(resolve));
      }
      matrix.restore();
      results.push(own);
    }
    return results;
  } finally {
    evaluation.dispose();
  }
}

function noteWeight(weights: Map<string, TensorFields>, address: bigint): void {
  if (address === 0n) return;
  const tensor = readTensor(address);
  if (tensor.name.endsWith(".weight")) weights.set(tensor.name, tensor);
}

/** One matrix of the model in memory. */
function openMatrix(library: Library, name: string, tensor: TensorFields | undefined, importance?: Float32Array) {
  if (!tensor) throw new Error(`the model has no product with ${name}`);
  const [width, rows] = [tensor.ne[0]!, tensor.ne[1]! * tensor.ne[2]! * tensor.ne[3]!];
  const count = width * rows;
  const original = allocate(library.rowSize(tensor.type, width) * rows);
  const floats = allocate(4 * count);
  const weighing = importance && allocate(4 * width);
  if (weighing) new Float32Array(weighing.bytes.buffer, 0, width).set(importance);
  copyFrom(tensor.data, original);
  const toFloats = (type: number, from: bigint) => {
    if (type === typeF32) copyFrom(from, floats);
    else library.toFloat(type, from, floats.address, count);
  };
  return {
    replace(type: number) {
      if (width % library.blockSize(type) !== 0) throw new Error(`rows of ${name} are no whole blocks of type ${type}`);
      const packed = allocate(library.rowSize(type, width) * rows);
      toFloats(tensor.type, original.address);
      library.quantizeRows(type, floats.address, packed.address, rows, width, weighing?.address ?? null);
      toFloats(type, packed.address);
      packed.free();
      writeFloats(library, tensor, floats, count);
    },
    restore() {
      copyTo(tensor.data, original);
      for (const block of [original, floats, weighing]) block?.free();
    },
  };
}

function writeFloats(library: Library, tensor: TensorFields, floats: Block, count: number): void {
  if (tensor.type === typeF32) copyTo(tensor.data, floats);
  else library.fromFloat(tensor.type, floats.address, tensor.data, count);
}
