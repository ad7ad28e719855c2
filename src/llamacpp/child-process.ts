/**
 * @module A child process for llama.cpp, the parent's side. A ggml assertion aborts its process, so llama.cpp never runs in
 * ours.
 */
import { type ChildProcess, fork } from "node:child_process";
import { createRequire } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";
import { EspalierError } from "../base/index.js";

/** Starts a module of this folder, named without its extension, in a process of its own. */
export function forkWorker(name: string): ChildProcess {
  // Run from the sources (tests, tsx) the worker is TypeScript too, and tsx is there to load it.
  const fromSource = import.meta.url.endsWith(".ts");
  const tsx = () => pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
  const path = fileURLToPath(new URL(`./${name}.${fromSource ? "ts" : "js"}`, import.meta.url));
  return fork(path, [], {
    execArgv: fromSource ? ["--import", tsx()] : [],
    serialization: "advanced",
    stdio: ["ignore", "ignore", "pipe", "ipc"],
    // A group of its own: Ctrl-C in a terminal is the parent's to answer. The child ends when its channel closes.
    detached: process.platform !== "win32",
    // On an assertion ggml would start a debugger to print a backtrace. node-llama-cpp ends on a CI that is no boolean.
    env: { ...process.env, GGML_NO_BACKTRACE: "1", CI: "false" },
  });
}

/** Settles with the reason once the child has ended and its standard error has been read to its end. */
export function whenClosed(child: ChildProcess): Promise<string> {
  return new Promise((resolve) => {
    let failed: string | undefined;
    child.once("error", (error) => {
      failed = error.message;
      resolve(failed);
    });
    // "close" comes after "exit", once standard error has been read to its end.
    child.once("close", (code, signal) => resolve(failed ?? signal ?? `exit code ${code}`));
  });
}

/**
 * An idle child must not keep this process alive; its channel closes with us, and then it ends itself. The function
 * returned counts what is under way: 1 more, or -1.
 */
export function holdOpen(child: ChildProcess): (change: 1 | -1) => void {
  const handles = [child, child.channel, child.stderr as unknown as { ref(): void; unref(): void } | null];
  let count = 0;
  for (const handle of handles) handle?.unref();
  return (change) => {
    count += change;
    if (count === 1 && change === 1) for (const handle of handles) handle?.ref();
    if (count === 0) for (const handle of handles) handle?.unref();
  };
}

/** The last lines that the child wrote on standard error: what llama.cpp says before it dies. */
export function keepLastLines(child: ChildProcess, count = 12): () => string[] {
  let text = "";
  child.stderr?.setEncoding("utf8").on("data", (chunk: string) => {
    text = (text + chunk).slice(-16_384);
  });
  return () => text.split("\n").filter(Boolean).slice(-count);
}

/** The end of a child as an error that names the file it was at. */
export function crashed(where: string, ended: string, log: readonly string[]): EspalierError {
  return new EspalierError({
    where,
    expected: "llama.cpp to run it",
    found: [`the end of its process (${ended})`, ...log].join("\n  "),
    fix: "the lines above are llama.cpp's own; a truncated file or a block that it cannot hold is the usual cause",
  });
}
