/**
 * @module Elementwise programs over long flat arrays, a chunk at a time: a chunk of every operand stays in the cache
 * through all operations of the program, where whole arrays would cross the memory bus once for each of them.
 */
import { createGraph, type GraphBuilder, type Value } from "../graph/index.js";
import type { Program, Runtime, Tensors } from "../runtime/index.js";
import { f32Tensor } from "../tensor/index.js";

/** Elements of a chunk, 2 MiB of each operand: large enough for a call's own cost to vanish, small enough for a cache. */
const defaultChunk = 1 << 19;

export interface FlatSignature {
  arrays: readonly string[];
  scalars?: readonly string[];
  /** Elements of one run. Defaults to 2^19. */
  chunk?: number;
}

export interface FlatOperands {
  /** Arrays of equal length. */
  arrays: Record<string, Float32Array>;
  scalars?: Record<string, number>;
}

export interface FlatProgram {
  /**
   * Runs over elements from..to of the arrays. A result is written into the array of its name; all results are handed
   * to `onResult` as `next/NAME`, chunk after chunk.
   */
  run(operands: FlatOperands, from: number, to: number, onResult?: (result: Tensors) => void): Promise<void>;
}

/** Results cannot bear the names of inputs. */
const resultPrefix = "next/";

type Values = Record<string, Value>;

/** `build` returns results by name, given one value [n] for each array and one scalar value for each scalar. */
export function createFlatProgram(
  runtime: Runtime,
  name: string,
  { arrays, scalars = [], chunk = defaultChunk }: FlatSignature,
  build: (g: GraphBuilder, arrays: Values, scalars: Values) => Values,
): FlatProgram {
  const programs = new Map<number, Program>();

  const programFor = async (length: number): Promise<Program> => {
    const known = programs.get(length);
    if (known) return known;
    const g = createGraph(`${name}_${length}`);
    const inputs = (names: readonly string[], shape: number[]) =>
      Object.fromEntries(names.map((input) => [input, g.input(input, shape)]));
    const results = build(g, inputs(arrays, [length]), inputs(scalars, []));
    for (const result in results) g.output(resultPrefix + result, results[result]!);
    const program = await runtime.compile(g);
    programs.set(length, program);
    return program;
  };

  return {
    async run(operands, from, to, onResult) {
      const constants: Tensors = {};
      for (const scalar of scalars) constants[scalar] = f32Tensor([], [operands.scalars![scalar]!]);
      for (let start = from; start < to; start += chunk) {
        const end = Math.min(to, start + chunk);
        const program = await programFor(end - start);
        const changed = new Set(program.outputs.map((output) => output.name));
        const feeds = { ...constants };
        const into: Tensors = {};
        for (const array of arrays) {
          const view = f32Tensor([end - start], operands.arrays[array]!.subarray(start, end));
          feeds[array] = view;
          if (changed.has(resultPrefix + array)) into[resultPrefix + array] = view;
        }
        const results = await program.run(feeds, into);
        onResult?.(results);
      }
    },
  };
}
