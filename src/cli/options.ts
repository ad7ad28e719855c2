import { type Command, InvalidArgumentError } from "commander";
import { parseBytes, parseDurationMs } from "../base/index.js";

/** The options that every command has. */
export function withCommonOptions(command: Command): Command {
  return command
    .option("--json", "events as JSON lines on standard error, one result object on standard output")
    .option("--device <name>", "cpu, cuda, webgpu, dml or coreml", "cpu")
    .option("--threads <n>", "threads for compute (default: one per core)", positiveInteger);
}

export function positiveInteger(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1)
    throw new InvalidArgumentError(`Expected a positive integer, found "${text}".`);
  return value;
}

export function nonNegativeNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !(value >= 0) || !Number.isFinite(value)) {
    throw new InvalidArgumentError(`Expected a number of at least 0, found "${text}".`);
  }
  return value;
}

/** "8GiB". */
export function byteCount(text: string): number {
  const value = parseBytes(text);
  if (value !== undefined) return value;
  throw new InvalidArgumentError(`Expected bytes such as 8GiB or 500MB, found "${text}".`);
}

/** "5m", in milliseconds. */
export function durationMs(text: string): number {
  const value = parseDurationMs(text);
  if (value !== undefined) return value;
  throw new InvalidArgumentError(`Expected a time such as 90s, 5m or 1h, found "${text}".`);
}

/** Gathers an option that may be given several times. */
export function collect(value: string, previous: string[] = []): string[] {
  return [...previous, value];
}
