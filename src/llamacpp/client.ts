/**
 * @module The parent's side of the child process. A ggml assertion aborts its process, so llama.cpp never runs in
 * ours: whatever ends the child becomes one error, and the next call starts a new child.
 */
import type { ChildProcess } from "node:child_process";
import { EspalierError } from "../base/index.js";
import { crashed, forkWorker, holdOpen, keepLastLines, whenClosed } from "./child-process.js";
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
  const child = forkWorker("worker");
  const log = keepLastLines(child);
  const hold = holdOpen(child);
  let ended: string | undefined;
  const closed = whenClosed(child).then((reason) => {
    ended = reason;
  });

  return {
    alive: () => ended === undefined && child.connected && !child.killed,
    async ask(request, where, { signal, onPart }) {
      hold(1);
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
        hold(-1);
      }
    },
    async kill() {
      hold(1);
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
