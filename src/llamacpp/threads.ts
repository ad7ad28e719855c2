/** Below this file size a thread's share of each operator takes less than waiting for the other threads. */
const oneThreadBytes = 32 * 2 ** 20;

/** Threads that a model of so many bytes is run with when none are asked for. */
export function threadsForBytes(bytes: number, mathCores: number): number {
  return bytes < oneThreadBytes ? 1 : mathCores;
}
