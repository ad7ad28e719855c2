/**
 * @module ONNX Runtime, met in this file only and loaded when the first session opens.
 *
 * Inputs on the CPU are read where they lie and outputs written where they shall lie, so weights can be
 * inputs. A run blocks the event loop; the binding yields to it before each run, which keeps Ctrl-C alive.
 */
import type { InferenceSession, Tensor } from "onnxruntime-node";
import { EspalierError, internal, messageOf } from "../base/index.js";
import { createProtoWriter, type ProtoWriter } from "../graph/index.js";
import type { DType, HostTensor } from "../tensor/index.js";

type Ort = typeof import("onnxruntime-node");

export type Tensors = Record<string, HostTensor>;

export interface SessionOptions {
  /** ONNX Runtime's name of the execution provider. */
  provider: string;
  /** Threads that share one operator. */
  threads: number;
  /**
   * Keep freed activations for the next run of the same session. Faster, as no page has to be fetched anew; the memory
   * is given back when the session is disposed.
   */
  arena: boolean;
  /** Write a trace to a file of this prefix when the session ends. */
  profilePrefix?: string;
}

export interface Session {
  /** `into` has a tensor for every output, which is written in place. */
  run(feeds: Tensors, into: Tensors): Promise<void>;
  dispose(): Promise<void>;
}

/** Execution providers that the installed library was built with; whether the machine has the device is another matter. */
export async function builtInProviders(): Promise<string[]> {
  const ort = await loadOrt();
  return ort.listSupportedBackends().map(({ name }) => name);
}

export async function libraryVersion(): Promise<string> {
  const ort = await loadOrt();
  return ort.env.versions.common;
}

export async function openSession(model: Uint8Array, options: SessionOptions): Promise<Session> {
  const ort = await loadOrt();
  const session = await ort.InferenceSession.create(withUnread(model), nativeOptions(options));
  return {
    async run(feeds, into) {
      const fetches = { [unread]: null, ...toOrtAll(ort, into) };
      await session.run(toOrtAll(ort, feeds), fetches).catch((error) => {
        if (!messageOf(error).includes(refusal)) throw error;
      });
    },
    async dispose() {
      if (options.profilePrefix !== undefined) session.endProfiling();
      await session.release();
    },
  };
}

/**
 * The model with an empty sequence as its first output.
 *
 * After a run onnxruntime-node copies every result into a new array, also one that has been written where it was asked to
 * be, at 1.5 to 2 ns for a float: longer than most elementwise programs take. It goes through the outputs in the model's
 * order and refuses the first that is no tensor. By then all of them lie in the arrays that they were given.
 */
function withUnread(model: Uint8Array): Uint8Array {
  const first = createProtoWriter();
  first.message(7, (graph) => {
    graph.message(1, (node) => {
      node.text(2, unread);
      node.text(4, "SequenceEmpty");
    });
    graph.message(12, (output) => {
      output.text(1, unread);
      output.message(2, (type) => type.message(4, (sequence) => sequence.message(1, writeFloatTensorType)));
    });
  });
  // Messages of protocol buffers merge when their bytes stand one after the other, lists in that order.
  return Buffer.concat([first.finish(), model]);
}

const writeFloatTensorType = (type: ProtoWriter) => type.message(1, (tensor) => tensor.varint(1, 1));
const unread = "#unread";
const refusal = "Non tensor type";

function nativeOptions({ provider, threads, arena, profilePrefix }: SessionOptions): InferenceSession.SessionOptions {
  return {
    executionProviders: [provider],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    enableCpuMemArena: arena,
    // A planned block would come on top of what the arena kept from the first run: half as much memory again.
    enableMemPattern: false,
    logSeverityLevel: 4,
    extra: {
      session: {
        // Every session has its own threads; those of an idle one must not spin while another works.
        force_spinning_stop: "1",
        set_denormal_as_zero: "1",
      },
    },
    ...(profilePrefix !== undefined && { enableProfiling: true, profileFilePrefix: profilePrefix }),
  };
}

let loading: Promise<Ort> | undefined;

function loadOrt(): Promise<Ort> {
  loading ??= import("onnxruntime-node").then(
    (module) => {
      // A CommonJS package: the names lie on its default export.
      const ort = (module as Ort & { default?: Ort }).default ?? module;
      // What it would log as an error is also thrown.
      ort.env.logLevel = "fatal";
      return ort;
    },
    (cause) => {
      throw new EspalierError({
        where: "ONNX Runtime",
        expected: "the native library of onnxruntime-node for this platform",
        found: messageOf(cause),
        fix: "install the dependencies again with `npm ci`",
        cause,
      });
    },
  );
  return loading;
}

const ortTypes = {
  f32: "float32",
  f64: "float64",
  i64: "int64",
  i32: "int32",
  i8: "int8",
  u8: "uint8",
  bool: "bool",
} as const satisfies Partial<Record<DType, Tensor.Type>>;

function toOrtAll(ort: Ort, tensors: Tensors): Record<string, Tensor> {
  const converted: Record<string, Tensor> = {};
  for (const name in tensors) converted[name] = toOrt(ort, name, tensors[name]!);
  return converted;
}

function toOrt(ort: Ort, name: string, { dtype, shape, data }: HostTensor): Tensor {
  const type = (ortTypes as Partial<Record<DType, Tensor.Type>>)[dtype];
  if (type === undefined) return internal(`${name} is ${dtype}, which programs do not take`);
  return new ort.Tensor(type as "float32", data as Float32Array, shape as number[]);
}
