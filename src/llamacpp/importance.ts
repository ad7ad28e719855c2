/**
 * @module The importance matrix of a model: for every matrix, the mean square of each of its inputs over a text
 * (https://github.com/ggml-org/llama.cpp/pull/4861). The quantiser weighs errors by it.
 */
import koffi from "koffi";
import { openEvaluation } from "./evaluation.js";
import { loadLibrary } from "./library.js";
import { readTensor, type TensorFields, typeF32 } from "./native-tensor.js";
import type { Methods } from "./protocol.js";

export async function measureImportance(
  { gguf, sequences }: Methods["importance"]["params"],
  threads: number,
  send: (part: Methods["importance"]["part"]) => void,
): Promise<Methods["importance"]["result"]> {
  const collector = createCollector((await loadLibrary()).operatorName);
  const longest = Math.max(...sequences.map((ids) => ids.length));
  const options = { contextSize: longest, batchSize: longest, threads, onNode: collector.onNode };
  const evaluation = await openEvaluation(gguf, options);
  try {
    for (const [i, ids] of sequences.entries()) {
      evaluation.evaluate(ids);
      collector.check();
      send({ done: i + 1, total: sequences.length });
      // Lets the message leave.
      await new Promise((resolve) => setImmediate(resolve));
    }
  } finally {
    evaluation.dispose();
  }
  const tokens = sequences.reduce((sum, ids) => sum + ids.length, 0);
  return { tokens, meanSquares: collector.means(tokens) };
}

/** Adds up the squares of what enters the matrices of blocks. */
function createCollector(operatorName: (op: number) => string) {
  const sums: Record<string, Float64Array> = {};
  // What a callback throws does not come through the library.
  let failure: unknown;
  const take = (tensor: bigint, ask: boolean): boolean => {
    const { op, sources } = readTensor(tensor);
    const operator = operatorName(op);
    if (operator === "MUL_MAT_ID") throw new Error("mixtures of experts have no importance matrix here");
    if (operator !== "MUL_MAT") return !ask;
    const { name } = readTensor(sources[0]);
    if (!/^blk\..*\.weight$/.test(name)) return !ask;
    if (!ask) addSquares(sums, name, readTensor(sources[1]));
    return true;
  };
  return {
    /** After an asked-for node the answer says whether to go on. */
    onNode(tensor: bigint, ask: boolean): boolean {
      try {
        return take(tensor, ask);
      } catch (error) {
        failure ??= error;
        return !ask;
      }
    },
    check() {
      if (failure) throw failure;
    },
    means: (tokens: number): Record<string, Float32Array> =>
      Object.fromEntries(
        Object.entries(sums).map(([name, own]) => [name, Float32Array.from(own, (sum) => sum / tokens)]),
      ),
  };
}

function addSquares(sums: Record<string, Float64Array>, name: string, { type, ne, data }: TensorFields): void {
  if (type !== typeF32) throw new Error(`the input of ${name} is of type ${type}, not f32`);
  const width = ne[0]!;
  const rows = ne[1]! * ne[2]! * ne[3]!;
  const values = new Float32Array(koffi.view(data, 4 * width * rows));
  sums[name] ??= new Float64Array(width);
  const own = sums[name];
  for (let row = 0, at = 0; row < rows; row++) {
    for (let i = 0; i < width; i++, at++) own[i]! += values[at]! * values[at]!;
  }
}
