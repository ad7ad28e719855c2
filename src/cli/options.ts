import { type Command, InvalidArgumentError } from "commander";

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

/** Gathers an option that may be given several times. */
export function collect(value: string, previous: string[] = []): string[] {
  return [...previous, value];
}
