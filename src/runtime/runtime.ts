import { digestGraph, emitOnnx, type Graph, optimise } from "../graph/index.js";
import { type Device, defaultThreads, resolveDevice } from "./devices.js";
import { type CompiledModel, createProgram, type Program, type Signature } from "./program.js";
import type { SessionOptions } from "./session.js";
import { viewGraph } from "./views.js";

export interface RuntimeOptions {
  /** Where programs run. Never replaced by another device in silence. Defaults to `cpu`. */
  device?: string;
  /** Threads for one operator. Defaults to one for each physical core. */
  threads?: number;
  /** Sessions kept open at once; the one unused for longest is closed first. Defaults to 64. */
  maxSessions?: number;
  /**
   * Keep freed activations for the next run of the same program. Defaults to true; false trades speed for a lower
   * peak when many programs are in use.
   */
  arena?: boolean;
}

export interface CompileOptions {
  /** Overrides the runtime's `arena`. */
  arena?: boolean;
  /** Have ONNX Runtime write a trace under this prefix when the program is disposed; see `profileProgram`. */
  profilePrefix?: string;
}

export interface Runtime {
  readonly device: Device;
  readonly threads: number;
  /** The program of a graph. Two graphs of equal digest share one program; its session opens at the first run. */
  compile(graph: Graph, options?: CompileOptions): Promise<Program>;
  /** Closes every session. Programs stay usable and would open new ones. */
  dispose(): Promise<void>;
}

/** @throws EspalierError when the device is missing; the message names those present. */
export async function createRuntime(options: RuntimeOptions = {}): Promise<Runtime> {
  const { device = "cpu", threads = defaultThreads(), maxSessions = 64, arena = true } = options;
  const provider = await resolveDevice(device);
  const programs = new Map<string, Program>();
  const open = createLru(maxSessions);

  return {
    device: device as Device,
    threads,
    async compile(graph, compileOptions = {}) {
      const settings: SessionOptions = { provider, threads, arena, ...compileOptions };
      const key = `${digestGraph(graph)} ${settings.arena} ${settings.profilePrefix ?? ""}`;
      const known = programs.get(key);
      if (known) return known;
      const program: Program = createProgram(signatureOf(graph), compileGraph(graph), settings, () =>
        open.touch(program),
      );
      programs.set(key, program);
      return program;
    },
    async dispose() {
      for (const program of programs.values()) await program.dispose();
      programs.clear();
      open.clear();
    },
  };
}

function compileGraph(original: Graph): CompiledModel {
  const { graph, inputs, outputs } = viewGraph(optimise(original));
  // Constants stay within the model: the native library takes no external data beside a model in memory.
  const { bytes } = emitOnnx(graph, { externalBytes: Number.POSITIVE_INFINITY });
  return { bytes, inputs, outputs, inputNames: new Set(graph.inputs.map(({ name }) => name)) };
}

function signatureOf({ name, inputs, outputs }: Graph): Signature {
  const types = (values: Graph["inputs"]) =>
    values.map(({ name, value: { dtype, shape } }) => ({ name, dtype, shape }));
  return { name, inputs: types(inputs), outputs: types(outputs) };
}

/** Programs with an open session, the one used last at the end. */
function createLru(limit: number) {
  const used = new Set<Program>();
  return {
    async touch(program: Program): Promise<void> {
      used.delete(program);
      used.add(program);
      if (used.size <= limit) return;
      const [oldest] = used;
      used.delete(oldest!);
      await oldest!.dispose();
    },
    clear: () => used.clear(),
  };
}
