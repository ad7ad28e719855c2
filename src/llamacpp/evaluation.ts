/** @module One model evaluated through llama.cpp's C interface, with rows of logits and inputs of products read in place. */
import koffi from "koffi";
import { evalCallback, type Library, loadLibrary } from "./library.js";

const typeF32 = 0;
const flashAttentionOff = 0;
const loadModeNone = 0;

export interface EvaluationOptions {
  /** Longest sequence. */
  contextSize: number;
  /** Tokens evaluated together. */
  batchSize: number;
  threads: number;
  /** Called for every node of the compute graph: first to ask, then, if the answer was true, when it has been computed. */
  onNode?: (tensor: bigint, ask: boolean) => boolean;
  /** Weights are read into memory of their own, which may be written. Defaults to false. */
  writable?: boolean;
}

/** f32 cache and no flash attention, on the CPU. */
export interface Evaluation {
  readonly vocabSize: number;
  /** Evaluates a sequence from its start. `visit` sees the logits of each position; the row is gone after the call. */
  evaluate(ids: readonly number[], visit?: (position: number, row: Float32Array) => void): void;
  dispose(): void;
}

export async function openEvaluation(gguf: string, options: EvaluationOptions): Promise<Evaluation> {
  const library = await loadLibrary();
  const params = {
    ...library.modelDefaults(),
    n_gpu_layers: 0,
    // Weights in another order than the file's would be of no use to whoever looks at them.
    use_extra_bufts: options.onNode === undefined,
    ...(options.writable && { load_mode: loadModeNone }),
  };
  const model = library.loadModel(gguf, params) as bigint | null;
  if (!model) throw new Error("llama.cpp does not load it");
  const { context, release } = createContext(library, model, options);
  const vocabSize = library.vocabularySize(library.vocabulary(model)) as number;
  return {
    vocabSize,
    evaluate(ids, visit) {
      library.clearMemory(library.memory(context), true);
      for (let start = 0; start < ids.length; start += options.batchSize) {
        const part = ids.slice(start, start + options.batchSize);
        decode(library, context, part, visit !== undefined);
        if (!visit) continue;
        for (let i = 0; i < part.length; i++) visit(start + i, rowOf(library, context, i, vocabSize));
      }
    },
    dispose() {
      release();
      library.freeModel(model);
    },
  };
}

function createContext(library: Library, model: bigint, options: EvaluationOptions) {
  const { contextSize, batchSize, threads, onNode } = options;
  const callback = onNode && koffi.register((tensor: bigint, ask: boolean) => onNode(tensor, ask), evalCallback);
  const context = library.createContext(model, {
    ...library.contextDefaults(),
    n_ctx: contextSize,
    n_batch: batchSize,
    n_ubatch: batchSize,
    n_threads: threads,
    n_threads_batch: threads,
    flash_attn_type: flashAttentionOff,
    type_k: typeF32,
    type_v: typeF32,
    ...(callback !== undefined && { cb_eval: callback }),
  }) as bigint | null;
  if (!context) throw new Error(`llama.cpp makes no context of ${contextSize} tokens`);
  return {
    context,
    release() {
      library.freeContext(context);
      if (callback !== undefined) koffi.unregister(callback);
    },
  };
}

function decode(library: Library, context: bigint, ids: readonly number[], logits: boolean): void {
  const { address, bytes, free } = allocate(5 * ids.length);
  try {
    new Int32Array(bytes.buffer, 0, ids.length).set(ids);
    bytes.fill(1, 4 * ids.length);
    const batch = { n_tokens: ids.length, token: address, embd: null, pos: null, n_seq_id: null, seq_id: null };
    const rc = library.decode(context, {
      ...batch,
      logits: logits ? address + BigInt(4 * ids.length) : null,
    }) as number;
    if (rc !== 0) throw new Error(`llama_decode returned ${rc}`);
  } finally {
    free();
  }
}

function rowOf(library: Library, context: bigint, index: number, vocabSize: number): Float32Array {
  const row = library.logits(context, index) as bigint | null;
  if (!row) throw new Error(`llama.cpp has no logits of token ${index}`);
  return new Float32Array(koffi.view(row, 4 * vocabSize));
}

/** Memory outside the heap of JavaScript, which C can point into. */
export function allocate(byteLength: number) {
  const address = koffi.alloc("uint8_t", byteLength) as bigint;
  return { address, bytes: new Uint8Array(koffi.view(address, byteLength)), free: () => koffi.free(address) };
}

export type Block = ReturnType<typeof allocate>;

/** Fills a block from memory that it does not own. */
export function copyFrom(address: bigint, into: Block): void {
  into.bytes.set(new Uint8Array(koffi.view(address, into.bytes.byteLength)));
}

/** Writes a block over memory that it does not own. */
export function copyTo(address: bigint, from: Block): void {
  new Uint8Array(koffi.view(address, from.bytes.byteLength)).set(from.bytes);
}
