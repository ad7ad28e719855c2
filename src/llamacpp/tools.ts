/** @module llama.cpp's tools for files: quantise, measure an importance matrix, compare files of one model. */
import { createClient } from "./client.js";
import type { Comparison, Importance, Methods, QuantiseParams, SensitivityParams } from "./protocol.js";

export interface ToolOptions {
  signal?: AbortSignal;
  onProgress?: (done: number, total: number) => void;
}

export interface LlamaCppTools {
  /** Writes `target`. Returns what llama.cpp warned of. A target that was begun stays where the call fails. */
  quantise(params: QuantiseParams, options?: ToolOptions): Promise<string[]>;
  /** Mean squares of what enters the matrices of blocks, over token ids. */
  importance(gguf: string, sequences: number[][], options?: ToolOptions): Promise<Importance>;
  /** Each file against the reference, sequence by sequence; f32 cache, no flash attention. */
  compare(reference: string, ggufs: string[], sequences: number[][], options?: ToolOptions): Promise<Comparison[][]>;
  /** Mean KL of each sequence, by tensor and by type, with that tensor alone in that type. */
  sensitivity(params: SensitivityParams, options?: ToolOptions): Promise<number[][][]>;
  /** Ends the child process. */
  dispose(): Promise<void>;
}

/** On the CPU, in a child process of its own: nothing else there shares the library. */
export function createLlamaCppTools({ threads }: { threads: number }): LlamaCppTools {
  const client = createClient({ gpu: false, threads });
  const call = <M extends "quantise" | "importance" | "compare" | "sensitivity">(
    method: M,
    params: Methods[M]["params"],
    where: string,
    { signal, onProgress }: ToolOptions = {},
  ) =>
    client.call(method, params, where, {
      ...(signal && { signal }),
      onPart: ({ done, total }: { done: number; total: number }) => onProgress?.(done, total),
    });
  return {
    quantise: async (params, options) => (await call("quantise", params, params.source, options)).notices,
    importance: (gguf, sequences, options) => call("importance", { gguf, sequences }, gguf, options),
    compare: (reference, ggufs, sequences, options) =>
      call("compare", { reference, ggufs, sequences }, [reference, ...ggufs].join(", "), options),
    sensitivity: (params, options) => call("sensitivity", params, params.gguf, options),
    dispose: () => client.dispose(),
  };
}
