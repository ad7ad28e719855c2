import { EspalierError } from "../base/index.js";
import type { TensorType } from "../graph/index.js";
import { formatType, sameShape, zerosTensor } from "../tensor/index.js";
import { openSession, type Session, type SessionOptions, type Tensors } from "./session.js";
import { type Part, withParts } from "./views.js";

export interface NamedType extends TensorType {
  readonly name: string;
}

/** What a program takes and gives. */
export interface Signature {
  readonly name: string;
  readonly inputs: readonly NamedType[];
  readonly outputs: readonly NamedType[];
}

/** A graph ready to run. Shapes are fixed. */
export interface Program extends Signature {
  /**
   * Runs once. `feeds` has a tensor for every input; `into` may have tensors for some outputs, which are then written
   * in place and returned; the others get new ones. Views of larger arrays are fine in both, and nothing is copied on the CPU.
   */
  run(feeds: Tensors, into?: Tensors): Promise<Tensors>;
  /** Gives back the session and its memory. The program stays usable: the next run opens a new session. */
  dispose(): Promise<void>;
}

/** A serialised model, and which of its inputs and outputs are parts of those of the program. */
export interface CompiledModel {
  bytes: Uint8Array;
  inputs: readonly Part[];
  outputs: readonly Part[];
  inputNames: ReadonlySet<string>;
}

/** A program that opens its session on the first run, and again after `dispose`. */
export function createProgram(
  signature: Signature,
  model: CompiledModel,
  options: SessionOptions,
  onRun: () => Promise<void> = async () => {},
): Program {
  let opening: Promise<Session> | undefined;
  let running = 0;
  const pieced = new Set(model.outputs.map(({ whole }) => whole));
  const whole = new Set(signature.outputs.filter(({ name }) => !pieced.has(name)).map(({ name }) => name));
  return {
    ...signature,
    async run(feeds, into = {}) {
      checkTensors(signature.name, "input", signature.inputs, feeds, true);
      checkTensors(signature.name, "output", signature.outputs, into, false);
      const results = Object.fromEntries(
        signature.outputs.map(({ name, dtype, shape }) => [name, into[name] ?? zerosTensor(dtype, shape)]),
      );
      running++;
      try {
        opening ??= openSession(model.bytes, options).catch((error) => {
          opening = undefined;
          throw error;
        });
        const session = await opening;
        await onRun();
        const parts = withParts(feeds, model.inputs, model.inputNames);
        await session.run(parts, withParts(results, model.outputs, whole));
        return results;
      } finally {
        running--;
      }
    },
    async dispose() {
      // A run in flight keeps its session; the cache asks again later.
      if (running > 0 || opening === undefined) return;
      const closing = opening;
      opening = undefined;
      await (await closing).dispose();
    },
  };
}

function checkTensors(
  program: string,
  role: "input" | "output",
  types: readonly NamedType[],
  tensors: Tensors,
  complete: boolean,
): void {
  let given = 0;
  for (const { name, dtype, shape } of types) {
    const tensor = tensors[name];
    if (tensor === undefined && !complete) continue;
    given++;
    if (tensor?.dtype === dtype && sameShape(tensor.shape, shape)) continue;
    throw new EspalierError({
      where: `${role} ${name} of program ${program}`,
      expected: formatType(dtype, shape),
      found: tensor ? formatType(tensor.dtype, tensor.shape) : "nothing",
    });
  }
  const names = Object.keys(tensors);
  if (names.length === given) return;
  const known = new Set(types.map(({ name }) => name));
  throw new EspalierError({
    where: `${role} ${names.find((name) => !known.has(name))} of program ${program}`,
    expected: `one of ${[...known].join(", ")}`,
  });
}
