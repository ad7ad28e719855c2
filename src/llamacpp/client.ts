/**
 * @module The parent's side of the child process. A ggml assertion aborts its process, so llama.cpp never runs in
 * ours: whatever ends the child becomes one error, and the next call starts a new child.
 */
import { type ChildProcess, fork } from "node:child_process";
import { createRequire } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";
import { EspalierError } from "../base/index.js";
import type { ContextOptions, Methods, Reply, Request } from "./protocol.js";

export interface CallOptions<Part> {
  /** Aborting kills the child. */
  signal?: AbortSignal;
  onPart?: (part: Part) => void;
}

export interface Client {
  /** `where` names the file at fault when the call fails. Calls run one after the other. */
  call<M extends keyof Methods>(
    method: M,
    params: Methods[M]["params"],
    where: string,
    options?: CallOptions<Methods[M]["part"]>,
  ): Promise<Methods[M]["result"]>;
  dispose(): Promise<void>;
}

export function createClient(context: ContextOptions): Client {
  let worker: Worker | undefined;
  let last: Promise<unknown> = Promise.resolve();
  let nextId = 0;

  return {
    call(method, params, where, options = {}) {
      const run = async () => {
        options.signal?.throwIfAborted();
        if (!worker?.alive()) worker = startWorker();
        const request = { id: nextId++, method, params, context } as Request;
        return worker.ask(request, where, options as CallOptions<unknown>) as Promise<Methods[typeof method]["result"]>;
      };
      // One at a time: two evaluations would share the cores and spoil each other's measurements.
      const result = last.then(run, run);
      last = result.catch(() => {});
      return result;
    },
    async dispose() {
      await worker?.kill();
      worker = undefined;
    },
  };
}

interface Worker {
  alive(): boolean;
  ask(request: Request, where: string, options: CallOptions<unknown>): Promise<unknown>;
  kill(): Promise<void>;
}

function startWorker(): Worker {
  const child = forkWorker();
  const log = keepLastLines(child, 12);
  let ended: string | undefined;
  const closed = new Promise<void>((resolve) => {
    child.once("error", (error) => {
      ended ??= error.message;
      resolve();
    });
    // "close" comes after "exit", once standard error has been read to its end.
    child.once("close", (code, signal) => {
      ended ??= signal ?? `exit code ${code}`;
      resolve();
    });
  });
  // An idle child must not keep this process alive; its channel closes with us, and then it ends itself.
  const hold = (on: boolean) => {
    for (const handle of [child, child.channel, child.stderr as unknown as { ref(): void; unref(): void } | null]) {
      on ? handle?.ref() : handle?.unref();
    }
  };
  hold(false);

  return {
    alive: () => ended === undefined && child.connected && !child.killed,
    async ask(request, where, { signal, onPart }) {
      hold(true);
      const abort = () => child.kill("SIGKILL");
      signal?.addEventListener("abort", abort, { once: true });
      const { settled, release } = reply(child, request, where, onPart);
      try {
        return await Promise.race([
          settled,
          closed.then(() => {
            signal?.throwIfAborted();
            throw crashed(where, ended!, log());
          }),
        ]);
      } finally {
        release();
        signal?.removeEventListener("abort", abort);
        hold(false);
      }
    },
    async kill() {
      hold(true);
      child.kill("SIGKILL");
      await closed;
    },
  };
}

/** Sends the request and settles with its reply; `release` stops listening when the child has ended instead. */
function reply(child: ChildProcess, request: Request, where: string, onPart?: (part: unknown) => void) {
  let listen = (_: Reply) => {};
  const settled = new Promise<unknown>((resolve, reject) => {
    listen = (message) => {
      if (message.id !== request.id) return;
      if (message.kind === "part") onPart?.(message.part);
      else if (message.kind === "done") resolve(message.result);
      else reject(new EspalierError({ where, found: message.message }));
    };
    child.on("message", listen);
    // A failed send means that the child is gone; its end is reported by the other side of the race.
    child.send(request, () => {});
  });
  return { settled, release: () => child.off("message", listen) };
}

function crashed(where: string, ended: string, log: string[]): EspalierError {
  return new EspalierError({
    where,
    expected: "llama.cpp to run it",
    found: [`the end of its process (${ended})`, ...log].join("\n  "),
    fix: "the lines above are llama.cpp's own; a truncated file or a block that it cannot hold is the usual cause",
  });
}

function forkWorker(): ChildProcess {
  const built = new URL("./worker.js", import.meta.url);
  // Run from the sources (tests, tsx) the worker is TypeScript too, and tsx is there to load it.
  const fromSource = import.meta.url.endsWith(".ts");
  const tsx = () => pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
  return fork(fileURLToPath(fromSource ? new URL("./worker.ts", import.meta.url) : built), [], {
    execArgv: fromSource ? ["--import", tsx()] : [],
    serialization: "advanced",
    stdio: ["ignore", "ignore", "pipe", "ipc"],
    // A group of its own: Ctrl-C in a terminal is the parent's to answer. The child ends when its channel closes.
    detached: process.platform !== "win32",
    // On an assertion ggml would start a debugger to print a backtrace. node-llama-cpp ends on a CI that is no boolean.
    env: { ...process.env, GGML_NO_BACKTRACE: "1", CI: "false" },
  });
}

/** The last lines that the child wrote on standard error: what llama.cpp says before it dies. */
function keepLastLines(child: ChildProcess, count: number): () => string[] {
  let text = "";
  child.stderr?.setEncoding("utf8").on("data", (chunk: string) => {
    text = (text + chunk).slice(-16_384);
  });
  return () => text.split("\n").filter(Boolean).slice(-count);
}
