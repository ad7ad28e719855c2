import type { Command } from "commander";
import { vi } from "vitest";
import { withCommonOptions } from "./options.js";

/** Runs a command with these words; what it wrote on standard output and standard error, and its exit code. */
export async function runCli(command: Command, words: readonly string[]) {
  const written = { out: "", error: "" };
  const keep = (key: "out" | "error") => (text: string | Uint8Array) => {
    written[key] += String(text);
    return true;
  };
  const spies = [
    vi.spyOn(process.stdout, "write").mockImplementation(keep("out")),
    vi.spyOn(process.stderr, "write").mockImplementation(keep("error")),
  ];
  try {
    await withCommonOptions(command).parseAsync(words, { from: "user" });
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
  const exitCode = process.exitCode ?? 0;
  process.exitCode = 0;
  return { ...written, exitCode };
}
