import type { Command } from "commander";
import { EspalierError, messageOf, type OnEvent } from "../base/index.js";
import { createProgress } from "./progress.js";

/** What a command's body is given. */
export interface CommandIo {
  json: boolean;
  device: string;
  threads: number | undefined;
  onEvent: OnEvent;
  /** Aborted by the first Ctrl-C; the second one ends the process at once. */
  signal: AbortSignal;
  /** The one result: printed as JSON with --json, rendered for people without. */
  result(value: unknown, render: () => string): void;
}

/** Runs a command's body: progress on standard error, the result on standard output, one clear message when it fails. */
export async function runCommand(command: Command, body: (io: CommandIo) => Promise<void>): Promise<void> {
  const { json = false, device = "cpu", threads } = command.optsWithGlobals<GlobalOptions>();
  const controller = new AbortController();
  const stop = () => {
    if (controller.signal.aborted) process.exit(130);
    process.stderr.write("\nstopping (Ctrl-C again to stop at once)\n");
    controller.abort();
  };
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  const progress = json ? { onEvent: writeJsonLine, end: () => {} } : createProgress(process.stderr);
  try {
    await body({
      json,
      device,
      threads,
      onEvent: progress.onEvent,
      signal: controller.signal,
      result(value, render) {
        progress.end();
        process.stdout.write(json ? `${JSON.stringify(value)}\n` : `${render()}\n`);
      },
    });
  } catch (error) {
    progress.end();
    reportError(error, { json, aborted: controller.signal.aborted, goesOn: goesOn(command) });
  } finally {
    process.off("SIGINT", stop);
    process.off("SIGTERM", stop);
  }
}

interface GlobalOptions {
  json?: boolean;
  device?: string;
  threads?: number;
}

function writeJsonLine(event: unknown): void {
  process.stderr.write(`${JSON.stringify(event)}\n`);
}

/** Commands that keep what they have finished. */
const goingOn: readonly string[] = ["run", "reshape", "train", "align", "measure", "pull"];

function goesOn(command: Command): boolean {
  return [command.name(), command.parent?.name() ?? ""].some((name) => goingOn.includes(name));
}

interface Ending {
  json: boolean;
  aborted: boolean;
  goesOn: boolean;
}

function reportError(error: unknown, { json, aborted, goesOn }: Ending): void {
  if (aborted) {
    const message = goesOn ? "stopped; run the same command again to go on from here" : "stopped";
    process.stderr.write(json ? '{"error":"stopped"}\n' : `${message}\n`);
    process.exitCode = 130;
    return;
  }
  const known = error instanceof EspalierError;
  process.exitCode = known ? error.exitCode : 1;
  if (json) writeJsonLine({ error: messageOf(error) });
  else process.stderr.write(`error: ${messageOf(error)}\n`);
  if (!known && error instanceof Error) process.stderr.write(`${error.stack}\n`);
}
