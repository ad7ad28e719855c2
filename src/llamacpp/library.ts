/**
 * @module The part of llama.cpp that its Node binding does not offer (quantiser, activations, whole rows of logits), called
 * in the binding's own prebuilt library. Only the child process may import this.
 *
 * Structures are those of llama.h and ggml.h at v0.5.0. Another release may lay them out otherwise, so the version is
 * checked, and defaults that every release has are read back through the structures before anything is called with them.
 */
import { readdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import koffi, { type KoffiFunc, type LibraryHandle } from "koffi";

const knownVersion = "0.5.0-dev";

const quantizeParams = koffi.struct("llama_model_quantize_params", {
  nthread: "int32_t",
  ftype: "int",
  output_tensor_type: "int",
  token_embedding_type: "int",
  allow_requantize: "bool",
  quantize_output_tensor: "bool",
  only_copy: "bool",
  pure: "bool",
  keep_split: "bool",
  dry_run: "bool",
  imatrix: "void *",
  kv_overrides: "void *",
  tt_overrides: "void *",
  prune_layers: "void *",
  max_buf_size: "size_t",
});

const modelParams = koffi.struct("llama_model_params", {
  devices: "void *",
  tensor_buft_overrides: "void *",
  n_gpu_layers: "int32_t",
  split_mode: "int",
  load_mode: "int",
  lazy_mode: "int",
  main_gpu: "int32_t",
  tensor_split: "void *",
  progress_callback: "void *",
  progress_callback_user_data: "void *",
  kv_overrides: "void *",
  vocab_only: "bool",
  check_tensors: "bool",
  use_extra_bufts: "bool",
  no_host: "bool",
  no_alloc: "bool",
  load_mtp: "bool",
});

const contextParams = koffi.struct("llama_context_params", {
  n_ctx: "uint32_t",
  n_batch: "uint32_t",
  n_ubatch: "uint32_t",
  n_seq_max: "uint32_t",
  n_rs_seq: "uint32_t",
  n_outputs_max: "uint32_t",
  n_outputs_max_per_seq: "uint32_t",
  n_threads: "int32_t",
  n_threads_batch: "int32_t",
  ctx_type: "int",
  rope_scaling_type: "int",
  pooling_type: "int",
  attention_type: "int",
  flash_attn_type: "int",
  rope_freq_base: "float",
  rope_freq_scale: "float",
  yarn_ext_factor: "float",
  yarn_attn_factor: "float",
  yarn_beta_fast: "float",
  yarn_beta_slow: "float",
  yarn_orig_ctx: "uint32_t",
  defrag_thold: "float",
  cb_eval: "void *",
  cb_eval_user_data: "void *",
  type_k: "int",
  type_v: "int",
  abort_callback: "void *",
  abort_callback_data: "void *",
  embeddings: "bool",
  offload_kqv: "bool",
  no_perf: "bool",
  op_offload: "bool",
  swa_full: "bool",
  kv_unified: "bool",
  samplers: "void *",
  n_samplers: "size_t",
  ctx_other: "void *",
});

const batch = koffi.struct("llama_batch", {
  n_tokens: "int32_t",
  token: "void *",
  embd: "void *",
  pos: "void *",
  n_seq_id: "void *",
  seq_id: "void *",
  logits: "void *",
});

/** `(level, text, user data)` */
export const logCallback = koffi.pointer(koffi.proto("void ggml_log_callback(int, const char *, void *)"));
/** `(tensor, ask, user data)`; see `ggml_backend_sched_eval_callback`. */
export const evalCallback = koffi.pointer(koffi.proto("bool ggml_eval_callback(void *, bool, void *)"));

export type Library = Awaited<ReturnType<typeof openLibrary>>;

let opened: ReturnType<typeof openLibrary> | undefined;

/** @throws when the library is missing or is not the release that is known here. */
export function loadLibrary(): ReturnType<typeof openLibrary> {
  opened ??= openLibrary();
  return opened;
}

async function openLibrary() {
  const file = await findLibrary();
  const llama = koffi.load(file);
  const found = llama.func("const char *llama_version()")() as string;
  if (found !== knownVersion) throw otherRelease(`version ${found}`);
  const functions = {
    quantizeDefaults: llama.func("llama_model_quantize_default_params", quantizeParams, []),
    quantize: llama.func("llama_model_quantize", "uint32_t", ["str", "str", koffi.pointer(quantizeParams)]),
    logSet: llama.func("llama_log_set", "void", [logCallback, "void *"]),
    modelDefaults: llama.func("llama_model_default_params", modelParams, []),
    contextDefaults: llama.func("llama_context_default_params", contextParams, []),
    loadModel: llama.func("llama_model_load_from_file", "void *", ["str", modelParams]),
    freeModel: llama.func("llama_model_free", "void", ["void *"]),
    createContext: llama.func("llama_init_from_model", "void *", ["void *", contextParams]),
    freeContext: llama.func("llama_free", "void", ["void *"]),
    vocabulary: llama.func("llama_model_get_vocab", "void *", ["void *"]),
    vocabularySize: llama.func("llama_vocab_n_tokens", "int32_t", ["void *"]),
    memory: llama.func("llama_get_memory", "void *", ["void *"]),
    clearMemory: llama.func("llama_memory_clear", "void", ["void *", "bool"]),
    decode: llama.func("llama_decode", "int32_t", ["void *", batch]),
    logits: llama.func("llama_get_logits_ith", "void *", ["void *", "int32_t"]),
  };
  checkLayout(functions);
  const folder = dirname(file);
  // The CPU's kernels are libraries of their own, one for each generation of processors.
  koffi.load(await findFile(folder, "ggml")).func("void ggml_backend_load_all_from_path(const char *)")(folder);
  return { ...functions, ...numerics(koffi.load(await findFile(folder, "ggml-base"))) };
}

/** Operators and the arithmetic of tensor types. */
function numerics(ggml: LibraryHandle) {
  const operatorName = ggml.func("const char *ggml_op_name(int)");
  const traits = ggml.func("void *ggml_get_type_traits(int)");
  const quantizeChunk = ggml.func(
    "size_t ggml_quantize_chunk(int, const void *, void *, int64_t, int64_t, int64_t, const void *)",
  );
  const rowSize = ggml.func("size_t ggml_row_size(int, int64_t)");
  const toHalf = {
    1: ggml.func("void ggml_fp32_to_fp16_row(const void *, void *, int64_t)"),
    30: ggml.func("void ggml_fp32_to_bf16_row(const void *, void *, int64_t)"),
  } as Record<number, KoffiFunc<(from: bigint, to: bigint, count: number) => void>>;
  return {
    operatorName: (op: number) => operatorName(op) as string,
    rowSize: (type: number, width: number) => Number(rowSize(type, width)),
    /** Values that are quantised together; they divide a row. */
    blockSize: (type: number) => Number(koffi.decode(traits(type) as bigint, blockSizeOffset, "int64_t")),
    /** `importance` weighs the columns of a row; null weighs them alike. */
    quantizeRows: (type: number, from: bigint, to: bigint, rows: number, width: number, importance: bigint | null) =>
      void quantizeChunk(type, from, to, 0, rows, width, importance),
    /** Not for f32. */
    toFloat: (type: number, from: bigint, to: bigint, count: number) =>
      koffi.call(koffi.decode(traits(type) as bigint, toFloatOffset, "void *"), toFloatFunction, from, to, count),
    /** To f16 or bf16. */
    fromFloat: (type: number, from: bigint, to: bigint, count: number) => toHalf[type]!(from, to, count),
  };
}

/** In `ggml_type_traits`. */
const blockSizeOffset = 8;
const toFloatOffset = 40;
const toFloatFunction = koffi.proto("void ggml_to_float(const void *, void *, int64_t)");

async function findLibrary(): Promise<string> {
  const name = packageName();
  const { getBinsDir } = (await import(name)) as { getBinsDir(): { binsDir: string } };
  const { binsDir } = getBinsDir();
  const [folder] = (await readdir(binsDir, { withFileTypes: true })).filter((entry) => entry.isDirectory());
  return findFile(join(binsDir, folder!.name), "llama");
}

/** `libllama.v0.5.0.so`, `libllama.dylib`, `llama.dll`. */
async function findFile(folder: string, name: string): Promise<string> {
  const pattern = new RegExp(`^(lib)?${name}(\\.v[\\d.]+)?\\.(so|dylib|dll)$`);
  const found = (await readdir(folder)).find((file) => pattern.test(file));
  if (!found) throw new Error(`no library ${name} in ${folder}`);
  return join(folder, found);
}

function packageName(): string {
  const systems: Partial<Record<NodeJS.Platform, string>> = { linux: "linux", darwin: "mac", win32: "win" };
  const metal = process.platform === "darwin" && process.arch === "arm64" ? "-metal" : "";
  const arch = process.arch === "arm" ? "armv7l" : process.arch;
  return `@node-llama-cpp/${systems[process.platform] ?? process.platform}-${arch}${metal}`;
}

interface Defaults {
  quantizeDefaults(): Record<string, unknown>;
  modelDefaults(): Record<string, unknown>;
  contextDefaults(): Record<string, unknown>;
}

/** Fields from the start to the end of each structure, with the defaults of the release. */
function checkLayout({ quantizeDefaults, modelDefaults, contextDefaults }: Defaults): void {
  const expected: [string, Record<string, unknown>, Record<string, unknown>][] = [
    ["llama_model_quantize_params", quantizeDefaults(), { ftype: 7, quantize_output_tensor: true, imatrix: null }],
    ["llama_model_quantize_params", quantizeDefaults(), { output_tensor_type: 43, max_buf_size: 2 ** 33 }],
    ["llama_model_params", modelDefaults(), { split_mode: 1, use_extra_bufts: true, vocab_only: false }],
    ["llama_context_params", contextDefaults(), { n_ctx: 512, n_ubatch: 512, type_k: 1, type_v: 1, n_samplers: 0 }],
  ];
  for (const [name, found, fields] of expected) {
    for (const [field, value] of Object.entries(fields)) {
      if (found[field] !== value) throw otherRelease(`${name}.${field} = ${String(found[field])}`);
    }
  }
}

function otherRelease(found: string): Error {
  return new Error(
    `expected llama.cpp ${knownVersion}, found ${found}: the structures of this library are not known here; ` +
      "install the version of node-llama-cpp that this package asks for",
  );
}
