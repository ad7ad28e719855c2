/** @module The parent's side of the engine: a process for each model, started anew after it has ended. */
import type { ChildProcess } from "node:child_process";
import { EspalierError } from "../../base/index.js";
import { crashed, forkWorker, holdOpen, keepLastLines, whenClosed } from "../child-process.js";
import type {
  Completion,
  CompletionRequest,
  InferenceEngine,
  LoadedModel,
  LoadOptions,
  ModelInfo,
} from "../inference.js";
import { checkFile } from "../model-file.js";
import type { Call, Calls, FromWorker, Piece, ToWorker } from "./protocol.js";

/** Nothing is started before the first model is loaded. */
export function createInferenceEngine(): InferenceEngine {
  const models = new Set<LoadedModel>();
  return {
    async loadModel(gguf, options = {}) {
      for (const path of [gguf, options.draft]) if (path !== undefined) await checkFile(path);
      const model = await loadModel(gguf, options, () => models.delete(model));
      models.add(model);
      return model;
    },
    async dispose() {
      await Promise.all([...models].map((model) => model.unload()));
    },
  };
}

async function loadModel(gguf: string, options: LoadOptions, onUnload: () => void): Promise<LoadedModel> {
  const connection = keepConnected(gguf, options);
  const { info } = await connection.loaded();
  const counter = countRequests(info.sequences);
  const call = async <M extends keyof Calls>(method: M, params: Calls[M]["params"]): Promise<Calls[M]["result"]> => {
    const { worker } = await connection.loaded();
    return worker.ask({ id: worker.nextId(), method, params } as Call) as Promise<Calls[M]["result"]>;
  };
  return {
    info,
    load: counter.counts,
    tokenize: (text, { special = false } = {}) => call("tokenize", { text, special }),
    detokenize: (ids, { special = false } = {}) => call("detokenize", { ids: [...ids], special }),
    complete: (request) => counter.during(async () => complete((await connection.loaded()).worker, request)),
    embed: (ids) => call("embed", { ids: [...ids] }),
    async unload() {
      onUnload();
      await connection.end();
    },
  };
}

/** The process of a model; a new one where the last has ended. */
function keepConnected(gguf: string, options: LoadOptions) {
  let ended = false;
  let connection: Promise<Loaded> = connect(gguf, options);
  let lastTried: Promise<Loaded> | undefined = connection;
  connection.catch(() => {}).finally(() => (lastTried = undefined));
  return {
    async loaded(): Promise<Loaded> {
      if (ended) throw new EspalierError({ where: gguf, expected: "a loaded model", found: "one that was unloaded" });
      // Requests that come together wait for the same new process.
      if (connection === lastTried) return connection;
      const known = await connection.catch(() => undefined);
      if (known?.worker.alive()) return known;
      if (connection === lastTried) return connection;
      const { signal: _signal, onProgress: _onProgress, ...same } = options;
      connection = connect(gguf, same);
      lastTried = connection;
      connection.catch(() => {}).finally(() => (lastTried = undefined));
      return connection;
    },
    async end() {
      ended = true;
      const known = await connection.catch(() => undefined);
      await known?.worker.kill();
    },
  };
}

/** How many requests run, and how many wait for one of so many sequences. */
function countRequests(sequences: number) {
  let requests = 0;
  return {
    counts: () => ({ running: Math.min(requests, sequences), waiting: Math.max(0, requests - sequences) }),
    async during<T>(work: () => Promise<T>): Promise<T> {
      requests++;
      try {
        return await work();
      } finally {
        requests--;
      }
    },
  };
}

async function complete(worker: Worker, { signal, onText, ...request }: CompletionRequest): Promise<Completion> {
  const id = worker.nextId();
  const abort = () => worker.abort(id);
  const params = { ...request, stream: onText !== undefined, aborted: signal?.aborted ?? false };
  const settled = worker.ask({ id, method: "complete", params }, onText);
  signal?.addEventListener("abort", abort, { once: true });
  try {
    return (await settled) as Completion;
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

interface Loaded {
  worker: Worker;
  info: ModelInfo;
}

async function connect(gguf: string, { signal, onProgress, ...params }: LoadOptions): Promise<Loaded> {
  signal?.throwIfAborted();
  const worker = startWorker(gguf, onProgress);
  const abort = () => void worker.kill();
  signal?.addEventListener("abort", abort, { once: true });
  try {
    const info = (await worker.ask({ id: worker.nextId(), method: "load", params: { gguf, ...params } })) as ModelInfo;
    return { worker, info };
  } catch (error) {
    await worker.kill();
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

type OnText = NonNullable<CompletionRequest["onText"]>;

interface Worker {
  nextId(): number;
  alive(): boolean;
  ask(call: Call, onText?: OnText): Promise<unknown>;
  abort(id: number): void;
  kill(): Promise<void>;
}

interface Asked {
  call: Call;
  onText: OnText | undefined;
  resolve: (result: unknown) => void;
  reject: (error: unknown) => void;
}

function startWorker(gguf: string, onProgress: LoadOptions["onProgress"]): Worker {
  const child = forkWorker("inference/worker");
  const log = keepLastLines(child);
  const hold = holdOpen(child);
  const asked = new Map<number, Asked>();
  let [ended, next] = [false, 0];
  const settle = (id: number, how: (asked: Asked) => void) => {
    const one = asked.get(id);
    if (!asked.delete(id)) return;
    hold(-1);
    how(one!);
  };
  const closed = whenClosed(child).then((reason) => {
    ended = true;
    const error = crashed(gguf, reason, log());
    for (const id of [...asked.keys()]) settle(id, ({ reject }) => reject(error));
  });
  child.on("message", (message: FromWorker) => {
    if (message.kind === "progress") onProgress?.(message.share);
    else if (message.kind === "pieces") give(message.pieces, asked);
    else if (message.kind === "done") settle(message.id, ({ resolve }) => resolve(message.result));
    else settle(message.id, ({ call, reject }) => reject(failure(gguf, call, message, log())));
  });
  return {
    nextId: () => next++,
    alive: () => !ended && child.connected && !child.killed,
    ask(call, onText) {
      return new Promise((resolve, reject) => {
        asked.set(call.id, { call, onText, resolve, reject });
        hold(1);
        tell(child, call);
      });
    },
    abort: (id) => tell(child, { method: "abort", id }),
    async kill() {
      hold(1);
      child.kill("SIGKILL");
      await closed;
    },
  };
}

/** A failed send means that the child is gone; its end is reported when it is closed. */
function tell(child: ChildProcess, message: ToWorker): void {
  if (child.connected) child.send(message, () => {});
}

function give(pieces: readonly Piece[], asked: ReadonlyMap<number, Asked>): void {
  for (const { id, text, tokens } of pieces) asked.get(id)?.onText?.(text, tokens);
}

/** llama.cpp says why a file cannot be loaded on standard error alone. */
function failure(
  gguf: string,
  call: Call,
  { problem }: Extract<FromWorker, { kind: "error" }>,
  log: readonly string[],
): EspalierError {
  if (problem.where !== "") return new EspalierError(problem);
  const said = call.method === "load" ? log : [];
  return new EspalierError({ ...problem, where: gguf, found: [problem.found, ...said].join("\n  ") });
}
