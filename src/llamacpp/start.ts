/** @module How a process that holds llama.cpp begins and ends. */
import { messageOf } from "../base/index.js";
import { getLlama, type Llama, LlamaLogLevel, NoBinaryFoundError } from "./binding.js";
import type { ContextOptions } from "./protocol.js";

/** llama.cpp with its messages on standard error, where the parent keeps the last of them. */
export function startLlama(gpu: ContextOptions["gpu"]): Promise<Llama> {
  return getLlama({
    gpu,
    build: "never",
    maxThreads: 0,
    logLevel: LlamaLogLevel.warn,
    logger: (_level, message) => process.stderr.write(`${message.trimEnd()}\n`),
  });
}

export function explain(error: unknown): string {
  if (!(error instanceof NoBinaryFoundError)) return messageOf(error);
  return `no llama.cpp build for ${process.platform} ${process.arch} (npm install without --omit=optional brings it)`;
}

export function endWithParent(): void {
  // On Windows, where there are no process groups, Ctrl-C comes here too; the parent decides what it means.
  process.on("SIGINT", () => {});
  // The parent is gone. Native threads may be at work, and leaving in good order would wait for them.
  process.on("disconnect", () => process.kill(process.pid, "SIGKILL"));
}
